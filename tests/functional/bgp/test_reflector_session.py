"""The reflector's sessions against real BIRDs, in the smallest loop that can drive them."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

import pytest
from msgspec.structs import replace

from bird_agent.exabgp.commands import Family
from bird_agent.exabgp.events import AsSegment
from bird_agent.reflector.as_path import written
from bird_agent.reflector.attributes import AS_PATH, TRANSITIVE, AttributeSet, AttributeSets, RawAttribute
from bird_agent.reflector.codec import Encoder
from bird_agent.reflector.errors import Stop
from bird_agent.reflector.fsm import State
from bird_agent.reflector.outputs import (
    CancelConnect,
    Close,
    Connect,
    Down,
    EndOfRib,
    RefreshAsked,
    Treated,
    Up,
    Updates,
    Write,
)
from bird_agent.reflector.plan import ReflectorPlan, ReflectorSession
from bird_agent.reflector.prefixes import IPV4, Nlri, network_of, nlri_of
from bird_agent.reflector.session import Session
from bird_agent.session_config import SessionConfig, SessionKind
from lab.netns import NetNs
from tests.functional.bgp.fabric import Bird, segment
from weft.model.address import IPAddress

pytestmark = pytest.mark.root

US = "10.1.0.254"

BIRD = """
log stderr all;
router id {address};
protocol device {{ }}
protocol static s4 {{ ipv4; route 10.65.{number}.0/26 blackhole {{
  bgp_community.add((64512, {number})); bgp_large_community.add((64512, 1, {number})); }}; }}
protocol static s6 {{ ipv6; route fd65:{number}::/122 blackhole; }}
protocol bgp p0 {{
  local {address} as 64512; neighbor {us} as 64512; strict bind on;
  connect delay time 1; connect retry time 1; error wait time 1, 2; graceful restart {graceful};
  ipv4 {{ export all; import all; next hop self; }};
  ipv6 {{ export all; import all; next hop address fd01::{number}; gateway recursive; }};
}}
"""

OUTSIDE = """
router id 10.1.0.1;
protocol device {{ }}
protocol static s4 {{ ipv4; route 10.65.1.0/26 blackhole; }}
protocol bgp p0 {{
  local 10.1.0.1 as 65001; neighbor {us} as 64512; strict bind on; enable as4 off; enable route refresh off;
  connect delay time 1; graceful restart off; enable extended messages on;
  ipv4 {{ import all; next hop self; export filter {{
    bgp_path.prepend(4200000001); bgp_med = 7; bgp_community.add((1, 2)); bgp_ext_community.add((rt, 3, 4)); accept;
  }}; }};
}}
"""


class Loop:
    """Sockets in a namespace for a few sessions; what one peer announces is reflected to the others."""

    def __init__(self, netns: NetNs, peers: dict[str, int]) -> None:
        self._netns = netns
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[int, socket.socket] = {}
        self._dialing: dict[str, socket.socket] = {}
        self._number = 0
        self.sets = AttributeSets()
        self.plan = ReflectorPlan(
            name="r", asn=64512, router_id=IPv4Address(US), cluster_id=IPv4Address("1.1.1.1"), addresses=()
        )
        self.sessions: dict[str, Session] = {}
        self.up: dict[str, tuple[int, Encoder]] = {}
        self.routes: dict[tuple[str, Family, Nlri], tuple[AttributeSet, IPAddress]] = {}
        self.ends: list[tuple[str, Family]] = []
        self.asked: list[tuple[str, Family]] = []
        self.downs: list[tuple[str, Down]] = []
        self.problems: list[str] = []
        with netns.enter():
            self._listener = socket.create_server((US, 179), backlog=8)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        for peer, asn in peers.items():
            config = SessionConfig(
                peer=ip_address(peer),
                peer_as=asn,
                local=ip_address(US),
                local_as=64512,
                kind=SessionKind.GLOBAL,
                resource="BGPPeer/x",
                hold_time_s=30,
            )
            reflected = ReflectorSession(config, client=True)
            self.sessions[peer] = Session(self.plan, reflected, time.monotonic(), sets=self.sets, jitter=lambda: 0.5)
            self.sessions[peer].on_start(time.monotonic())
            self._carry_out(peer)

    def until(self, what: str, condition: Callable[[], bool], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what}: {[each.state for each in self.sessions.values()]} {self.downs}"
            self.turn()

    def turn(self) -> None:
        for key, _ in self._selector.select(0.05):
            key.data(key.fileobj)
        for peer, session in self.sessions.items():
            if session.deadline is not None and session.deadline <= time.monotonic():
                session.on_tick(time.monotonic())
                self._carry_out(peer)

    def stop(self, peer: str, stop: Stop, text: str = "") -> None:
        self.sessions[peer].on_stop(time.monotonic(), stop, text)
        self._carry_out(peer)

    def close(self) -> None:
        for each in (self._listener, *self._sockets.values(), *self._dialing.values()):
            each.close()
        self._selector.close()

    def prefixes(self, peer: str) -> set[str]:
        return {str(network_of(family, nlri)) for whose, family, nlri in self.routes if whose == peer}

    def _accept(self, listener: socket.socket) -> None:
        made, (peer, _) = listener.accept()
        self._connection(peer, made, incoming=True)

    def _connection(self, peer: str, made: socket.socket, incoming: bool) -> None:
        self._number += 1
        conn = self._number
        made.setblocking(True)
        self._sockets[conn] = made
        self._selector.register(made, selectors.EVENT_READ, lambda sock: self._read(peer, conn, sock))
        self.sessions[peer].on_connection(conn, incoming, time.monotonic())
        self._carry_out(peer)

    def _read(self, peer: str, conn: int, sock: socket.socket) -> None:
        try:
            data = sock.recv(65536)
        except OSError:
            data = b""
        if data:
            self.sessions[peer].on_data(conn, data, time.monotonic())
        else:
            self._gone(conn)
            self.sessions[peer].on_closed(conn, time.monotonic())
        self._carry_out(peer)

    def _gone(self, conn: int) -> None:
        sock = self._sockets.pop(conn, None)
        if sock is not None:
            self._selector.unregister(sock)
            sock.close()

    def _dial(self, peer: str) -> None:
        self._give_up(peer)
        with self._netns.enter():
            sock = socket.socket()
        sock.bind((US, 0))
        sock.setblocking(False)
        sock.connect_ex((peer, 179))
        self._dialing[peer] = sock
        self._selector.register(sock, selectors.EVENT_WRITE, lambda sock: self._dialed(peer, sock))

    def _give_up(self, peer: str) -> None:
        sock = self._dialing.pop(peer, None)
        if sock is not None:
            self._selector.unregister(sock)
            sock.close()

    def _dialed(self, peer: str, sock: socket.socket) -> None:
        del self._dialing[peer]
        self._selector.unregister(sock)
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            sock.close()
            self.sessions[peer].on_connect_failed(time.monotonic())
            self._carry_out(peer)
        else:
            self._connection(peer, sock, incoming=False)

    def _carry_out(self, peer: str) -> None:
        for output in self.sessions[peer].take():
            match output:
                case Connect():
                    self._dial(peer)
                case CancelConnect():
                    self._give_up(peer)
                case Write(conn, data):
                    self.send(conn, data)
                case Close(conn):
                    self._gone(conn)
                case Up(conn, negotiated):
                    self.up[peer] = (conn, Encoder(negotiated))
                    self._tell_all(peer)
                case Down():
                    self.downs.append((peer, output))
                    self.up.pop(peer, None)
                case Updates():
                    self._learn(peer, output)
                case EndOfRib(family):
                    self.ends.append((peer, family))
                case RefreshAsked(family):
                    self.asked.append((peer, family))
                case Treated(problem):
                    self.problems.append(problem)

    def send(self, conn: int, data: bytes) -> None:
        try:
            self._sockets[conn].sendall(data)
        except OSError:
            pass  # the reading side finds it closed

    def _learn(self, peer: str, updates: Updates) -> None:
        for nlri in updates.withdrawn:
            self.routes.pop((peer, updates.family, nlri), None)
        others = [each for each in self.up if each != peer]
        for other in others if updates.withdrawn else ():
            conn, encoder = self.up[other]
            self.send(conn, b"".join(encoder.withdraw(updates.family, updates.withdrawn)))
        if updates.attributes is None or updates.next_hop is None:
            return
        for nlri in updates.announced:
            self.routes[peer, updates.family, nlri] = (updates.attributes, updates.next_hop)
        for other in others:
            self._tell(other, peer, updates.family, updates.announced)

    def _tell_all(self, peer: str) -> None:
        for whose, family, nlri in self.routes:
            if whose != peer:
                self._tell(peer, whose, family, (nlri,))
        conn, encoder = self.up[peer]
        for family in encoder.group.families:
            self.send(conn, encoder.end_of_rib(family))

    def _tell(self, peer: str, origin: str, family: Family, prefixes: tuple[Nlri, ...]) -> None:
        conn, encoder = self.up[peer]
        if family not in encoder.group.families:
            return
        attributes, next_hop = self.routes[origin, family, prefixes[0]]
        if attributes.path.local_preference is None:
            attributes = self.sets.imported(attributes, 100)
        told = self.sets.reflected(attributes, IPv4Address(origin), self.plan.cluster_id)
        if not encoder.group.internal:
            told = self.sets.exported(told, 64512)
        self.send(conn, b"".join(encoder.encode(family, told, next_hop, prefixes)))


@pytest.fixture
def fabric(netns: Callable[[str], NetNs]):  # type: ignore[no-untyped-def]
    """A reflector's namespace with one link to each of two clients."""
    us, first, second = netns("rr"), netns("c1"), netns("c2")
    for number, client in ((1, first), (2, second)):
        segment(us, client, f"up{number}", f"{US}/32", f"10.1.0.{number}/24")
        us.ip("route", "add", f"10.1.0.{number}/32", "dev", f"up{number}", "src", US)
        client.ip("address", "add", f"fd01::{number}/64", "dev", f"up{number}", "nodad")
    loops: list[Loop] = []

    def make(first_as: int = 64512) -> Loop:
        loops.append(Loop(us, {"10.1.0.1": first_as, "10.1.0.2": 64512}))
        return loops[-1]

    yield make, first, second
    for each in loops:
        each.close()


def bird(netns: NetNs, directory: Path, number: int, graceful: str = "on") -> Bird:
    text = BIRD.format(address=f"10.1.0.{number}", number=number, us=US, graceful=graceful)
    made = Bird(netns, directory / f"bird{number}", text)
    made.start()
    return made


def test_two_birds_learn_of_each_other(fabric, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    make, first, second = fabric
    loop = make()
    one, two = bird(first, tmp_path, 1), bird(second, tmp_path, 2)
    loop.until("both are up", lambda: len(loop.up) == 2)
    loop.until("both have told all", lambda: len(set(loop.ends)) == 4)
    assert loop.prefixes("10.1.0.1") == {"10.65.1.0/26", "fd65:1::/122"}
    assert loop.prefixes("10.1.0.2") == {"10.65.2.0/26", "fd65:2::/122"}
    loop.until("the first has the second's routes", lambda: one.routes("p0") == {"10.65.2.0/26", "fd65:2::/122"})
    loop.until("the second has the first's", lambda: two.routes("p0") == {"10.65.1.0/26", "fd65:1::/122"})
    said = one.attributes("10.65.2.0/26", "p0")
    assert said["originator_id"] == "10.1.0.2"
    assert said["cluster_list"] == "1.1.1.1"
    assert said["community"] == "(64512,2)"
    assert said["large_community"] == "(64512, 1, 2)"
    assert said["next_hop"] == "10.1.0.2"

    one.ask("reload in p0")
    loop.until("it asks for everything again", lambda: len(set(loop.asked)) == 2)
    two.ask("disable s4")
    loop.until("a withdrawal arrives", lambda: one.routes("p0") == {"fd65:2::/122"})
    assert loop.problems == []
    assert {each.state for each in loop.sessions.values()} == {State.ESTABLISHED}


def test_how_a_session_ends_is_known(fabric, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    make, first, second = fabric
    loop = make()
    one, two = bird(first, tmp_path, 1), bird(second, tmp_path, 2)
    loop.until("both are up", lambda: len(loop.up) == 2)

    one.ask('disable p0 "maintenance"')
    loop.until("the first has said goodbye", lambda: "10.1.0.1" not in loop.up)
    (_, down) = loop.downs[-1]
    assert (down.notification.code, down.notification.subcode, down.graceful) == (6, 2, False)

    assert two.process is not None
    two.process.signal(9)
    loop.until("the second is lost", lambda: "10.1.0.2" not in loop.up)
    (_, down) = loop.downs[-1]
    assert (down.notification, down.graceful) == (None, True)

    told = len(loop.ends)
    one.ask("enable p0")
    loop.until("the first is back", lambda: "10.1.0.1" in loop.up)
    loop.until("it has told all: unread, that would make a reset of the end", lambda: len(loop.ends) == told + 2)
    loop.stop("10.1.0.1", Stop.SHUTDOWN, "we go home")
    log = tmp_path / "bird1" / "bird.log"
    loop.until("BIRD knows why", lambda: "Received: Administrative shutdown" in log.read_text())


def test_a_two_byte_peer_of_another_as_is_understood_and_understands(fabric, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    make, first, second = fabric
    loop = make(first_as=65001)
    outside = Bird(first, tmp_path / "outside", OUTSIDE.format(us=US))
    outside.start()
    inside = bird(second, tmp_path, 2)
    loop.until("both are up", lambda: len(loop.up) == 2)
    negotiated = loop.sessions["10.1.0.1"].established
    assert negotiated is not None
    assert (negotiated.asn4, negotiated.internal, negotiated.restart) == (False, False, None)
    assert (negotiated.message_size, negotiated.route_refresh) == (65535, False)
    loop.until("the inside knows the route", lambda: inside.routes("p0") == {"10.65.1.0/26"})
    said = inside.attributes("10.65.1.0/26", "p0")
    assert said["as_path"] == "65001 4200000001"
    assert said["community"] == "(1,2)"
    assert said["ext_community"] == "(rt, 3, 4)"
    assert said["local_pref"] == "100"

    # And back: with our AS, nothing of the inside, and a large number in AS4_PATH.
    loop.until("the inside has told its own", lambda: "10.65.2.0/26" in loop.prefixes("10.1.0.2"))
    told = loop.routes["10.1.0.2", IPV4, nlri_of(ip_network("10.65.2.0/26"))][0]
    path = (AsSegment("as-sequence", (64512, 4200000009)),)
    raw = [each for each in told.raw() if each.code != AS_PATH] + [RawAttribute(TRANSITIVE, AS_PATH, written(path))]
    large = loop.sets.of(replace(told.path, as_path=path), raw)
    conn, encoder = loop.up["10.1.0.1"]
    for message in encoder.encode(IPV4, large, ip_address(US), [nlri_of(ip_network("10.99.0.0/16"))]):
        loop.send(conn, message)
    loop.until("it is known outside", lambda: outside.routes("p0") == {"10.65.2.0/26", "10.99.0.0/16"})
    said = outside.attributes("10.65.2.0/26", "p0")
    assert (said["as_path"], said["community"]) == ("64512", "(64512,2)")
    assert not {"originator_id", "cluster_list", "med"} & set(said)
    said = outside.attributes("10.99.0.0/16", "p0")
    assert said["as_path"] == "64512 4200000009"
    assert loop.problems == []
