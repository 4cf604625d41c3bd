"""How peers, paths and their reasons look: tables for people, trees for programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from weft.admin.bgp import ConfigReport, PathReport, PeerReport, TraceReport
from weft.ctl.node_view import since
from weft.ctl.tables import columns, plain

_PEER_HEADINGS = ("PEER", "AS", "STATE", "SINCE", "RECEIVED", "ACCEPTED", "ANNOUNCED", "FLAPS", "RESOURCE", "INFO")
_WIDE_PEER_HEADINGS = (*_PEER_HEADINGS, "LOCAL", "LOCAL AS", "ROUTER ID", "HOLD", "UPDATES", "OPTIONS")
_PATH_HEADINGS = ("", "PREFIX", "PEER", "NEXT HOP", "LOCAL PREF", "MED", "AS PATH", "WHY")
_WIDE_PATH_HEADINGS = (*_PATH_HEADINGS, "ORIGIN", "COMMUNITIES", "ORIGINATOR", "CLUSTERS")
_MARKS = {
    "best": ">",
    "used beside the best": "=",
    "not used": "",
    "unreachable": "?",
    "refused": "x",
    "announced": "",
    "not announced": "x",
}
LEGEND = "> best  = used beside it  ? next hop unreachable  x refused  s kept of a peer that is away\n"


def peers_table(peers: Sequence[PeerReport], not_enforced: Sequence[str], now_s: float, wide: bool) -> str:
    table = _peers_rows(peers, now_s, wide) if peers else "No BGP peers.\n"
    if not not_enforced:
        return table
    return f"{table}\n" + "".join(f"Not enforced: {plain(each)}\n" for each in not_enforced)


def _peers_rows(peers: Sequence[PeerReport], now_s: float, wide: bool) -> str:
    rows = []
    for one in peers:
        info = [one.last_error] if one.last_error and one.state != "Established" else []
        info += ["its routes are kept"] if one.restarting else []
        info += [one.role] if one.role else []
        info += [f"{one.behind} changes behind"] if one.behind else []
        row = (
            str(one.address),
            str(one.asn),
            one.state,
            since(one.since_s, now_s),
            str(one.received),
            str(one.accepted),
            str(one.announced),
            str(one.flaps),
            one.resource,
            "; ".join(info),
        )
        more = (
            str(one.local_address),
            str(one.local_as),
            "" if one.router_id is None else str(one.router_id),
            f"{one.hold_time_s}s" if one.hold_time_s else "",
            str(one.updates),
            ", ".join(_options(one)),
        )
        rows.append((*row, *more) if wide else row)
    return columns(_WIDE_PEER_HEADINGS if wide else _PEER_HEADINGS, rows)


def paths_table(paths: Sequence[PathReport], wide: bool) -> str:
    if not paths:
        return "No paths.\n"
    rows = [_row(one, wide) for one in paths]
    return columns(_WIDE_PATH_HEADINGS if wide else _PATH_HEADINGS, rows)


def trace_text(trace: TraceReport, asked: str, wide: bool) -> str:
    if trace.prefix is None:
        return f"Nothing is known that leads to {asked}.\n"
    parts = [f"{asked} lies in {trace.prefix}\n\nPaths\n", paths_table(trace.paths, wide)]
    parts.append("\nIn the kernel\n")
    parts.append("".join(f"{hop}\n" for hop in trace.kernel) or "no BGP route of ours\n")
    if trace.announcements:
        parts += ["\nAnnounced\n", paths_table(trace.announcements, wide)]
    return "".join(parts)


def config_text(config: ConfigReport) -> str:
    if config.router_id is None:
        return "This node is no BGP speaker: it is not registered, or has no address.\n"
    reflector = f", cluster {config.cluster_id}" if config.cluster_id is not None else ""
    listens = ", ".join(map(str, config.addresses))
    head = f"# AS {config.asn}, router id {config.router_id}{reflector}, listens on {listens}, port {config.port}\n"
    return f"{head}\n{config.speaker}"


def tree(value: Any) -> Any:
    """Any of the reports for programs, with calicoctl's kind of names; what there is none of is left out."""
    if isinstance(value, (list, tuple)):
        return [tree(one) for one in value]
    if not isinstance(value, Struct):
        return value if isinstance(value, (str, int, float)) else str(value)
    present = {name: getattr(value, name) for name in value.__struct_fields__}
    return {_camel(name): tree(one) for name, one in present.items() if one is not None}


def _row(one: PathReport, wide: bool) -> tuple[str, ...]:
    mark = _MARKS.get(one.standing, "") + ("s" if one.stale else "")
    row = (
        mark,
        str(one.prefix),
        str(one.peer),
        "" if one.next_hop is None else str(one.next_hop),
        "" if one.local_preference is None else str(one.local_preference),
        "" if one.med is None else str(one.med),
        one.as_path,
        one.reason,
    )
    more = (
        one.origin,
        " ".join(one.communities),
        "" if one.originator_id is None else str(one.originator_id),
        " ".join(map(str, one.cluster_list)),
    )
    return (*row, *more) if wide else row


def _options(one: PeerReport) -> list[str]:
    options = ["password"] if one.has_password else []
    options += [f"TTL security {one.ttl_security_hops}"] if one.ttl_security_hops else []
    options += [f"BFD {one.bfd}"] if one.bfd else []
    options += [f"at most {one.max_prefixes} prefixes"] if one.max_prefixes else []
    return options + [f"filter {name}" for name in one.filters]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
