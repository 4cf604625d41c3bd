"""How counters and flows look. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime
from typing import Any

from weft.admin.policy import Count, Counters, Flow, Flows, Party, PolicyCount
from weft.ctl.tables import columns
from weft.model.keys import ResourceKey
from weft.policy.values import Direction

PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp", 136: "udplite"}
COUNTER_HEADINGS = ("KIND", "NAMESPACE", "NAME", "DIRECTION", "RULE", "ACTION", "PACKETS", "BYTES")
FLOW_HEADINGS = ("TIME", "ACTION", "DIRECTION", "FROM", "TO", "PROTOCOL", "PACKETS", "TIER", "POLICY", "RULE")


def chosen(counters: Counters, names: Collection[str], namespace: str) -> Counters:
    """The policies of these names and this namespace ("" for any); all, with the ends, without either."""
    if not names and not namespace:
        return counters
    policies = tuple(
        one
        for one in counters.policies
        if (not names or one.policy.name in names) and (not namespace or one.policy.namespace == namespace)
    )
    return Counters(policies)


def counters_table(counters: Counters, *, rules: bool) -> str:
    """A line for each direction of a policy that has rules or counted anything; with `rules` one for each of them."""
    rows: list[tuple[str, ...]] = []
    for one in counters.policies:
        for direction in Direction:
            rows += _rows(one, direction, rules)
    for end in counters.ends:
        name = f"(end of tier {end.tier})" if end.tier else "(nothing allowed it)"
        rows.append(("", "", name, end.direction.value, "", "Deny", *_numbers(end.count)))
    if not rows:
        return "No counters.\n"
    return columns(COUNTER_HEADINGS, rows)


def _rows(one: PolicyCount, direction: Direction, rules: bool) -> list[tuple[str, ...]]:
    key, total = one.policy, one.total(direction)
    head = (key.kind, key.namespace, key.name, direction.value)
    mine = [rule for rule in one.rules if rule.direction is direction]
    if not mine and not total.packets:
        return []
    lines: list[tuple[str, ...]] = [(*head, "all", "", *_numbers(total))]
    if rules:
        lines += [(*head, str(rule.index), rule.action.value, *_numbers(rule.count)) for rule in mine]
        packets = total.packets - sum(rule.count.packets for rule in mine)
        octets = total.bytes - sum(rule.count.bytes for rule in mine)
        if packets:
            lines.append((*head, "(former)", "", str(packets), str(octets)))
    return lines


def _numbers(count: Count) -> tuple[str, str]:
    return str(count.packets), str(count.bytes)


def counters_tree(counters: Counters) -> dict[str, Any]:
    return {
        "policies": [
            {
                **_key_tree(one.policy),
                **{direction.value: _count_tree(one.total(direction)) for direction in Direction},
                "rules": [
                    {
                        "direction": rule.direction.value,
                        "index": rule.index,
                        "id": rule.id,
                        "action": rule.action.value,
                        **_count_tree(rule.count),
                    }
                    for rule in one.rules
                ],
            }
            for one in counters.policies
        ],
        "ends": [
            {"direction": end.direction.value, "tier": end.tier, **_count_tree(end.count)} for end in counters.ends
        ],
    }


def _count_tree(count: Count) -> dict[str, int]:
    return {"packets": count.packets, "bytes": count.bytes}


def _key_tree(key: ResourceKey) -> dict[str, str]:
    return {"kind": key.kind, "namespace": key.namespace, "name": key.name}


def flows_table(flows: Flows) -> str:
    lost = f"{flows.lost} packets were not logged: there were too many.\n" if flows.lost else ""
    if not flows.flows:
        return f"No flows.\n{lost}"
    return columns(FLOW_HEADINGS, [_flow_row(one) for one in flows.flows]) + lost


def flow_line(one: Flow, *, as_json: bool) -> str:
    return json.dumps(flow_tree(one)) if as_json else "  ".join(part for part in _flow_row(one) if part)


def _flow_row(one: Flow) -> tuple[str, ...]:
    protocol = PROTOCOLS.get(one.protocol, str(one.protocol))
    if one.icmp_type is not None:
        protocol += f" {one.icmp_type}/{one.icmp_code}"
    policy = one.policy
    if policy is not None:
        place = f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name
    else:
        place = "(end of tier)" if one.tier else "(nothing allowed it)"
    return (
        datetime.fromtimestamp(one.last_s).strftime("%H:%M:%S"),
        one.action.value.lower(),
        one.direction.value,
        _party(one.source),
        _party(one.destination),
        protocol,
        str(one.packets),
        one.tier,
        place,
        "" if one.rule is None else str(one.rule),
    )


def _party(party: Party) -> str:
    address = f"[{party.address}]" if party.port is not None and party.address.version == 6 else str(party.address)
    where = address if party.port is None else f"{address}:{party.port}"
    if not party.name:
        return where
    return f"{party.namespace}/{party.name} ({where})" if party.namespace else f"{party.name} ({where})"


def flows_tree(flows: Flows) -> dict[str, Any]:
    return {"flows": [flow_tree(one) for one in flows.flows], "lost": flows.lost}


def flow_tree(one: Flow) -> dict[str, Any]:
    """Times are seconds since the epoch."""
    return {
        "start": one.first_s,
        "end": one.last_s,
        "action": one.action.value.lower(),
        "direction": one.direction.value,
        "interface": one.interface,
        "source": _party_tree(one.source),
        "destination": _party_tree(one.destination),
        "protocol": one.protocol,
        "icmpType": one.icmp_type,
        "icmpCode": one.icmp_code,
        "packets": one.packets,
        "tier": one.tier,
        "policy": _key_tree(one.policy) if one.policy is not None else None,
        "rule": one.rule,
        "ruleId": one.rule_id,
    }


def _party_tree(party: Party) -> dict[str, Any]:
    return {
        "address": str(party.address),
        "port": party.port,
        "namespace": party.namespace,
        "name": party.name,
    }
