"""Flows whose verdict changes, as a table and as JSON values. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from weft.ctl import tables
from weft.ctl.explain_view import VERDICTS, rule_of, said_by
from weft.policy.impact import FlowChange, Group
from weft.policy.packets import LAST_PORT, UNNAMED, Packets
from weft.policy.words import protocol_name

HEADINGS = ("FROM", "TO", "PROTOCOL", "PORTS", "CHANGE", "BY")
MOST_NAMED = 3


def text(changes: Sequence[FlowChange]) -> str:
    if not changes:
        return "No flow between existing endpoints would change.\n"
    rows = [
        (
            _ends(one.sources),
            _ends(one.destinations),
            protocol,
            ports,
            f"{VERDICTS[not one.decision.allowed]} -> {VERDICTS[one.decision.allowed]}",
            f"{one.decision.at.value}: {said_by(one.decision.will)} (was: {said_by(one.decision.was)})",
        )
        for one in changes
        for protocol, ports in _by_protocol(one.packets)
    ]
    return tables.columns(HEADINGS, rows)


def _ends(groups: Sequence[Group]) -> str:
    names = [f"{name} (outside)" if group.outside else name for group in groups for name in group.names]
    if len(names) <= MOST_NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:MOST_NAMED])} and {len(names) - MOST_NAMED} more"


def _by_protocol(packets: Sequence[Packets]) -> Iterator[tuple[str, str]]:
    """A protocol and its ports, or types of ICMP, in words."""
    by_protocol: dict[int, list[Packets]] = {}
    for one in packets:
        by_protocol.setdefault(one.protocol, []).append(one)
    for protocol, of_protocol in by_protocol.items():
        name = "any other" if protocol in UNNAMED else protocol_name(protocol)
        yield name, ", ".join(dict.fromkeys(map(_ports, of_protocol))) or "-"


def _ports(one: Packets) -> str:
    if one.icmp_type is not None:
        return f"type {one.icmp_type} code {one.icmp_code}"
    if one.first is None or one.last is None:
        return ""
    found = _range(one.first, one.last)
    if one.source_first is None or one.source_last is None:
        return found
    return f"{found} from {_range(one.source_first, one.source_last)}"


def _range(first: int, last: int) -> str:
    if (first, last) == (1, LAST_PORT):
        return "any"
    return str(first) if first == last else f"{first}-{last}"


def document(change: FlowChange) -> dict[str, Any]:
    """With every name. A packet's `port` and `source_port` are [first, last]."""
    return {
        "from": [_group(group) for group in change.sources],
        "to": [_group(group) for group in change.destinations],
        "packets": [_packets(one) for one in change.packets],
        "before": VERDICTS[not change.decision.allowed],
        "after": VERDICTS[change.decision.allowed],
        "at": change.decision.at.value,
        "rule_before": rule_of(change.decision.was),
        "rule_after": rule_of(change.decision.will),
    }


def _group(group: Group) -> dict[str, Any]:
    return {"endpoints": [], "outside": group.names[0]} if group.outside else {"endpoints": list(group.names)}


def _packets(one: Packets) -> dict[str, Any]:
    return {
        "protocol": protocol_name(one.protocol) if one.protocol not in UNNAMED else "any other",
        **({"port": [one.first, one.last]} if one.first is not None else {}),
        **({"source_port": [one.source_first, one.source_last]} if one.source_first is not None else {}),
        **({"icmp_type": one.icmp_type, "icmp_code": one.icmp_code} if one.icmp_type is not None else {}),
    }
