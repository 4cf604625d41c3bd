"""Encode what the agent wants of ExaBGP as process-API lines.

Pure. Routes are batched by attribute set, at most 500 prefixes a line, as bytes that go from there into UPDATEs
(bird_agent/exabgp/announced.py). One prefix appears at most once in what one call returns. When to announce is decided
elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from itertools import groupby
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from bird_agent.exabgp.prefixes import pack
from weft.model.address import IPAddress, IPNetwork

Family = Literal["ipv4 unicast", "ipv6 unicast"]
FAMILIES: Final[Mapping[int, Family]] = {4: "ipv4 unicast", 6: "ipv6 unicast"}

PREFIXES_PER_COMMAND = 500
PEERS_PER_COMMAND = 100
_ORIGINS: Final = ("igp", "egp", "incomplete")


class Announcement(Struct, frozen=True):
    """The attributes a prefix is announced with. `as_path` is the whole one, our own AS included, a tuple in it an
    AS_SET; empty: as usual. `others` are further attributes as ExaBGP's commands have them."""

    next_hop: IPAddress
    communities: tuple[str, ...] = ()
    large_communities: tuple[str, ...] = ()
    local_preference: int | None = None
    as_path: tuple[int | tuple[int, ...], ...] = ()
    origin: int = 0
    med: int | None = None
    originator_id: IPv4Address | None = None
    cluster_list: tuple[IPv4Address, ...] = ()
    extended_communities: tuple[int, ...] = ()
    others: tuple[str, ...] = ()

    def text(self) -> str:
        parts = [f"next-hop {self.next_hop}", f"origin {_ORIGINS[self.origin]}"]
        if self.local_preference is not None:
            parts.append(f"local-preference {self.local_preference}")
        if self.as_path:
            parts.append(f"as-path {_as_path(self.as_path)}")
        if self.med is not None:
            parts.append(f"med {self.med}")
        if self.originator_id is not None:
            parts.append(f"originator-id {self.originator_id}")
        if self.cluster_list:
            parts.append(f"cluster-list [ {' '.join(map(str, self.cluster_list))} ]")
        if self.communities:
            parts.append(f"community [{' '.join(self.communities)}]")
        if self.large_communities:
            parts.append(f"large-community [{' '.join(self.large_communities)}]")
        if self.extended_communities:
            # By their bytes: not every kind has a name in ExaBGP's commands.
            raw = b"".join(each.to_bytes(8, "big") for each in self.extended_communities)
            parts.append(f"attribute [ 0x10 0xC0 0x{raw.hex()} ]")
        return " ".join([*parts, *self.others])


def _as_path(path: Iterable[int | tuple[int, ...]]) -> str:
    """`[ 64512 65001 ] ( 65002 65003 )`: sequences and sets."""
    segments: list[str] = []
    for is_number, members in groupby(path, key=lambda each: isinstance(each, int)):
        if is_number:
            segments.append(f"[ {' '.join(map(str, members))} ]")
        else:
            segments += [f"( {' '.join(map(str, each))} )" for each in members if isinstance(each, tuple)]
    return " ".join(segments)


def family_of(address: IPAddress | IPNetwork) -> Family:
    return FAMILIES[address.version]


class Told(NamedTuple):
    """What several peers may be told: one family's prefixes as `weft announce` has them, and their attributes."""

    prefixes: str
    attributes: str


def announcements(routes: Mapping[IPNetwork, Announcement]) -> Iterator[Told]:
    """Announce each prefix with its attributes; `to` says whom."""
    same: dict[int, tuple[Announcement, list[IPNetwork]]] = {}
    for prefix, attributes in routes.items():  # most share their attributes, and comparing costs more than looking
        found = same.get(id(attributes))
        if found is None:
            found = same[id(attributes)] = attributes, []
        found[1].append(prefix)
    by_attributes: dict[Announcement, list[IPNetwork]] = {}
    for attributes, prefixes in same.values():
        by_attributes.setdefault(attributes, []).extend(prefixes)
    for attributes, prefixes in by_attributes.items():
        text = attributes.text()
        for part in _parts(prefixes):
            yield Told(part, text)


def announce(peer: IPAddress, routes: Mapping[IPNetwork, Announcement]) -> Iterator[bytes]:
    """Announce each prefix with its attributes to one peer."""
    for told in announcements(routes):
        yield from to([peer], told)


def to(peers: Sequence[IPAddress], told: Told) -> Iterator[bytes]:
    """One command for several peers: ExaBGP reads its prefixes once for all of them."""
    for start in range(0, len(peers), PEERS_PER_COMMAND):
        whom = " ".join(map(str, peers[start : start + PEERS_PER_COMMAND]))
        yield f"weft announce {told.prefixes} to {whom} with {told.attributes}\n".encode()


def withdraw(peer: IPAddress, prefixes: Collection[IPNetwork]) -> Iterator[bytes]:
    """Withdraw prefixes from one peer, whatever their attributes were."""
    for part in _parts(prefixes):
        yield f"weft withdraw {part} to {peer}\n".encode()


def end_of_rib(peer: IPAddress, family: Family) -> bytes:
    return f"neighbor {peer} announce eor {family}\n".encode()


def route_refresh(peer: IPAddress, family: Family) -> bytes:
    """Ask the peer to send everything again (RFC 2918)."""
    return f"neighbor {peer} announce route-refresh {family}\n".encode()


def teardown(peer: IPAddress, subcode: int) -> bytes:
    """End the session; `subcode` as in RFC 4486, sent only where no graceful restart was agreed."""
    return f"neighbor {peer} teardown {subcode}\n".encode()


def cease(peer: IPAddress, subcode: int, stay_down: bool = False) -> bytes:
    """End the session with a NOTIFICATION, whatever was agreed about restarts: the peer forgets our routes at once. It
    comes up again only with a new configuration if it shall `stay_down` (bird_agent/exabgp/extensions.py)."""
    return f"weft cease {peer} {subcode}{' stay-down' if stay_down else ''}\n".encode()


def sync() -> bytes:
    """Ask for the state of every session and what was announced (bird_agent/exabgp/extensions.py)."""
    return b"weft sync\n"


def unsent(number: int) -> bytes:
    """Ask which peers have not been sent everything yet (bird_agent/exabgp/extensions.py)."""
    return f"weft unsent {number}\n".encode()


def _parts(prefixes: Iterable[IPNetwork]) -> Iterator[str]:
    """`200a410000... ipv4`: the prefixes of a family in order, as many as go into a command."""
    for version, packed in pack(prefixes).items():
        for start in range(0, len(packed), PREFIXES_PER_COMMAND):
            yield f"{b''.join(packed[start : start + PREFIXES_PER_COMMAND]).hex()} ipv{version}"
