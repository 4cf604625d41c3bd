"""The automatic reflectors of a lab: turned on and off, asked, and how far the fabric is from what was asked for."""

from __future__ import annotations

import json
from typing import Any

from lab import ctl, status
from lab.state import Lab


def enable(lab: Lab) -> None:
    ctl.weftctl(lab, "bgp", "reflectors", "enable", *lab.topology.reflectors)


def disable(lab: Lab) -> None:
    ctl.weftctl(lab, "bgp", "reflectors", "disable")


def chosen(lab: Lab) -> dict[str, tuple[str, ...]]:
    """By failure domain, the nodes whose reflectors serve it, best first."""
    return {one["domain"]: tuple(one["reflectors"]) for one in _report(lab)["domains"]}


def pending_reflectors(lab: Lab) -> list[str]:
    """What is missing, in words, until every node has the reflectors of its domain and no session of the mesh."""
    missing = [f"{host} still peers with {peer}" for host, peer in sorted(_mesh(lab))]
    if missing:
        return missing
    found = _report(lab)
    if found["mode"] != "reflectors":
        return ["the fabric is a mesh"]
    for domain in found["domains"]:
        missing += [f"the reflector of {name} is not up" for name in domain["reflectors"] if name not in domain["up"]]
        if domain["attached"] < domain["nodes"]:
            missing.append(f"{domain['domain']}: {domain['attached']} of {domain['nodes']} nodes have their reflectors")
    return missing


def pending_mesh(lab: Lab) -> list[str]:
    """What is missing, in words, until every node peers with every other and with no reflector."""
    names = [node.name for node in lab.topology.nodes]
    wanted = {(host, peer) for host in names for peer in names if host != peer}
    missing = [f"{host} does not peer with {peer}" for host, peer in sorted(wanted - _mesh(lab))]
    known = {host.name for host in lab.topology.hosts}
    return missing + [
        f"{one['host']} still peers with a reflector ({one['address']})"
        for one in status.sessions(lab)
        if one["host"] in names and one["peer"] not in known
    ]


def _report(lab: Lab) -> dict[str, Any]:
    """How it stands, as `weftctl bgp reflectors -o json` has it."""
    now: dict[str, Any] = json.loads(ctl.weftctl(lab, "bgp", "reflectors", "-o", "json"))["now"]
    return now


def _mesh(lab: Lab) -> set[tuple[str, str]]:
    """The established sessions between nodes, as each end sees them."""
    nodes = {node.name for node in lab.topology.nodes}
    return {
        (one["host"], one["peer"])
        for one in status.sessions(lab)
        if one["host"] in nodes and one["peer"] in nodes and one["state"] == status.ESTABLISHED
    }
