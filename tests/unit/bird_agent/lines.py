"""Lines as ExaBGP 5.0.15 writes them, for the tests that need some."""

from __future__ import annotations

import json
from typing import Any

HEAD = '{ "exabgp": "5.0.0", "time": %s, "host" : "vm", "pid" : 1, "ppid" : 2, "counter": 5, "type": "%s", '
NEIGHBOR = (
    '"neighbor": { "address": { "local": "10.1.0.1", "peer": "%s" }, "asn": { "local": 64512, "peer": 64512 }'
    ', "router-id": "10.1.0.1" , %s } }'
)
GRACEFUL = {
    "name": "graceful restart",
    "time": 90,
    "address-family-flags": {"ipv4/unicast": ["restart"], "ipv6/unicast": []},
    "restart-flags": [],
}


def line(kind: str, content: str, peer: str = "10.1.0.2", at: float = 100.5) -> bytes:
    return (HEAD % (at, kind) + NEIGHBOR % (peer, content)).encode()


def state(name: str, reason: str = "", peer: str = "10.1.0.2", at: float = 100.5) -> bytes:
    tail = f', "reason": {json.dumps(reason)}' if name == "down" else ""
    return line("state", f'"state": "{name}"{tail}', peer, at)


def opened(peer: str = "10.1.0.2", graceful: dict[str, Any] | None = GRACEFUL, asn: int = 64512) -> bytes:
    capabilities: dict[str, Any] = {
        "1": {"name": "multiprotocol", "families": ["ipv4/unicast"]},
        "5": {"name": "nexthop", "conversion": ["ipv4/unicast/ipv6"]},
        "2": {"name": "route-refresh", "variant": "RFC"},
        "65": {"name": "asn4", "asn4": 64512},
        "70": {"name": "enhanced-route-refresh"},
        "71": {"name": "unknown", "iana": "unassigned", "value": 71, "raw": ""},
    }
    if graceful is not None:
        capabilities["64"] = graceful
    body = {"version": 4, "asn": asn, "hold_time": 9, "router_id": peer, "capabilities": capabilities}
    return line("open", f'"direction": "receive", "open": {json.dumps(body)}', peer)


def update(
    announce: dict[str, list[str]] | None = None,
    withdraw: list[str] | None = None,
    attribute: str = '"origin": "igp", "local-preference": 100',
    peer: str = "10.1.0.2",
    family: str = "ipv4 unicast",
) -> bytes:
    parts = []
    if announce:
        parts.append(f'"attribute": {{ {attribute} }}')
        by_hop = {hop: [{"nlri": prefix} for prefix in prefixes] for hop, prefixes in announce.items()}
        parts.append(f'"announce": {{ "{family}": {json.dumps(by_hop)} }}')
    if withdraw:
        parts.append(f'"withdraw": {{ "{family}": {json.dumps([{"nlri": prefix} for prefix in withdraw])} }}')
    return line("update", f'"direction": "receive", "message": {{ "update": {{ {", ".join(parts)} }} }}', peer)


def packed(next_hop: str, announced: str, withdrawn: str) -> bytes:
    """As bird_agent/exabgp/received.py writes an UPDATE: prefixes in hex."""
    prefixes = f'"next-hop": "{next_hop}", "announced": "{announced}", "withdrawn": "{withdrawn}"'
    content = f'"attribute": {{ "origin": "igp", "local-preference": 100 }}, "packed": {{ {prefixes} }}'
    return line("update", f'"direction": "receive", "message": {{ "update": {{ {content} }} }}')


def end_of_rib(peer: str = "10.1.0.2") -> bytes:
    return line("update", '"direction": "receive", "message": { "eor": { "afi" : "ipv4", "safi" : "unicast" } }', peer)


def refresh(subtype: str, peer: str = "10.1.0.2") -> bytes:
    mark = f'{{ "afi": "ipv4", "safi": "unicast", "subtype": "{subtype}" }}'
    return line("refresh", f'"direction": "receive", "route-refresh": {mark}', peer)
