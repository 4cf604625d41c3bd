"""Scripted speakers against a real BIRD as their reflector, and against one another."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import pytest

from lab.netns import NetNs
from lab.speakers.driver import Speakers, SpeakersEndedError, attach, clients
from lab.speakers.wire import How, Script
from tests.functional.bgp.fabric import Bird, wait_until
from weft.model.address import IPNetwork

pytestmark = pytest.mark.root

SUBNET, ADDRESSES = IPv4Network("10.99.0.0/30"), IPv4Network("10.99.16.0/24")
SUBNET6, ADDRESSES6 = IPv6Network("fd99::/64"), IPv6Network("fd99:0:0:10::/64")
REFLECTOR = """router id 10.99.0.1;
log stderr all;
protocol device {}
protocol bgp clients { local 10.99.0.1 as 64512; neighbor range 10.99.16.0/24 as 64512; multihop; rr client; passive;
  hold time 9; error wait time 1, 2; graceful restart off;
  ipv4 { import all; export all; gateway recursive; }; }
"""
REFLECTOR6 = (
    REFLECTOR.replace("10.99.0.1 as", "fd99::1 as")
    .replace("10.99.16.0/24", str(ADDRESSES6))
    .replace("ipv4 {", "ipv6 {")
)
NEW, NEW6 = IPv4Network("10.66.0.0/26"), IPv6Network("fd66::/122")


@pytest.fixture
def place(netns: Callable[[str], NetNs]) -> tuple[NetNs, NetNs]:
    tested, speakers = netns("tested"), netns("speakers")
    attach(tested, speakers, SUBNET, ADDRESSES)
    attach(tested, speakers, SUBNET6, ADDRESSES6, "scr1")
    return tested, speakers


@pytest.mark.parametrize(
    ("configuration", "scripts", "new"),
    [
        pytest.param(REFLECTOR, clients(30, SUBNET[1], ADDRESSES, IPv4Network("10.65.0.0/16"), 3), NEW, id="ipv4"),
        pytest.param(REFLECTOR6, clients(30, SUBNET6[1], ADDRESSES6, IPv6Network("fd65::/64"), 3), NEW6, id="ipv6"),
    ],
)
def test_thirty_clients_of_a_reflector_get_and_lose_what_they_should(
    place: tuple[NetNs, NetNs], tmp_path: Path, configuration: str, scripts: list[Script], new: IPNetwork
) -> None:
    bird = Bird(place[0], tmp_path / "bird", configuration)
    bird.start()
    with Speakers(place[1], scripts) as speakers:
        speakers.expect()
        speakers.connect(at_once=8)
        established, complete = speakers.wait_established(), speakers.wait_complete()
        assert established <= complete
        assert len(speakers.held(0)) in (87, 90), "with or without its own"
        speakers.announce((0,), [new])
        assert speakers.wait_complete() > complete
        assert new in speakers.held(29)
        speakers.withdraw((0,), [new])
        speakers.wait_complete()
        assert new not in speakers.held(29)
        speakers.lose((0,), How.RESET)
        speakers.wait_complete()
        assert scripts[0].routes[0] not in speakers.held(29)
        assert speakers.each((0,))[0].state == "idle"
        speakers.connect()
        speakers.wait_complete()
        assert scripts[0].routes[0] in speakers.held(29)
        assert (speakers.totals().begun, speakers.totals().lost) == (31, 1)


def test_a_client_that_falls_silent_is_given_up_by_the_hold_timer(place: tuple[NetNs, NetNs], tmp_path: Path) -> None:
    bird = Bird(place[0], tmp_path / "bird", REFLECTOR.replace("hold time 9", "hold time 3"))
    bird.start()
    with Speakers(place[1], clients(3, SUBNET[1], ADDRESSES, IPv4Network("10.65.0.0/16"))) as speakers:
        speakers.expect()
        speakers.connect()
        speakers.wait_complete()
        speakers.lose((1,), How.MUTE, again=True)
        wait_until("BIRD says so", lambda: speakers.totals().notifications == {"4/0": 1})
        speakers.wait_complete()


def test_speakers_that_wait_are_found_by_speakers_that_call(place: tuple[NetNs, NetNs]) -> None:
    local, peer = ADDRESSES[1], SUBNET[1]
    route, other = IPv4Network("10.65.0.0/26"), IPv4Network("10.65.1.0/26")
    calling = Script(local=local, peer=peer, asn=65001, peer_asn=65002, routes=(route,))
    waiting = Script(local=peer, peer=local, asn=65002, peer_asn=65001, routes=(other,), passive=True)
    with Speakers(place[0], [waiting]) as waits, Speakers(place[1], [calling]) as calls:
        waits.connect()
        calls.connect()
        calls.expect([other], mutual=False)
        calls.wait_complete()
        assert waits.held(0) == [route]
        calls.lose(None, How.CEASE, again=True)
        wait_until("it is back", lambda: waits.totals().begun == 2 and waits.held(0) == [route])
        assert waits.totals().notifications == {"6/2": 1}


def test_calls_that_a_dead_peer_does_not_answer_keep_nobody_from_another(place: tuple[NetNs, NetNs]) -> None:
    local, peer, dead = ADDRESSES[1], SUBNET[1], IPv4Address("10.99.32.1")
    place[1].ip("route", "replace", str(dead), "via", str(peer))
    place[0].ip("route", "replace", str(dead), "dev", "scr0")
    place[0].ip("neighbor", "replace", str(dead), "lladdr", "02:00:00:00:00:07", "dev", "scr0", "nud", "permanent")
    place[0].sysctl(ipv4__ip_forward=1)
    unheard = Script(local=local, peer=dead)
    calling, waiting = Script(local=local, peer=peer), Script(local=peer, peer=local, passive=True)
    with Speakers(place[0], [waiting]) as waits, Speakers(place[1], [unheard, calling]) as calls:
        waits.connect()
        calls.connect((0,), at_once=1)
        calls.connect((1,), at_once=1)
        wait_until("the second is up", lambda: calls.each((1,))[0].state == "established")
        assert calls.each((0,))[0].state == "idle"


def test_a_process_that_ends_is_an_error_and_no_wait(netns: Callable[[str], NetNs]) -> None:
    alone = Script(local=IPv4Address("10.0.0.1"), peer=IPv4Address("10.0.0.2"))
    with Speakers(netns("alone"), [alone]) as speakers, pytest.raises(SpeakersEndedError):
        speakers.connect((7,))
