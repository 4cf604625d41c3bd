"""A router that sends garbage: scripted peers that break BGP in one way each, and what became of each of them."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from lab.netns import NetNs
from tests.functional.bgp.fabric import wait_until

MARKER = b"\xff" * 16
HOLD_TIME_S = 90
PATIENCE_S = 30.0
LASTS_S = 1.5
LAST = IPv4Network("172.22.0.0/24")

OPTIONAL, TRANSITIVE, EXTENDED = 0x80, 0x40, 0x10
ORIGIN, AS_PATH, NEXT_HOP, MED, LOCAL_PREF, ATOMIC, AGGREGATOR, COMMUNITIES = range(1, 9)


def message(kind: int, body: bytes = b"") -> bytes:
    return MARKER + struct.pack("!HB", 19 + len(body), kind) + body


def attribute(flags: int, code: int, value: bytes) -> bytes:
    if len(value) > 255:
        return struct.pack("!BBH", flags | EXTENDED, code, len(value)) + value
    return struct.pack("!BBB", flags, code, len(value)) + value


def prefix(network: IPv4Network) -> bytes:
    octets = (network.prefixlen + 7) // 8
    return bytes([network.prefixlen]) + network.network_address.packed[:octets]


def update(attributes: bytes, nlri: bytes, withdrawn: bytes = b"") -> bytes:
    return message(
        2, struct.pack("!H", len(withdrawn)) + withdrawn + struct.pack("!H", len(attributes)) + attributes + nlri
    )


def open_message(asn: int, router_id: IPv4Address, *, version: int = 4, hold_time: int = HOLD_TIME_S) -> bytes:
    capabilities = b"\x01\x04\x00\x01\x00\x01" + b"\x41\x04" + struct.pack("!I", asn)
    parameters = bytes([2, len(capabilities)]) + capabilities
    fixed = struct.pack("!BHH", version, asn, hold_time) + router_id.packed
    return message(1, fixed + bytes([len(parameters)]) + parameters)


KEEPALIVE = message(4)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who sends: `route` is what it announces properly at first and is wrong about later, `second` what it announces
    after that."""

    asn: int
    address: IPv4Address
    route: IPv4Network
    second: IPv4Network

    @property
    def origin(self) -> bytes:
        return attribute(TRANSITIVE, ORIGIN, b"\x00")

    @property
    def path(self) -> bytes:
        return attribute(TRANSITIVE, AS_PATH, b"\x02\x01" + struct.pack("!I", self.asn))

    @property
    def hop(self) -> bytes:
        return attribute(TRANSITIVE, NEXT_HOP, self.address.packed)

    @property
    def good(self) -> bytes:
        return self.origin + self.path + self.hop

    def announce(self, attributes: bytes) -> bytes:
        """The route again, with these."""
        return update(attributes, prefix(self.route))


@dataclass(frozen=True, slots=True)
class Garbage:
    """One way to be wrong. `early`: instead of an OPEN, else once the session is up. `farewell`: it
    is a NOTIFICATION, which nobody answers. `expected` is one of "kept" (session
    and route stay), "withdrawn" (the session stays, the route does not), "reset" (the session ends)."""

    name: str
    expected: str
    sends: Callable[[Peer], Sequence[bytes]]
    early: bool = False
    farewell: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    closed: bool
    notification: tuple[int, int] | None


def bad_open(peer: Peer, **fields: int) -> list[bytes]:
    return [open_message(peer.asn, peer.address, **fields)]


def padded(kind: int, length: int) -> bytes:
    return MARKER + struct.pack("!HB", length, kind)


def own_path(peer: Peer, numbers: Sequence[int]) -> bytes:
    """An AS_PATH of these, in segments of at most 255."""
    parts = [numbers[at : at + 255] for at in range(0, len(numbers), 255)]
    value = b"".join(bytes([2, len(part)]) + struct.pack(f"!{len(part)}I", *part) for part in parts)
    return attribute(TRANSITIVE, AS_PATH, value)


EARLY = (
    Garbage("bad marker", "reset", lambda p: [b"\x00" * 16 + struct.pack("!HB", 19, 4)], early=True),
    Garbage("length below a header", "reset", lambda p: [padded(1, 18)], early=True),
    Garbage("length above all messages", "reset", lambda p: [padded(1, 65535)], early=True),
    Garbage("unknown type", "reset", lambda p: [padded(9, 19)], early=True),
    Garbage("another protocol", "reset", lambda p: [b"GET / HTTP/1.1\r\nHost: bgp\r\n\r\n" * 3], early=True),
    Garbage("version 3", "reset", lambda p: bad_open(p, version=3), early=True),
    Garbage("hold time 1", "reset", lambda p: bad_open(p, hold_time=1), early=True),
    Garbage("another AS", "reset", lambda p: [open_message(65099, p.address)], early=True),
    Garbage("router id 0", "reset", lambda p: [open_message(p.asn, IPv4Address(0))], early=True),
    Garbage(
        "parameters longer than the OPEN",
        "reset",
        lambda p: [message(1, struct.pack("!BHH", 4, p.asn, 90) + p.address.packed + b"\xff\x02\x06")],
        early=True,
    ),
    Garbage("UPDATE before OPEN", "reset", lambda p: [p.announce(p.good)], early=True),
    Garbage("half an OPEN, a byte at a time", "waits", lambda p: [bytes([b]) for b in MARKER], early=True),
)
LATE = (
    Garbage(
        "unknown optional attribute",
        "kept",
        lambda p: [p.announce(p.good + attribute(OPTIONAL | TRANSITIVE, 99, b"x"))],
    ),
    Garbage("unknown well-known attribute", "reset", lambda p: [p.announce(p.good + attribute(TRANSITIVE, 99, b"x"))]),
    Garbage("ORIGIN 9", "withdrawn", lambda p: [p.announce(attribute(TRANSITIVE, ORIGIN, b"\x09") + p.path + p.hop)]),
    Garbage(
        "ORIGIN of two octets",
        "withdrawn",
        lambda p: [p.announce(attribute(TRANSITIVE, ORIGIN, b"\0\0") + p.path + p.hop)],
    ),
    Garbage(
        "AS_PATH cut off",
        "withdrawn",
        lambda p: [p.announce(p.origin + attribute(TRANSITIVE, AS_PATH, b"\x02\x05\0\0") + p.hop)],
    ),
    Garbage(
        "NEXT_HOP of three octets",
        "withdrawn",
        lambda p: [p.announce(p.origin + p.path + attribute(TRANSITIVE, NEXT_HOP, b"\x0a\0\0"))],
    ),
    Garbage("no NEXT_HOP", "withdrawn", lambda p: [p.announce(p.origin + p.path)]),
    Garbage("no AS_PATH", "withdrawn", lambda p: [p.announce(p.origin + p.hop)]),
    Garbage("ORIGIN twice", "kept", lambda p: [p.announce(p.good + attribute(TRANSITIVE, ORIGIN, b"\x01"))]),
    Garbage("MED of two octets", "withdrawn", lambda p: [p.announce(p.good + attribute(OPTIONAL, MED, b"\0\x01"))]),
    Garbage(
        "COMMUNITIES of three octets",
        "withdrawn",
        lambda p: [p.announce(p.good + attribute(OPTIONAL | TRANSITIVE, COMMUNITIES, b"abc"))],
    ),
    Garbage(
        "ATOMIC_AGGREGATE with a value", "kept", lambda p: [p.announce(p.good + attribute(TRANSITIVE, ATOMIC, b"x"))]
    ),
    Garbage(
        "AGGREGATOR of three octets",
        "kept",
        lambda p: [p.announce(p.good + attribute(OPTIONAL | TRANSITIVE, AGGREGATOR, b"abc"))],
    ),
    Garbage("an attribute longer than all", "withdrawn", lambda p: [p.announce(p.good + b"\xc0\x08\xff\0\0")]),
    Garbage("attributes longer than the UPDATE", "reset", lambda p: [message(2, b"\0\0\xff\xff" + p.good)]),
    Garbage("withdrawals longer than the UPDATE", "reset", lambda p: [message(2, b"\xff\xff\0\0")]),
    Garbage("a prefix of 33 bits", "reset", lambda p: [update(p.good, b"\x21\x0a\0\0\0\0")]),
    Garbage("KEEPALIVE with a body", "reset", lambda p: [message(4, b"x")]),
    Garbage("a second OPEN", "reset", lambda p: bad_open(p)),
    Garbage("ROUTE-REFRESH of two octets", "reset", lambda p: [message(5, b"\0\x01")]),
    Garbage("bad marker in the stream", "reset", lambda p: [b"\0" * 19]),
    Garbage("a path of 700 AS numbers", "kept", lambda p: [p.announce(p.origin + own_path(p, [p.asn] * 700) + p.hop)]),
    Garbage("half an UPDATE, then nothing", "waits", lambda p: [p.announce(p.good)[:-2]]),
    Garbage("NOTIFICATION with an unknown code", "reset", lambda p: [message(3, b"\x63\x63")], farewell=True),
)


def cast(asn: int, *, instead: Mapping[str, str]) -> list[tuple[Garbage, Peer]]:
    """Everything that is garbage, each from a peer of its own from 10.1.0.100 on, in AS `asn`; `instead`: what is
    expected otherwise than RFC 4271 and RFC 7606 have it."""
    return [
        (
            replace(garbage, expected=instead.get(garbage.name, garbage.expected)),
            Peer(
                asn,
                IPv4Address(f"10.1.0.{number}"),
                IPv4Network(f"172.20.{number}.0/24"),
                IPv4Network(f"172.21.{number}.0/24"),
            ),
        )
        for number, garbage in enumerate((*EARLY, *LATE), 100)
    ]


class Garbled:
    """The sessions of a cast: first proper, then not. Closed at the end."""

    def __init__(self, netns: NetNs, target: str, cast: Sequence[tuple[Garbage, Peer]]) -> None:
        self._cast = cast
        with ThreadPoolExecutor(len(cast)) as pool:
            self._connections = list(pool.map(lambda one: _connected(netns, target, *one), cast))
        for (garbage, peer), connection in zip(cast, self._connections, strict=True):
            if not garbage.early:
                connection.sendall(KEEPALIVE + update(b"", b"") + peer.announce(peer.good))

    def __enter__(self) -> Garbled:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()

    def misbehave(self) -> dict[str, Outcome]:
        """Each says what it is there for, and where the session should last, announces its second route after it."""
        for (garbage, peer), connection in zip(self._cast, self._connections, strict=True):
            for data in garbage.sends(peer):
                connection.sendall(data)
            if garbage.expected in ("kept", "withdrawn"):
                connection.sendall(update(peer.good, prefix(peer.second)))
        with ThreadPoolExecutor(len(self._cast)) as pool:
            outcomes = list(pool.map(lambda one: _listen(one[1], one[0][0].expected), self._pairs()))
        return {garbage.name: outcome for (garbage, _), outcome in zip(self._cast, outcomes, strict=True)}

    def announce_what_is_not_its_own(self, *prefixes: str) -> None:
        """From the first session that lasts, then `last`."""
        (_, peer), connection = next(one for one in self._pairs() if one[0][0].expected == "kept")
        nlri = b"".join(prefix(IPv4Network(each)) for each in prefixes)
        connection.sendall(update(peer.good, nlri) + update(peer.good, prefix(LAST)))

    def judge(self, outcomes: Mapping[str, Outcome], routes: Set[str]) -> list[str]:
        """Where it came otherwise than expected, `routes` being what is used now."""
        wrong = []
        for garbage, peer in self._cast:
            outcome = outcomes[garbage.name]
            seen = "reset" if outcome.closed else "kept" if str(peer.route) in routes else "withdrawn"
            if garbage.expected == "waits" and seen == ("withdrawn" if garbage.early else "kept"):
                continue
            if seen != garbage.expected:
                wrong.append(f"{garbage.name}: {seen}, not {garbage.expected}")
            elif seen == "reset" and outcome.notification is None and not garbage.farewell:
                wrong.append(f"{garbage.name}: reset without a NOTIFICATION")
        return wrong

    def announced(self) -> set[str]:
        """What is proper at first."""
        return {str(peer.route) for garbage, peer in self._cast if not garbage.early}

    def unknown(self) -> str:
        """The route that is announced with an attribute that nobody knows, 99."""
        return next(str(peer.route) for garbage, peer in self._cast if garbage.name == "unknown optional attribute")

    def announced_after(self) -> set[str]:
        """What comes after the garbage, on the sessions that last."""
        return {str(peer.second) for garbage, peer in self._cast if garbage.expected in ("kept", "withdrawn")}

    def _pairs(self) -> list[tuple[tuple[Garbage, Peer], socket.socket]]:
        return list(zip(self._cast, self._connections, strict=True))


def _connected(netns: NetNs, target: str, garbage: Garbage, peer: Peer) -> socket.socket:
    made: socket.socket = wait_until(f"a connection for {garbage.name}", lambda: _open(netns, target, garbage, peer))
    return made


def _open(netns: NetNs, target: str, garbage: Garbage, peer: Peer) -> socket.socket | None:
    """A connection that the other side has sent its OPEN on; None if it has closed it (it may not know us yet)."""
    with netns.enter():
        made = socket.socket()
    try:
        made.bind((str(peer.address), 0))
        made.settimeout(5)
        made.connect((target, 179))
        if not garbage.early:
            made.sendall(open_message(peer.asn, peer.address))
        head = made.recv(19, socket.MSG_WAITALL)
        if len(head) == 19 and head[18] == 1:
            made.recv(struct.unpack("!H", head[16:18])[0] - 19, socket.MSG_WAITALL)
            return made
    except OSError:
        pass  # tried again
    made.close()
    time.sleep(0.3)
    return None


def _listen(connection: socket.socket, expected: str) -> Outcome:
    """Until the session ends, where it should; elsewhere long enough to see that it does not."""
    heard, closed = b"", False
    until = time.monotonic() + (PATIENCE_S if expected == "reset" else LASTS_S)
    while not closed and time.monotonic() < until:
        connection.settimeout(max(0.01, until - time.monotonic()))
        try:
            data = connection.recv(65536)
            heard, closed = heard + data, not data
        except TimeoutError:
            break
        except OSError:
            closed = True
    notification = None
    while len(heard) >= 21:
        length, kind = struct.unpack("!HB", heard[16:19])
        if kind == 3:
            notification = (heard[19], heard[20])
        heard = heard[length:]
    return Outcome(closed, notification)
