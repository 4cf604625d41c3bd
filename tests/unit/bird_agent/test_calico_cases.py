"""Calico's published cases of resources and the BIRD configuration that must come of them, read from a checkout.

They are Calico's, and not part of this repository: CALICO_SOURCE=/path/to/calico names a checkout of it."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from bird_agent.filters import rule_set
from bird_agent.peering import peering
from bird_agent.session_config import Peering, SessionConfig, SessionKind
from bird_agent.survey import BgpResources
from bird_agent.workload_peers import LocalWorkload
from weft.model.bgp import BGPConfiguration, BGPFilter, BGPPeer
from weft.model.codec import decode_manifests
from weft.model.node import Node

SOURCE = os.environ["CALICO_SOURCE"]
TESTS = Path(SOURCE) / "confd" / "tests"
INPUTS = TESTS / "mock_data" / "calicoctl"
NODE = "kube-master"
LATER = re.compile(r"^ *programClusterRoutes: Enabled(IPIPOnly|NoEncapOnly)\n", re.MULTILINE)
"""Values of a release after 3.32.1; they concern the kernel's routes, not the sessions."""
LISTEN = re.compile(r"^listen bgp(?: address (\S+?))?(?: port (\d+))?;", re.MULTILINE)
KINDS = {
    "Mesh": SessionKind.MESH,
    "Global": SessionKind.GLOBAL,
    "Node": SessionKind.NODE,
    "Local": SessionKind.WORKLOAD,
}
NEIGHBOR = re.compile(r"neighbor (\S+?)(?: port (\d+))? as (\d+);")


def cases() -> list[Any]:
    found = sorted(path.parent.relative_to(INPUTS) for path in INPUTS.rglob("input.yaml"))
    usable = [case for case in found if (TESTS / "compiled_templates" / case / "bird.cfg").exists()]
    return [pytest.param(case, id=str(case)) for case in usable if NODE in (INPUTS / case / "input.yaml").read_text()]


def text_of(case: Path) -> str:
    """A second step comes on top of the case it is in."""
    before = INPUTS / case.parent / "input.yaml"
    text = before.read_text() + "\n---\n" if before.exists() else ""
    return LATER.sub("", text + (INPUTS / case / "input.yaml").read_text())


def resources(text: str) -> BgpResources:
    held: dict[type, dict[str, Any]] = {Node: {}, BGPConfiguration: {}, BGPPeer: {}, BGPFilter: {}}
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
        r"^protocol bgp (Local|[A-Za-z]+)_\w+ from bgp_template \{(.*?)^\}", text, re.MULTILINE | re.DOTALL
    ):
        neighbor = NEIGHBOR.search(body)
        assert neighbor is not None
        assert own_as is not None
        peer = neighbor[1]

        def value(pattern: str, body: str = body) -> str | None:
            match = re.search(pattern, body)
            return None if match is None else match[1]

        found[str(ip_address(peer))] = {
            "kind": KINDS[kind],
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
        "source": None if session.peer in made.needs.sources or session.passive else str(session.local),
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
    known = resources(text_of(case))
    check(case, known, peering(NODE, known))


def test_workloads_are_calicos() -> None:
    """There it is felix that says which workload is whose, in files; of two BGPPeers that choose the same the first
    by name has it, so the second chooses another one here."""
    text = (INPUTS / "local_bgp_peer" / "input.yaml").read_text()
    first, marker, second = text.rpartition("app == 'calico-bird-0'")
    virtual = "spec:\n  localWorkloadPeeringIPV4: 169.254.0.179\n  localWorkloadPeeringIPV6: fd00::179\n"
    known = resources((first + marker.replace("-0", "-1") + second).replace("spec:\n", virtual, 1))
    workloads = tuple(
        LocalWorkload(f"w{number}", {"app": f"calico-bird-{number}"}, tuple(map(ip_address, addresses)))
        for number, addresses in enumerate(
            (
                ("192.168.162.134", "fd00:10:244:0:586d:4461:e980:a284"),
                ("192.168.162.136", "fd00:10:244:0:586d:4461:e980:a286"),
            )
        )
    )
    made = peering(NODE, replace(known, workloads=workloads))
    check(Path("explicit_peering/local_bgp_peer"), known, made)


def check(case: Path, known: BgpResources, made: Peering | None) -> None:
    for name, version in (("bird.cfg", 4), ("bird6.cfg", 6)):
        text = (TESTS / "compiled_templates" / case / name).read_text()
        if made is None:  # a node without an address
            assert f"IPv{version} disabled on this node" in text
            continue
        listen = LISTEN.search(text)
        if any(address.version == version for address in made.addresses):
            assert str(made.port) == ((listen and listen[2]) or "179")
            anywhere = "0.0.0.0" if version == 4 else "::"
            assert ((listen and listen[1]) or anywhere) in map(str, made.listen)
        ours = {
            str(peer): planned(session, known, made)
            for peer, session in made.sessions.items()
            if peer.version == version
        }
        assert ours == expected(case, name)
