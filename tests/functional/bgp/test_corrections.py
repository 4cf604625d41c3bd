"""Each correction of ExaBGP, beside the uncorrected version that fails: start-up, order, reload, helper."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from exabgp.reactor.asynchronous import ASYNC

from bird_agent.exabgp import commands, corrections
from bird_agent.exabgp.commands import Announcement
from bird_agent.exabgp.configuration import digest_of
from lab.netns import NetNs
from lab.process import start
from tests.functional.bgp.fabric import Bird, bird_configuration, segment, wait_until
from tests.functional.bgp.speaker import OPEN, UNCORRECTED, Speaker, patience_s
from weft import singleton

pytestmark = pytest.mark.root

TOR = ip_address("10.1.0.254")


@pytest.fixture
def bird(speaker: Speaker, netns: Callable[[str], NetNs], tmp_path: Path) -> Bird:
    tor = netns("tor")
    segment(speaker.netns, tor, "up0", "10.1.0.1/24", "10.1.0.254/24")
    body = "local 10.1.0.254 as 64512; neighbor 10.1.0.1 as 64512; hold time 9;"
    made = Bird(tor, tmp_path / "bird", bird_configuration("10.1.0.254", [body], []))
    made.start()
    return made


def announce(prefixes: str, community: str = "64512:1") -> str:
    told = Announcement(ip_address("10.1.0.1"), (community,))
    return b"".join(commands.announce(TOR, dict.fromkeys(map(ip_network, prefixes.split()), told))).decode().rstrip()


def withdraw(prefixes: str) -> str:
    return b"".join(commands.withdraw(TOR, list(map(ip_network, prefixes.split())))).decode().rstrip()


def exabgps_announce(prefixes: str, community: str = "64512:1") -> str:
    attributes = f"next-hop 10.1.0.1 origin igp community [{community}]"
    return f"neighbor {TOR} announce attributes {attributes} nlri {prefixes}"


def exabgps_withdraw(prefixes: str) -> str:
    return f"neighbor {TOR} withdraw attributes next-hop 0.0.0.0 nlri {prefixes}"


@pytest.mark.parametrize(
    ("announce", "withdraw"),
    [(announce, withdraw), pytest.param(exabgps_announce, exabgps_withdraw, marks=UNCORRECTED)],
    ids=["our commands", "ExaBGP's"],
)
def test_the_last_of_several_changes_to_a_prefix_is_what_the_peer_has(
    speaker: Speaker, bird: Bird, announce: Callable[..., str], withdraw: Callable[[str], str]
) -> None:
    speaker.start()
    wait_until("established", lambda: bird.established("p0"))
    bulk = " ".join(f"100.64.{high}.{low}/32" for high in range(4) for low in range(250))
    speaker.say(announce(bulk))
    for number in range(5):
        prefix = f"10.9.{number}.0/24"
        speaker.say(announce(prefix, "1:1"), announce(prefix, "2:2"), announce(prefix, "1:1"))
        gone = f"10.8.{number}.0/24"
        speaker.say(withdraw(gone), announce(gone, "1:1"), withdraw(gone))
    speaker.say(announce("10.7.0.0/24"))
    wait_until("all was sent", lambda: len(bird.routes("p0")) >= 1006 and "10.7.0.0/24" in bird.routes("p0"))
    time.sleep(0.3)
    for number in range(5):
        assert "(1,1)" in bird.ask(f"show route 10.9.{number}.0/24 all")
        assert f"10.8.{number}.0/24" not in bird.routes("p0")


def test_two_thousand_ipv6_routes_are_told_asked_for_again_and_withdrawn(
    speaker: Speaker, netns: Callable[[str], NetNs], tmp_path: Path
) -> None:
    tor = netns("tor")
    segment(speaker.netns, tor, "up0", "10.1.0.1/24", "10.1.0.254/24")
    speaker.configure([str(TOR)], versions=(4, 6))
    body = f"local {TOR} as 64512; neighbor 10.1.0.1 as 64512; hold time 9; ipv4 {{ import all; }};"
    bird = Bird(tor, tmp_path / "bird", bird_configuration(str(TOR), [body], [], channel="ipv6"))
    bird.start()
    speaker.start()
    wait_until("established", lambda: bird.established("p0"))
    nets = [ip_network((0xFD65 << 112 | number, 128)) for number in range(2000)]
    told = dict.fromkeys(nets, Announcement(ip_address("fd00::1")))
    speaker.say(*(line.decode().rstrip() for line in commands.announce(TOR, told)))
    wait_until("all arrive", lambda: len(bird.routes("p0")) == 2000)
    bird.ask("reload in p0")
    speaker.say(*(line.decode().rstrip() for line in commands.withdraw(TOR, nets[1:])))
    wait_until("all but one are gone", lambda: bird.routes("p0") == {"fd65::/128"})
    assert bird.established("p0")


def test_a_command_that_cannot_be_read_is_refused_and_those_around_it_are_carried_out(
    speaker: Speaker, bird: Bird
) -> None:
    speaker.start()
    wait_until("established", lambda: bird.established("p0"))
    bad = announce("10.9.1.0/24").replace("origin igp", "origin nowhere")
    speaker.say(announce("10.9.0.0/24"), bad, "weft announce json", announce("10.9.2.0/24"))
    wait_until("both are refused", lambda: len(speaker.heard(type="weft-refused")) == 2)
    wait_until("the others arrive", lambda: {"10.9.0.0/24", "10.9.2.0/24"} <= set(bird.routes("p0")))
    assert "10.9.1.0/24" not in bird.routes("p0")


@pytest.mark.parametrize("left_out", ["", pytest.param("B2", marks=UNCORRECTED)], ids=["corrected", "uncorrected"])
def test_a_reload_right_behind_announcements_is_not_forgotten(speaker: Speaker, bird: Bird, left_out: str) -> None:
    speaker.start(left_out)
    wait_until("established", lambda: bird.established("p0"))
    # Each with attributes of its own, so that sending them takes a good while.
    speaker.say(*(announce(f"100.{64 + n // 256}.{n % 256}.0/24", f"1:{n}") for n in range(4000)))
    wait_until("the first has arrived", lambda: bird.routes("p0"))
    speaker.configure(["10.1.0.254", "10.1.0.253"])
    speaker.reload()
    digest = digest_of(speaker.text.encode())
    wait_until("the reload is reported", lambda: speaker.heard(type="weft-reload", digest=digest), patience_s(left_out))


def test_a_reload_asked_of_a_speaker_that_is_only_starting_does_not_end_it(speaker: Speaker) -> None:
    arguments = ["serve", str(speaker.paths.configuration), "--lock", str(speaker.paths.lock), "--listen", "127.0.0.1"]
    speaker.process = start(
        "speaker", [sys.executable, "-m", "bird_agent.exabgp.launcher", *arguments], log=speaker.paths.log,
        netns=speaker.netns,
    )  # fmt: skip
    wait_until("it can be found", lambda: singleton.holder(speaker.paths.lock))
    speaker.reload()
    speaker.attach()
    speaker.process.require_alive()


@pytest.mark.parametrize("left_out", ["", pytest.param("B3", marks=UNCORRECTED)], ids=["corrected", "uncorrected"])
def test_a_reload_works_again_after_one_with_a_syntax_error(speaker: Speaker, bird: Bird, left_out: str) -> None:
    speaker.start(left_out)
    wait_until("established", lambda: bird.established("p0"))
    speaker.configure(["10.1.0.254"], extra="nonsense\n")
    speaker.reload()
    wait_until("the error is reported", lambda: speaker.heard(type="weft-reload", taken=False), patience_s(left_out))
    speaker.configure(["10.1.0.254", "10.1.0.253"])
    speaker.reload()
    wait_until("the next is taken", lambda: speaker.heard(type="weft-reload", taken=True), patience_s(left_out))
    speaker.say("weft sync")
    wait_until(
        "the new peer is known", lambda: speaker.heard(type="weft-session", address="10.1.0.253"), patience_s(left_out)
    )
    assert bird.established("p0")


class CountingPolicy(asyncio.DefaultEventLoopPolicy):
    """Counts the event loops that are made."""

    made = 0

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        self.made += 1
        return super().new_event_loop()


@pytest.fixture
def loops() -> Iterator[CountingPolicy]:
    before, policy = asyncio.get_event_loop_policy(), CountingPolicy()
    asyncio.set_event_loop_policy(policy)
    yield policy
    asyncio.set_event_loop_policy(before)


@pytest.mark.parametrize(
    "run", [corrections._run, pytest.param(ASYNC.run, marks=UNCORRECTED)], ids=["corrected", "uncorrected"]
)
def test_five_thousand_commands_cost_no_event_loop(run: Callable[[ASYNC], bool], loops: CountingPolicy) -> None:
    queue = ASYNC()
    taken: list[int] = []

    def command(number: int) -> Iterator[None]:
        taken.append(number)
        yield

    for number in range(5000):
        queue._async.append(("speaker", command(number)))  # `schedule` wants ExaBGP's log
    while run(queue):
        pass
    assert taken == list(range(5000))
    assert loops.made == 0


@pytest.mark.parametrize("left_out", ["", pytest.param("B9,B11", marks=UNCORRECTED)], ids=["corrected", "uncorrected"])
def test_a_line_written_to_a_dead_helper_stops_no_session(speaker: Speaker, bird: Bird, left_out: str) -> None:
    speaker.start(left_out)
    wait_until("established", lambda: bird.established("p0"))
    assert speaker.process is not None
    before = bird.connection()
    helper = int(subprocess.check_output(["pgrep", "-P", str(speaker.process.pid)]).split()[0])
    # Stopped, ExaBGP finds both at once when it goes on: a helper that is gone, and an UPDATE to tell it of that is
    # longer than what Python's own buffer before the pipe takes.
    speaker.process.signal(signal.SIGSTOP)
    os.kill(helper, signal.SIGKILL)
    routes = [f"100.{64 + number // 256}.{number % 256}.0/24" for number in range(2000)]
    body = "local 10.1.0.254 as 64512; neighbor 10.1.0.1 as 64512; hold time 9;"
    bird.reconfigure(bird_configuration("10.1.0.254", [body], routes))
    time.sleep(0.5)
    speaker.process.signal(signal.SIGCONT)
    speaker.attach()
    time.sleep(1)
    speaker.say("weft sync")
    wait_until("the speaker answers", lambda: speaker.heard(type="weft-synced"), patience_s(left_out))
    assert bird.established("p0")
    assert bird.connection() == before


IP_MINTTL = 21  # <linux/in.h>


def answer(peer: NetNs, ttl: int, minimum: int) -> bytes:
    """What the speaker says to a connection that sends with `ttl` and takes nothing below `minimum`."""
    with peer.enter():
        connection = socket.socket()
    with connection:
        connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        connection.setsockopt(socket.IPPROTO_IP, IP_MINTTL, minimum)
        connection.settimeout(3)
        try:
            connection.connect(("10.1.0.1", 179))
            connection.sendall(OPEN)
            return connection.recv(4096)
        except OSError:
            return b""


@pytest.mark.parametrize("left_out", ["", pytest.param("B13", marks=UNCORRECTED)], ids=["corrected", "uncorrected"])
@pytest.mark.parametrize(("ttl", "minimum", "answered"), [(254, 0, False), (255, 255, True)], ids=["far", "near"])
def test_ttl_security_holds_for_connections_that_the_peer_opens(
    speaker: Speaker, netns: Callable[[str], NetNs], left_out: str, ttl: int, minimum: int, answered: bool
) -> None:
    tor = netns("tor")
    segment(speaker.netns, tor, "up0", "10.1.0.1/24", "10.1.0.254/24")
    speaker.configure(["10.1.0.254"], ttl_security_hops=1, passive=True)
    speaker.start(left_out)
    speaker.say("weft sync")
    wait_until("the speaker answers", lambda: speaker.heard(type="weft-synced"))
    assert (answer(tor, ttl, minimum)[:16] == b"\xff" * 16) == answered


@pytest.mark.parametrize("left_out", ["", pytest.param("B14", marks=UNCORRECTED)], ids=["corrected", "uncorrected"])
def test_a_peer_that_connects_together_with_a_stranger_is_answered(
    speaker: Speaker, netns: Callable[[str], NetNs], left_out: str
) -> None:
    tor = netns("tor")
    segment(speaker.netns, tor, "up0", "10.1.0.1/24", "10.1.0.254/24")
    speaker.netns.ip("address", "add", "10.1.0.2/24", "dev", "up0")
    tor.ip("address", "add", "10.1.0.9/24", "dev", "up0")
    speaker.configure(["10.1.0.254"], local=ip_address("10.1.0.2"), passive=True)
    speaker.two_addresses = True
    speaker.start(left_out)
    speaker.say("weft sync")
    wait_until("the speaker answers", lambda: speaker.heard(type="weft-synced"))
    assert speaker.process is not None
    speaker.process.signal(signal.SIGSTOP)  # so that it finds both at once
    with tor.enter():
        stranger = socket.create_connection(("10.1.0.1", 179), source_address=("10.1.0.9", 0))
        peer = socket.create_connection(("10.1.0.2", 179), source_address=("10.1.0.254", 0))
    with stranger, peer:
        peer.settimeout(3)
        speaker.process.signal(signal.SIGCONT)
        peer.sendall(OPEN)
        try:
            said = peer.recv(4096)
        except TimeoutError:
            said = b""
        assert said[:16] == b"\xff" * 16


@pytest.mark.parametrize("left_out", ["", pytest.param("B16", marks=UNCORRECTED)], ids=["corrected", "uncorrected"])
def test_a_message_with_a_bad_header_is_answered_with_a_notification(
    speaker: Speaker, netns: Callable[[str], NetNs], left_out: str
) -> None:
    tor = netns("tor")
    segment(speaker.netns, tor, "up0", "10.1.0.1/24", "10.1.0.254/24")
    speaker.configure(["10.1.0.254"], passive=True)
    speaker.start(left_out)
    speaker.say("weft sync")
    wait_until("the speaker answers", lambda: speaker.heard(type="weft-synced"))
    with tor.enter():
        peer = socket.create_connection(("10.1.0.1", 179), timeout=10)
    with peer:
        peer.sendall(bytes(16) + bytes.fromhex("001304"))
        said = b"".join(iter(lambda: peer.recv(4096), b""))
    last = said[said.rindex(b"\xff" * 16) :]
    assert (last[18], last[19], last[20]) == (3, 1, 1)
    assert "Traceback" not in speaker.paths.log.read_text()
