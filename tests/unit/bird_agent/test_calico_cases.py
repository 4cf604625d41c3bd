"""Calico's published cases of resources and the BIRD configuration that must come of them, read from a checkout.

They are Calico's, and not part of this repository: CALICO_SOURCE=/path/to/calico names a checkout of it."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from bird_agent.filters import rule_set
from bird_agent.peering import BgpResources, peering
from bird_agent.session_config import Peering, SessionConfig, SessionKind
from weft.model.bgp import BGPConfiguration, BGPFilter, BGPPeer
from weft.model.codec import decode_manifests
from weft.model.node import Node

SOURCE = os.environ["CALICO_SOURCE"]
TESTS = Path(SOURCE) / "confd" / "tests"
INPUTS = TESTS / "mock_data" / "calicoctl"
NODE = "kube-master"
LEFT_OUT = {
    "cluster_routes/ipip-only": "a value that 3.32.1 does not have",
    "cluster_routes/noencap-only": "a value that 3.32.1 does not have",
    "mesh/communities/step2": "a second step on top of another case",
    "mesh/static-routes-no-ipv4-address": "its nodes are Kubernetes'",
}
NEIGHBOR = re.compile(r"neighbor (\S+?)(?: port (\d+))? as (\d+);")


def cases() -> list[Any]:
    found = sorted(path.parent.relative_to(INPUTS) for path in INPUTS.rglob("input.yaml"))
    usable = [case for case in found if (TESTS / "compiled_templates" / case / "bird.cfg").exists()]
    usable = [case for case in usable if str(case) not in LEFT_OUT]
    return [pytest.param(case, id=str(case)) for case in usable if NODE in (INPUTS / case / "input.yaml").read_text()]


def resources(case: Path) -> BgpResources:
    held: dict[type, dict[str, Any]] = {Node: {}, BGPConfiguration: {}, BGPPeer: {}, BGPFilter: {}}
    text = (INPUTS / case / "input.yaml").read_text()
    for document in re.split(r"^---.*$", text, flags=re.MULTILINE):
        # What is no resource of BGP is none of our concern.
        if re.search(r"^kind: (Node|BGPConfiguration|BGPPeer|BGPFilter)\s*$", document, re.MULTILINE):
            for resource in decode_manifests(document, "input.yaml"):
                held[type(resource)][resource.name] = resource
    return BgpResources(*held.values())


def expected(case: Path, name: str) -> dict[str, dict[str, Any]]:
    text = (TESTS / "compiled_templates" / case / name).read_text()
    aggregated = TESTS / "compiled_templates" / case / name.replace(".cfg", "_aggr.cfg")
    static = aggregated.read_text() if aggregated.exists() else ""
    found = {}
    own_as = re.search(r"template bgp bgp_template \{.*?local as (\d+);", text, re.DOTALL)
    for kind, body in re.findall(
        r"^protocol bgp (\w+?)_\w+ from bgp_template \{(.*?)^\}", text, re.MULTILINE | re.DOTALL
    ):
        neighbor = NEIGHBOR.search(body)
        assert neighbor is not None
        assert own_as is not None
        peer = neighbor[1]

        def value(pattern: str, body: str = body) -> str | None:
            match = re.search(pattern, body)
            return None if match is None else match[1]

        found[str(ip_address(peer))] = {
            "kind": {"Mesh": SessionKind.MESH, "Global": SessionKind.GLOBAL, "Node": SessionKind.NODE}[kind],
            "port": int(neighbor[2] or 179),
            "peer_as": int(neighbor[3]),
            "local_as": int(value(r"local as (\d+);") or own_as[1]),
            "source": value(r"source address (\S+);"),
            "ttl": value(r"multihop (\d+);"),
            "restart": int(value(r"graceful restart time (\d+);") or 120),
            "next_hop": (value(r"next hop (\w+);") or "auto").capitalize(),
            "allowed": int(value(r"allow local as (\d+);") or 0),
            "imports": bool(re.search(r"'bgp_.*importFilter", body)),
            "exports": bool(re.search(r"'bgp_.*exportFilter", body)),
            "client": "rr client;" in body,
            "gateway": (re.search(rf"route {re.escape(peer)}/\d+ via (\S+);", static) or [None, None])[1],
        }
    return found


def planned(session: SessionConfig, known: BgpResources, made: Peering) -> dict[str, Any]:
    version = session.peer.version
    return {
        "kind": session.kind,
        "port": session.port,
        "peer_as": session.peer_as,
        "local_as": session.local_as,
        "source": None if session.peer in made.needs.sources else str(session.local),
        "ttl": None if session.ttl_security_hops is None else str(session.ttl_security_hops),
        "restart": session.restart_time_s,
        "next_hop": session.next_hop_mode,
        "allowed": session.allowed_own_as,
        "imports": bool(rule_set(session.filters, known.filters, "import", version)[0]),
        "exports": bool(rule_set(session.filters, known.filters, "export", version)[0]),
        "client": session.client,
        "gateway": None if session.gateway is None else str(session.gateway),
    }


@pytest.mark.parametrize("case", cases())
def test_sessions_are_calicos(case: Path) -> None:
    known = resources(case)
    made = peering(NODE, known)
    assert made is not None
    for name, version in (("bird.cfg", 4), ("bird6.cfg", 6)):
        ours = {
            str(peer): planned(session, known, made)
            for peer, session in made.sessions.items()
            if peer.version == version
        }
        assert ours == expected(case, name)
