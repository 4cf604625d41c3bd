"""The kinds of resources: their plurals, whether they live in a namespace, what people call them.

Plurals are what Calico 3.32.1 puts into etcd keys. It registers one of them as `BGPFilters` and lowers
it before use, so the key says `bgpfilters` (docs/adr/0010)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec


class Kind(msgspec.Struct, frozen=True):
    """One kind; `aliases` are the words command lines accept, lower case, the full ones included."""

    name: str
    plural: str
    namespaced: bool
    aliases: tuple[str, ...]


def _kind(name: str, plural: str, *aliases: str, namespaced: bool = False) -> Kind:
    return Kind(name, plural, namespaced, (name.lower(), plural, *aliases))


KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        _kind("Node", "nodes", "no", "nos"),
        _kind("IPPool", "ippools", "ipp", "ipps", "pool", "pools"),
        _kind("IPReservation", "ipreservations", "reservation", "reservations"),
        _kind("IPAMConfiguration", "ipamconfigurations", "ipamconfig", "ipamconfigs"),
        _kind("BGPConfiguration", "bgpconfigurations", "bgpconfig", "bgpconfigs"),
        _kind("BGPPeer", "bgppeers", "bgpp", "bgpps", "bp", "bps"),
        _kind("BGPFilter", "bgpfilters", "bgpf", "bgpfs", "bf", "bfs"),
        _kind("CalicoNodeStatus", "caliconodestatuses", "nodestatus", "nodestatuses"),
        _kind("WorkloadEndpoint", "workloadendpoints", "wep", "weps", namespaced=True),
        _kind("HostEndpoint", "hostendpoints", "hep", "heps"),
        _kind("Profile", "profiles", "pro", "pros"),
        _kind("Tier", "tiers"),
        _kind("NetworkPolicy", "networkpolicies", "policy", "np", "policies", "pol", "pols", namespaced=True),
        _kind("GlobalNetworkPolicy", "globalnetworkpolicies", "gnp", "gnps"),
        _kind(
            "StagedNetworkPolicy",
            "stagednetworkpolicies",
            *("stagedpolicy", "snp", "stagedpolicies", "spol", "spols", "snps"),
            namespaced=True,
        ),
        _kind("StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies", "sgnp", "sgnps"),
        _kind(
            "StagedKubernetesNetworkPolicy",
            "stagedkubernetesnetworkpolicies",
            *("stagedkubernetespolicy", "sknp", "stagedkubernetespolicies", "skpol", "skpols"),
            namespaced=True,
        ),
        _kind("NetworkSet", "networksets", "netsets", namespaced=True),
        _kind("GlobalNetworkSet", "globalnetworksets", "gnetsets"),
        _kind("ClusterInformation", "clusterinformations", "clusterinfo", "clusterinfos"),
        _kind("FelixConfiguration", "felixconfigurations", "felixconfig", "felixconfigs"),
        _kind(
            "KubernetesEndpointSlice", "kubernetesendpointslices", "endpointslice", "endpointslices", namespaced=True
        ),
    )
}

BY_PLURAL: Final[Mapping[str, Kind]] = {kind.plural: kind for kind in KINDS.values()}
_BY_ALIAS: Final = {alias: kind for kind in KINDS.values() for alias in kind.aliases}


def find(word: str) -> Kind | None:
    """The kind a person means by `word`, in any case: `IPPool`, `ippools`, `pool`."""
    return _BY_ALIAS.get(word.lower())
