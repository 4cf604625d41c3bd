"""CalicoNodeStatus: what a node says of itself, and when."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from bird_agent.exabgp import events
from bird_agent.exports import Source
from bird_agent.node_status import MOST_ROUTES, PEER_TYPES, SESSION_STATES, SOURCES, Daemon, Schedule, status_of
from bird_agent.session_config import SessionKind
from bird_agent.sessions import STATE_NAMES
from tests.unit.bird_agent.agent_world import BORROWED, World, running
from weft.model import codec
from weft.model.base import Metadata
from weft.model.errors import ValidationError
from weft.model.keys import ResourceKey
from weft.model.manifest import decode_manifests
from weft.model.node_status import (
    CalicoNodeRoute,
    CalicoNodeRouteLearnedFrom,
    CalicoNodeStatus,
    CalicoNodeStatusSpec,
    CalicoNodeStatusStatus,
    StatusClass,
)

NOON = 1_795_694_400.0
DAEMON = Daemon("weft 1.0", NOON, NOON + 60)


@pytest.fixture(autouse=True)
def utc() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def wish(*classes: StatusClass, period_s: int = 10, name: str = "s") -> CalicoNodeStatus:
    spec = CalicoNodeStatusSpec(node="n1", classes=classes, update_period_seconds=period_s)
    return CalicoNodeStatus(metadata=Metadata(name=name), spec=spec)


def said(world: World, *classes: StatusClass, now: float = NOON) -> CalicoNodeStatusStatus:
    return status_of(world.agent, wish(*classes).spec, DAEMON, now)


def test_only_what_was_asked_for_is_told() -> None:
    world = running(2)
    assert said(world, "Agent").bgp == CalicoNodeStatusStatus().bgp
    assert said(world, "BGP").agent == CalicoNodeStatusStatus().agent
    assert said(world, "BGP").routes == CalicoNodeStatusStatus().routes


def test_a_family_is_ready_with_an_address_and_a_speaker_that_answers() -> None:
    world = World(2)
    world.begin()
    assert said(world, "Agent").agent.bird_v4.state == "NotReady"
    world.speaker.attach()
    world.step()
    agent = said(world, "Agent").agent
    assert (agent.bird_v4.state, agent.bird_v4.version, agent.bird_v4.router_id) == ("Ready", "weft 1.0", "10.0.0.1")
    assert agent.bird_v4.last_boot_time == "2026-11-26 12:00:00"
    assert agent.bird_v4.last_reconfiguration_time == "2026-11-26 12:01:00"
    assert json.loads(codec.encode_stored(wish("Agent")))["status"]["agent"] == {}
    assert agent.bird_v6.state == "NotReady"


def test_sessions_are_told_with_the_states_that_calicos_tools_print() -> None:
    world = running(2, 3)
    world.speaker.tell(events.SessionDown(ip_address("10.0.0.3"), NOON - 60, "closing connection", None))
    world.step()
    bgp = said(world, "BGP").bgp
    assert (bgp.number_established_v4, bgp.number_not_established_v4, bgp.peers_v6) == (1, 1, ())
    first, second = bgp.peers_v4
    assert (first.peer_ip, first.type, first.state) == ("10.0.0.2", "NodeMesh", "Established")
    assert (second.peer_ip, second.state, second.since) == ("10.0.0.3", "Active", "11:59:00")
    assert said(world, "BGP", now=NOON + 86_400).bgp.peers_v4[1].since == "2026-11-26"


def test_routes_are_told_with_where_they_come_from_and_whether_they_are_used() -> None:
    world = running(2, 3)
    world.learn("10.0.0.2", ip_network("10.66.0.0/26"))
    world.agent.on_workloads({ip_network(BORROWED[1]): "cali1"}, ())
    world.step()
    routes = {each.destination: each for each in said(world, "Routes").routes.routes_v4}
    block = CalicoNodeRouteLearnedFrom(source_type="Static")
    assert routes["10.65.0.0/26"] == CalicoNodeRoute(
        type="FIB", destination="10.65.0.0/26", gateway="N/A", interface="blackhole", learned_from=block
    )
    learnt = routes["10.66.0.0/26"]
    assert (learnt.type, learnt.gateway) == ("FIB", "10.0.0.2")
    assert learnt.learned_from == CalicoNodeRouteLearnedFrom(source_type="NodeMesh", peer_ip="10.0.0.2")
    workload = routes[BORROWED[1]]
    assert (workload.interface, workload.learned_from.source_type) == ("cali1", "Kernel")


def test_a_full_table_is_cut_to_what_the_datastore_takes() -> None:
    world = running(2)
    for number in range(MOST_ROUTES + 10):
        world.learn("10.0.0.2", ip_network((0x0B000000 + number * 256, 24)))
    world.step()
    assert len(said(world, "Routes").routes.routes_v4) == MOST_ROUTES


def test_each_is_due_when_it_is_new_or_changed_and_after_its_period() -> None:
    schedule = Schedule()
    every_ten, once = wish("BGP"), wish("BGP", period_s=0, name="once")
    both = {"s": every_ten, "once": once}
    assert schedule.due(both, 0.0) == [every_ten, once]
    assert schedule.due(both, 9.9) == []
    assert schedule.due(both, 10.0) == [every_ten]
    schedule.try_again("once", 12.0)
    assert schedule.due(both, 12.0) == [once]
    other = wish("BGP", "Agent", period_s=0, name="once")
    assert schedule.due({"once": other}, 13.0) == [other]
    assert schedule.due({"s": every_ten, "once": other}, 14.0) == [every_ten]  # it was gone, and is new again


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("{classes: [BGP], updatePeriodSeconds: 10}", "spec.node"),
        ("{node: n1, classes: [], updatePeriodSeconds: 10}", "spec.classes"),
        ("{node: n1, classes: [BGP, BGP], updatePeriodSeconds: 10}", "spec.classes"),
        ("{node: n1, classes: [Felix], updatePeriodSeconds: 10}", "spec.classes[0]"),
        ("{node: n1, classes: [BGP], updatePeriodSeconds: 86401}", "spec.updatePeriodSeconds"),
        ("{node: n1, classes: [BGP], updatePeriodSeconds: -1}", "spec.updatePeriodSeconds"),
        ("{node: n1, classes: [BGP], periodSeconds: 1}", "spec.periodSeconds"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_field(spec: str, field: str) -> None:
    text = f"{{apiVersion: projectcalico.org/v3, kind: CalicoNodeStatus, metadata: {{name: s}}, spec: {spec}}}"
    with pytest.raises(ValidationError) as refused:
        decode_manifests(text, "s.yaml")
    assert refused.value.field == field


def test_what_calico_stores_is_read_and_what_we_do_not_know_stays() -> None:
    stored = {
        "kind": "CalicoNodeStatus",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "s"},
        "spec": {"node": "n1", "classes": ["BGP"], "updatePeriodSeconds": 10, "later": 1},
        "status": {
            "lastUpdated": None,
            "agent": {"birdV4": {}, "birdV6": {}},
            "bgp": {"numberEstablishedV4": 1, "peersV4": [{"peerIP": "10.0.0.2", "type": "NodeMesh"}]},
            "routes": {},
        },
    }
    raw = json.dumps(stored).encode()
    value = codec.decode_stored(ResourceKey("CalicoNodeStatus", "s"), raw)
    assert isinstance(value, CalicoNodeStatus)
    assert value.status.bgp.peers_v4[0].peer_ip == "10.0.0.2"
    assert json.loads(codec.encode_stored(value, raw))["spec"]["later"] == 1


def test_every_kind_of_session_is_told_or_left_out_on_purpose() -> None:
    assert set(SessionKind) - set(PEER_TYPES) == {SessionKind.WORKLOAD}
    assert set(Source) == set(SOURCES)
    assert set(STATE_NAMES.values()) == set(SESSION_STATES)
