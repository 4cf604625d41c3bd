"""Encode what the agent wants of ExaBGP as process-API lines.

Pure. Routes are batched by attribute set, at most 500 prefixes a line, because ExaBGP's cost is per line. One prefix
appears at most once in what one call returns. When to announce is decided elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from weft.model.address import IPAddress, IPNetwork

Family = Literal["ipv4 unicast", "ipv6 unicast"]

PREFIXES_PER_COMMAND = 500


@dataclass(frozen=True, slots=True)
class Announcement:
    """The attributes a prefix is announced with. `as_path` is the whole one, our own AS included; empty: as usual."""

    next_hop: IPAddress
    communities: tuple[str, ...] = ()
    large_communities: tuple[str, ...] = ()
    local_preference: int | None = None
    as_path: tuple[int, ...] = ()

    def text(self) -> str:
        parts = [f"next-hop {self.next_hop}", "origin igp"]
        if self.local_preference is not None:
            parts.append(f"local-preference {self.local_preference}")
        if self.as_path:
            parts.append(f"as-path [ {' '.join(map(str, self.as_path))} ]")
        if self.communities:
            parts.append(f"community [{' '.join(self.communities)}]")
        if self.large_communities:
            parts.append(f"large-community [{' '.join(self.large_communities)}]")
        return " ".join(parts)


def family_of(address: IPAddress | IPNetwork) -> Family:
    return "ipv4 unicast" if address.version == 4 else "ipv6 unicast"


def announce(peer: IPAddress, routes: Mapping[IPNetwork, Announcement]) -> Iterator[bytes]:
    """Announce each prefix with its attributes to one peer."""
    by_attributes: dict[Announcement, list[IPNetwork]] = {}
    for prefix, attributes in routes.items():
        by_attributes.setdefault(attributes, []).append(prefix)
    for attributes, prefixes in by_attributes.items():
        for part in _parts(prefixes):
            nlri = " ".join(map(str, part))
            yield f"neighbor {peer} announce attributes {attributes.text()} nlri {nlri}\n".encode()


def withdraw(peer: IPAddress, prefixes: Collection[IPNetwork]) -> Iterator[bytes]:
    """Withdraw prefixes from one peer, whatever their attributes were."""
    for version, unspecified in ((4, "0.0.0.0"), (6, "::")):
        for part in _parts([prefix for prefix in prefixes if prefix.version == version]):
            nlri = " ".join(map(str, part))
            yield f"neighbor {peer} withdraw attributes next-hop {unspecified} nlri {nlri}\n".encode()


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


def _parts(prefixes: Sequence[IPNetwork]) -> Iterator[list[IPNetwork]]:
    remaining = iter(prefixes)
    while part := list(islice(remaining, PREFIXES_PER_COMMAND)):
        yield part
