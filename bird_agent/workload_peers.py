"""Which workloads of this node a BGPPeer with a `localWorkloadSelector` peers with.

Pure, and Calico's rules: a workload that several such resources select belongs to the first of them by name, and is
reached at its first address of each family. Whether the sessions can be had, bird_agent/peering.py says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from weft import selector
from weft.model.address import IPAddress
from weft.model.bgp import BGPConfigurationSpec, BGPPeer


class LocalWorkload(Struct, frozen=True):
    """A workload of this node: `addresses` are the first of each family."""

    name: str
    labels: Mapping[str, str]
    addresses: tuple[IPAddress, ...]


def selected(peers: Iterable[BGPPeer], workloads: Iterable[LocalWorkload]) -> dict[str, list[LocalWorkload]]:
    """The workloads of each of these BGPPeers, which are those for this node, by its name. Raises SelectorError."""
    asked = [(peer.name, selector.parse(peer.spec.local_workload_selector)) for peer in sorted(peers, key=_name)]
    found: dict[str, list[LocalWorkload]] = {name: [] for name, _ in asked}
    for workload in workloads:
        name = next((name for name, chooses in asked if chooses.matches(workload.labels)), None)
        if name is not None:
            found[name].append(workload)
    return found


def _name(peer: BGPPeer) -> str:
    return peer.name


def virtual_addresses(spec: BGPConfigurationSpec) -> Mapping[int, IPAddress]:
    """The addresses at which local workloads find their node, by version. A link-local IPv6 one would have to be on
    every workload's link."""
    given = (spec.local_workload_peering_ip_v4, spec.local_workload_peering_ip_v6)
    return {each.version: each for each in given if each is not None and not (each.version == 6 and each.is_link_local)}
