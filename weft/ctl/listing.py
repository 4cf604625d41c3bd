"""Which columns a list of each kind has, and what is in them; headings and texts are those of calicoctl.

Pure: works on v3 documents as they travel, so it needs no model and starts at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from weft.ctl.tables import columns

Document = Mapping[str, Any]
Cell = Callable[[Document], str]

LONGEST_LIST = 80
# Stands where a node without an AS number of its own shows the cluster's; whoever prints fills it in.
CLUSTER_AS = "({asnumber})"
DEFAULT_AS = 64512


class Listing(NamedTuple):
    """Headings of the narrow and of the wide form, and how to fill each."""

    narrow: tuple[str, ...]
    wide: tuple[str, ...]
    cells: Mapping[str, Cell]


def field(*path: str, absent: str = "") -> Cell:
    """The text at a path of names; booleans as Go prints them."""

    def cell(document: Document) -> str:
        value: Any = document
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return absent if value is None or value == "" else text(value)

    return cell


def text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, Mapping):
        return ",".join(f"{name}={text(item)}" for name, item in sorted(value.items()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(text, value))
    return str(value)


def shortened(cell: Cell) -> Cell:
    def short(document: Document) -> str:
        whole = cell(document)
        return whole if len(whole) <= LONGEST_LIST else whole[: LONGEST_LIST - 3] + "..."

    return short


def count(*path: str) -> Cell:
    def cell(document: Document) -> str:
        value: Any = document
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return str(len(value or ()))

    return cell


def _peer_node(document: Document) -> str:
    spec = document.get("spec") or {}
    return str(spec.get("node") or spec.get("nodeSelector") or "(global)")


def _workload(document: Document) -> str:
    spec = document.get("spec") or {}
    return str(spec.get("workload") or spec.get("pod") or "")


def _node_as(document: Document) -> str:
    """The node's own AS number, or a place for the cluster's; nothing for a node without BGP."""
    bgp = (document.get("spec") or {}).get("bgp")
    return "" if bgp is None else str(bgp.get("asNumber") or CLUSTER_AS)


NAME = {"NAME": field("metadata", "name")}
NAMESPACE = field("metadata", "namespace")
POLICY = Listing(
    ("NAME", "TIER"),
    ("NAME", "TIER", "ORDER", "SELECTOR"),
    NAME
    | {
        "TIER": field("spec", "tier", absent="default"),
        "ORDER": field("spec", "order", absent="<nil>"),
        "SELECTOR": field("spec", "selector"),
    },
)
NETWORK_SET = Listing(("NAME",), ("NAME", "NETS"), NAME | {"NETS": shortened(field("spec", "nets"))})
ONLY_NAME = Listing(("NAME",), ("NAME",), NAME)

LISTINGS: Mapping[str, Listing] = {
    "BGPConfiguration": Listing(
        ("NAME", "LOGSEVERITY", "MESHENABLED", "ASNUMBER"),
        ("NAME", "LOGSEVERITY", "MESHENABLED", "ASNUMBER"),
        NAME
        | {
            "LOGSEVERITY": field("spec", "logSeverityScreen"),
            "MESHENABLED": field("spec", "nodeToNodeMeshEnabled", absent="-"),
            "ASNUMBER": field("spec", "asNumber", absent="-"),
        },
    ),
    "BGPFilter": Listing(
        ("NAME", "NUMEXPORTV4", "NUMIMPORTV4", "NUMEXPORTV6", "NUMIMPORTV6"),
        ("NAME", "NUMEXPORTV4", "NUMIMPORTV4", "NUMEXPORTV6", "NUMIMPORTV6"),
        NAME
        | {
            "NUMEXPORTV4": count("spec", "exportV4"),
            "NUMIMPORTV4": count("spec", "importV4"),
            "NUMEXPORTV6": count("spec", "exportV6"),
            "NUMIMPORTV6": count("spec", "importV6"),
        },
    ),
    "BGPPeer": Listing(
        ("NAME", "PEERIP", "NODE", "ASN"),
        ("NAME", "PEERIP", "NODE", "ASN"),
        NAME | {"PEERIP": field("spec", "peerIP"), "NODE": _peer_node, "ASN": field("spec", "asNumber", absent="0")},
    ),
    "CalicoNodeStatus": Listing(
        ("NAME", "NODE"),
        ("NAME", "NODE", "CLASSES"),
        NAME | {"NODE": field("spec", "node"), "CLASSES": field("spec", "classes")},
    ),
    "ClusterInformation": Listing(
        ("NAME", "CLUSTERGUID", "CLUSTERTYPE", "CALICOVERSION", "DATASTOREREADY"),
        ("NAME", "CLUSTERGUID", "CLUSTERTYPE", "CALICOVERSION", "DATASTOREREADY"),
        NAME
        | {
            "CLUSTERGUID": field("spec", "clusterGUID"),
            "CLUSTERTYPE": field("spec", "clusterType"),
            "CALICOVERSION": field("spec", "calicoVersion"),
            "DATASTOREREADY": field("spec", "datastoreReady"),
        },
    ),
    "GlobalNetworkPolicy": POLICY,
    "NetworkPolicy": POLICY,
    "StagedGlobalNetworkPolicy": POLICY,
    "StagedNetworkPolicy": POLICY,
    "GlobalNetworkSet": NETWORK_SET,
    "NetworkSet": NETWORK_SET,
    "HostEndpoint": Listing(
        ("NAME", "NODE"),
        ("NAME", "NODE", "INTERFACE", "IPS", "PROFILES"),
        NAME
        | {
            "NODE": field("spec", "node"),
            "INTERFACE": field("spec", "interfaceName"),
            "IPS": field("spec", "expectedIPs"),
            "PROFILES": field("spec", "profiles"),
        },
    ),
    "IPAMConfiguration": Listing(
        ("NAME", "STRICTAFFINITY", "AUTOALLOCATEBLOCKS"),
        ("NAME", "STRICTAFFINITY", "AUTOALLOCATEBLOCKS", "MAXBLOCKSPERHOST"),
        NAME
        | {
            "STRICTAFFINITY": field("spec", "strictAffinity", absent="false"),
            "AUTOALLOCATEBLOCKS": field("spec", "autoAllocateBlocks", absent="false"),
            "MAXBLOCKSPERHOST": field("spec", "maxBlocksPerHost", absent="0"),
        },
    ),
    "IPPool": Listing(
        ("NAME", "CIDR", "SELECTOR"),
        (
            "NAME",
            "CIDR",
            "NAT",
            "IPIPMODE",
            "VXLANMODE",
            "DISABLED",
            "DISABLEBGPEXPORT",
            "SELECTOR",
            "ASSIGNMENTMODE",
        ),
        NAME
        | {
            "CIDR": field("spec", "cidr"),
            "SELECTOR": field("spec", "nodeSelector"),
            "NAT": field("spec", "natOutgoing", absent="false"),
            "IPIPMODE": field("spec", "ipipMode", absent="Never"),
            "VXLANMODE": field("spec", "vxlanMode", absent="Never"),
            "DISABLED": field("spec", "disabled", absent="false"),
            "DISABLEBGPEXPORT": field("spec", "disableBGPExport", absent="false"),
            "ASSIGNMENTMODE": field("spec", "assignmentMode", absent="Automatic"),
        },
    ),
    "IPReservation": Listing(("NAME",), ("NAME", "CIDRS"), NAME | {"CIDRS": shortened(field("spec", "reservedCIDRs"))}),
    "KubernetesEndpointSlice": Listing(
        ("NAME", "SERVICE"),
        ("NAME", "SERVICE", "ADDRESSTYPE", "ENDPOINTS"),
        NAME
        | {
            "SERVICE": field("metadata", "labels", "kubernetes.io/service-name"),
            "ADDRESSTYPE": field("addressType", absent="IPv4"),
            "ENDPOINTS": count("endpoints"),
        },
    ),
    "Node": Listing(
        ("NAME",),
        ("NAME", "ASN", "IPV4", "IPV6"),
        NAME
        | {
            "ASN": _node_as,
            "IPV4": field("spec", "bgp", "ipv4Address"),
            "IPV6": field("spec", "bgp", "ipv6Address"),
        },
    ),
    "Profile": Listing(("NAME",), ("NAME", "LABELS"), NAME | {"LABELS": field("spec", "labelsToApply")}),
    "StagedKubernetesNetworkPolicy": Listing(
        ("NAME",), ("NAME", "PODSELECTOR"), NAME | {"PODSELECTOR": field("spec", "podSelector")}
    ),
    "Tier": Listing(("NAME", "ORDER"), ("NAME", "ORDER"), NAME | {"ORDER": field("spec", "order", absent="<nil>")}),
    "WorkloadEndpoint": Listing(
        ("WORKLOAD", "NODE", "NETWORKS", "INTERFACE"),
        ("NAME", "WORKLOAD", "NODE", "NETWORKS", "INTERFACE", "PROFILES", "NATS"),
        NAME
        | {
            "WORKLOAD": _workload,
            "NODE": field("spec", "node"),
            "NETWORKS": field("spec", "ipNetworks"),
            "INTERFACE": field("spec", "interfaceName"),
            "PROFILES": field("spec", "profiles"),
            "NATS": field("spec", "ipNATs"),
        },
    ),
}


def headings_of(kind: str, wide: bool) -> tuple[str, ...]:
    listing = LISTINGS.get(kind, ONLY_NAME)
    return listing.wide if wide else listing.narrow


def render(
    kind: str,
    documents: Sequence[Document],
    headings: Sequence[str],
    with_namespace: bool = False,
) -> str:
    """The documents of one kind as columns. Raises ValueError for a heading the kind has not."""
    cells = dict(LISTINGS.get(kind, ONLY_NAME).cells)
    if with_namespace:
        headings = ("NAMESPACE", *headings)
        cells["NAMESPACE"] = NAMESPACE
    for heading in headings:
        if heading not in cells:
            raise ValueError(f"unknown heading {heading}, valid values are: {', '.join(cells)}")
    rows = [[cells[heading](document) for heading in headings] for document in documents]
    return columns(headings, rows)
