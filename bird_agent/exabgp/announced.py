"""Routes come to ExaBGP as the bytes that an UPDATE has them in: `weft announce` and `weft withdraw`, in its process.

    weft announce 200a410000 ipv4 to 10.1.0.2 10.1.0.3 with next-hop 10.1.0.1 origin igp
    weft withdraw 40fd00000000000000 ipv6 to fd00::2

The prefixes of a command share their attributes, which are read by ExaBGP's own parser. A command is carried out as a
whole or, if it cannot be read, not at all, and then the agent is told (`weft-refused`). A RIB takes a change as from
ExaBGP's own commands (`Cache.in_cache`, `OutgoingRIB._update_rib`), but keeps only the last of several to one prefix
(B1 of docs/adr/0070); when it is sent, and how, ExaBGP decides."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from exabgp.bgp.message import Action
from exabgp.bgp.message.update.nlri.cidr import CIDR
from exabgp.bgp.message.update.nlri.inet import INET
from exabgp.bgp.message.update.nlri.qualifier import PathInfo
from exabgp.protocol.family import AFI, SAFI, Family
from exabgp.protocol.ip import NoNextHop
from exabgp.reactor.api.command.command import Command
from exabgp.rib.change import Change

COMMANDS: Final = ("weft announce", "weft withdraw")
MOST_ATTRIBUTE_SETS: Final = 1024
LONGEST_QUOTE: Final = 200


class Prefix(INET):  # type: ignore[misc]
    """An NLRI that keeps its bytes, and with them the text by which it is found in a RIB."""

    path_info = PathInfo.NOPATH
    safi = SAFI.create(SAFI.unicast)

    def __init__(self, packed: bytes, index: bytes, action: int, nexthop: Any) -> None:
        self.packed = packed
        self._index = index
        self.action = action
        self.nexthop = nexthop

    @property
    def cidr(self) -> Any:
        width = 4 if self.afi == AFI.ipv4 else 16
        return CIDR(self.packed[1:].ljust(width, b"\0"), self.packed[0])

    def index(self) -> bytes:
        return self._index

    def pack_nlri(self, negotiated: Any = None) -> bytes:
        if negotiated and negotiated.addpath.send(self.afi, self.safi):
            return bytes(self.path_info.pack()) + self.packed
        return self.packed


class PrefixIPv4(Prefix):
    afi = AFI.create(AFI.ipv4)


class PrefixIPv6(Prefix):
    afi = AFI.create(AFI.ipv6)


class _Kind(NamedTuple):
    """One of the two families: its NLRI, how many bits it has at most, and attributes to withdraw with."""

    make: type[Prefix]
    bits: int
    withdrawal: str

    @property
    def family(self) -> tuple[Any, Any]:
        return self.make.afi, self.make.safi


_KINDS: Final = {
    "ipv4": _Kind(PrefixIPv4, 32, "next-hop 0.0.0.0"),
    "ipv6": _Kind(PrefixIPv6, 128, "next-hop ::"),
}


class _Order(NamedTuple):
    """A command that has been read."""

    kind: _Kind
    action: int
    prefixes: list[bytes]
    peers: frozenset[str]
    attributes: Any
    nexthop: Any


def split(data: bytes, bits: int) -> list[bytes]:
    """Prefixes as an UPDATE has them (RFC 4271 4.3), one by one. Raises ValueError, also where a bit is set behind a
    length: one prefix must not have two names."""
    found: list[bytes] = []
    position, size = 0, len(data)
    while position < size:
        length = data[position]
        end = position + 1 + (length + 7 >> 3)
        if length > bits or end > size:
            raise ValueError(f"a prefix of {length} bits in {size - position - 1} bytes")
        if length & 7 and data[end - 1] & (0xFF >> (length & 7)):
            raise ValueError(f"a prefix of {length} bits with more of them: {data[position + 1 : end].hex()}")
        found.append(data[position:end])
        position = end
    if not found:
        raise ValueError("no prefix")
    return found


class _Reader:
    """Commands to orders. Attribute sets are remembered, because there are few and each is said many times."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[Any, Any]] = {}

    def read(self, api: Any, line: str) -> _Order:
        """Raises ValueError."""
        head, _, text = line.partition(" with ")
        what, _, peers = head.partition(" to ")
        _, verb, prefixes, name = what.split(" ")
        kind = _KINDS.get(name)
        if kind is None:
            raise ValueError(f"a family {name!r}")
        if verb == "withdraw":
            if text:
                raise ValueError("attributes to withdraw with")
            text = kind.withdrawal
        found = split(bytes.fromhex(prefixes), kind.bits)
        if not peers:
            raise ValueError("no peer")
        known = self._known.get((name, text))
        if known is None:
            if len(self._known) >= MOST_ATTRIBUTE_SETS:
                self._known.clear()
            known = self._known[name, text] = _attributes(api, name, text)
        action = Action.WITHDRAW if verb == "withdraw" else Action.ANNOUNCE
        return _Order(kind, action, found, frozenset(peers.split(" ")), *known)


def _attributes(api: Any, name: str, text: str) -> tuple[Any, Any]:
    """As ExaBGP reads them, with the next hop. Raises ValueError."""
    anything = "0.0.0.0/0" if name == "ipv4" else "::/0"
    changes = api.api_attributes(f"announce attributes {text} nlri {anything}", [])
    if len(changes) != 1 or changes[0].nlri.nexthop is NoNextHop:
        raise ValueError(f"attributes {text[:LONGEST_QUOTE]!r}: {str(api.configuration.error) or 'no next hop'}")
    return changes[0].attributes, changes[0].nlri.nexthop


def _changes(order: _Order) -> list[tuple[bytes, Any]]:
    """With the index of each, as `Change.index` has it."""
    make, action, nexthop, attributes = order.kind.make, order.action, order.nexthop, order.attributes
    within_family = Family(*order.kind.family).index() + b"no-pi"
    within_rib = Change.family_prefix(order.kind.family)
    found = []
    for packed in order.prefixes:
        index = within_family + packed
        change = Change(make(packed, index, action, nexthop), attributes)
        change._Change__index = whole = within_rib + index
        found.append((whole, change))
    return found


def put(rib: Any, family: tuple[Any, Any], attributes: Any, changes: Sequence[tuple[bytes, Any]]) -> None:
    """`OutgoingRIB.add_to_rib` for each of many changes of one family with the same attributes and next hop."""
    same, queued_attributes, queued = attributes.index(), rib._new_attr_af_nlri, rib._new_nlri
    seen = rib._seen.setdefault(family, {}) if rib.cache else None
    bucket: dict[bytes, Any] | None = None
    for index, change in changes:
        nlri = change.nlri
        announces = nlri.action == Action.ANNOUNCE
        if seen is not None:
            if announces:
                known = seen.get(index)
                if (
                    known is not None
                    and (known.attributes is attributes or known.attributes.index() == same)
                    and known.nlri.nexthop.index() == nlri.nexthop.index()
                ):
                    continue  # it has been told this
                seen[index] = change
            else:
                seen.pop(index, None)
        before = queued.get(index)
        if before is not None and before.attributes.index() != same:  # correction B1
            queued_attributes.get(before.attributes.index(), {}).get(family, {}).pop(index, None)
        if bucket is None:
            bucket = queued_attributes.setdefault(same, {}).setdefault(family, {})
            rib._new_attribute[same] = attributes
        bucket[index] = queued[index] = change


def _carry_out(reactor: Any, order: _Order) -> None:
    family = order.kind.family
    changes = _changes(order)
    for neighbor in reactor.configuration.neighbors.values():
        if family in neighbor.families() and neighbor["peer-address"].top() in order.peers:
            put(neighbor.rib.outgoing, family, order.attributes, changes)


def _steps(api: Any, reactor: Any, service: str, line: str, reader: _Reader) -> Iterator[None]:
    try:
        order = reader.read(api, line)
    except Exception as error:  # whatever ExaBGP's parser raises
        refused = {"type": "weft-refused", "command": line[:LONGEST_QUOTE], "error": str(error)}
        reactor.processes.write(service, json.dumps(refused))
    else:
        _carry_out(reactor, order)
    yield


def install() -> None:
    """Add the two commands."""
    reader = _Reader()

    def schedule(api: Any, reactor: Any, service: str, line: str, use_json: bool) -> bool:
        reactor.asynchronous.schedule(service, line, _steps(api, reactor, service, line, reader))
        return True

    for name in COMMANDS:  # with JSON, because ExaBGP looks for that where the word is anywhere in a command
        Command.register(name, False, json_support=True)(schedule)
