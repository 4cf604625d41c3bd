"""nf_tables messages: what makes up a batch, what a dump and a notification say.

Encodes objects of one table of the inet family and decodes the kernel's answers into named tuples. It knows the
wire (linux/netfilter/nf_tables.h), not what our chains mean; it opens no socket and orders no batch. Attributes of
nf_tables are in network byte order, except what is compared with host-order data in a register."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from weft.netlink.message import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    Message,
    attribute,
    attributes,
    be32,
    be64,
    iter_attributes,
    message,
    nested,
    read_be32,
    read_be64,
    read_string,
    string,
)

SUBSYSTEM = 10
NFNLGRP_NFTABLES = 7
FAMILY_INET = 1

_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
(NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, DELCHAIN, NEWRULE, GETRULE, DELRULE, NEWSET, GETSET, DELSET) = range(
    12
)
NEWSETELEM, GETSETELEM, DELSETELEM, NEWGEN, GETGEN = 12, 13, 14, 15, 16
NEWOBJ, GETOBJ, DELOBJ = 18, 19, 20

OBJECT_COUNTER = 1

SET_ANONYMOUS, SET_CONSTANT, SET_INTERVAL, SET_MAP, SET_TIMEOUT = 1, 2, 4, 8, 16
RARE_COLLECTION_MS = 30 * 24 * 3600 * 1000
"""How often the kernel looks for elements of our interval sets that have timed out, of which there are none."""
ELEMENT_INTERVAL_END = 1
DATA_VERDICT = 0xFFFFFF00

VERDICT_DROP, VERDICT_ACCEPT = 0, 1
VERDICT_JUMP, VERDICT_GOTO, VERDICT_RETURN = -3, -4, -5

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")

# The longest list of elements in one message: an attribute's length has 16 bits.
_ELEMENT_BYTES_PER_MESSAGE = 64_000

_GENERIC = struct.Struct("=BBH")  # nfgenmsg: family, version, resource id in network byte order
_LENGTH_AND_KIND = struct.Struct("=HH")
_NESTED = 0x8000

# What libnftables reads in user data; other types it skips.
USERDATA_COMMENT = 0  # of a rule or chain
USERDATA_SET_KEY_BYTE_ORDER = 0
USERDATA_SET_DATA_BYTE_ORDER = 1
HOST_BYTE_ORDER, NETWORK_BYTE_ORDER = 1, 2


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return message(SUBSYSTEM << 8 | kind, NLM_F_REQUEST | flags, _GENERIC.pack(FAMILY_INET, 0, 0) + body)


def _frame(kind: int) -> bytes:
    resource = int.from_bytes(SUBSYSTEM.to_bytes(2, "big"), "little" if struct.pack("=H", 1)[0] else "big")
    return message(kind, NLM_F_REQUEST, _GENERIC.pack(0, 0, resource))


BATCH_BEGIN = _frame(_BATCH_BEGIN)
BATCH_END = _frame(_BATCH_END)


def userdata(*records: tuple[int, bytes]) -> bytes:
    """User data as libnftnl writes it: records of type, length, value (at most 255 bytes each)."""
    return b"".join(bytes((kind, len(value))) + value for kind, value in records)


def read_userdata(data: bytes) -> dict[int, bytes]:
    """The records by type; whatever somebody else wrote that is no record ends the reading."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 2 <= len(data) and at + 2 + data[at + 1] <= len(data):
        found[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    return found


def verdict(code: int, chain: str | None = None) -> bytes:
    """NFTA_DATA_VERDICT, as an immediate and a map's element carry it."""
    target = b"" if chain is None else string(2, chain)
    return nested(2, be32(1, code & 0xFFFFFFFF), target)


@dataclass(frozen=True, slots=True)
class SetLayout:
    """What a set is: the flags, nft's data type number of the key, and the bytes of a key. `host_order` tells
    `nft list` how to read the keys; dumps are decoded without it."""

    flags: int
    key_type: int
    key_length: int
    host_order: bool = field(default=False, compare=False)

    @property
    def is_verdict_map(self) -> bool:
        return bool(self.flags & SET_MAP)


class BaseChain(NamedTuple):
    type: str
    hook: str
    priority: int
    drop: bool


_COUNTER_TYPE = be32(3, OBJECT_COUNTER)


class TableMessages:
    """The messages that change one table. Each returned value is one message, or a list of them."""

    def __init__(self, table: str) -> None:
        self._table = string(1, table)

    def new_table(self) -> bytes:
        return _message(NEWTABLE, NLM_F_CREATE, self._table)

    def delete_table(self) -> bytes:
        return _message(DELTABLE, 0, self._table)

    def new_chain(self, name: str, base: BaseChain | None = None) -> bytes:
        body = self._table + string(3, name)
        if base is not None:
            hook = nested(4, be32(1, HOOKS.index(base.hook)), be32(2, base.priority & 0xFFFFFFFF))
            body += hook + be32(5, VERDICT_DROP if base.drop else VERDICT_ACCEPT) + string(7, base.type)
        return _message(NEWCHAIN, NLM_F_CREATE, body)

    def delete_chain(self, name: str) -> bytes:
        return _message(DELCHAIN, 0, self._table + string(3, name))

    def flush_chain(self, name: str) -> bytes:
        return _message(DELRULE, 0, self._table + string(2, name))

    def add_rule(self, chain: str, expressions: bytes, data: bytes) -> bytes:
        """Append a rule; `expressions` is a concatenation of what `nftables_expressions` returns."""
        body = self._table + string(2, chain) + nested(4, expressions) + (attribute(7, data) if data else b"")
        return _message(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, body)

    def new_set(self, name: str, layout: SetLayout, number: int, size: int = 0) -> bytes:
        """`number` names the set to later messages of the same batch; `size` fixes it (anonymous sets).

        A named interval set gets the timeout flag for the sake of its collection interval: without, a commit that
        comes a second after the last walks the whole set in search of what has timed out."""
        rare = layout.flags & SET_INTERVAL and not layout.flags & SET_ANONYMOUS
        body = self._table + string(2, name) + be32(3, layout.flags | (SET_TIMEOUT if rare else 0))
        body += be32(4, layout.key_type) + be32(5, layout.key_length)
        if layout.is_verdict_map:
            body += be32(6, DATA_VERDICT) + be32(7, 0)
        if size:
            body += nested(9, be32(1, size))
        if rare:
            body += be32(12, RARE_COLLECTION_MS)
        order = struct.pack("=I", HOST_BYTE_ORDER if layout.host_order else NETWORK_BYTE_ORDER)
        body += be32(10, number) + attribute(13, userdata((USERDATA_SET_KEY_BYTE_ORDER, order)))
        return _message(NEWSET, NLM_F_CREATE, body)

    def delete_set(self, name: str) -> bytes:
        return _message(DELSET, 0, self._table + string(2, name))

    def new_counter(self, name: str, packets: int = 0, octets: int = 0) -> bytes:
        """One that is there keeps what it has counted."""
        start = be64(1, octets) + be64(2, packets) if packets or octets else b""
        return _message(NEWOBJ, NLM_F_CREATE, self._counter(name) + nested(4, start))

    def delete_counter(self, name: str) -> bytes:
        return _message(DELOBJ, 0, self._counter(name))

    def get_counter(self, name: str) -> bytes:
        return _message(GETOBJ, 0, self._counter(name))

    def get_counters(self) -> bytes:
        """All of the table, to be sent as a dump."""
        return _message(GETOBJ, 0, self._table + _COUNTER_TYPE)

    def _counter(self, name: str) -> bytes:
        return self._table + string(2, name) + _COUNTER_TYPE

    def add_elements(self, name: str, elements: Sequence[bytes], number: int | None = None) -> list[bytes]:
        return self._elements(NEWSETELEM, NLM_F_CREATE, name, elements, number)

    def delete_elements(self, name: str, elements: Sequence[bytes]) -> list[bytes]:
        return self._elements(DELSETELEM, 0, name, elements, None)

    def _elements(self, kind: int, flags: int, name: str, elements: Sequence[bytes], number: int | None) -> list[bytes]:
        head = self._table + string(2, name) + (b"" if number is None else be32(4, number))
        return [_message(kind, flags, head + nested(3, part)) for part in _chunks(elements)]


def _chunks(elements: Sequence[bytes]) -> Iterator[bytes]:
    """The elements joined, each piece short enough for one attribute."""
    if not elements:
        return
    longest = max(map(len, elements))
    per_message = max(1, _ELEMENT_BYTES_PER_MESSAGE // longest)
    for start in range(0, len(elements), per_message):
        yield b"".join(elements[start : start + per_message])


# --- elements -------------------------------------------------------------------------------------------------


def element(key: bytes, *, data: bytes = b"", interval_end: bool = False) -> bytes:
    """One element of a list; `data` is a verdict of a map. Keys are whole registers: pad to four bytes before."""
    parts = nested(1, attribute(1, key))
    if data:
        parts += nested(2, data)
    if interval_end:
        parts += be32(3, ELEMENT_INTERVAL_END)
    return nested(1, parts)


def plain_elements(keys: Iterable[bytes], key_length: int) -> list[bytes]:
    """As `element` for many keys of one length: no more than a concatenation each."""
    padding = b"\0" * (-key_length & 3)
    value = 4 + key_length
    inner = 4 + value + len(padding)
    head = _LENGTH_AND_KIND.pack(4 + inner, 1 | _NESTED) + _LENGTH_AND_KIND.pack(inner, 1 | _NESTED)
    head += _LENGTH_AND_KIND.pack(value, 1)
    if padding:
        return [head + key + padding for key in keys]
    return [head + key for key in keys]


# --- dumps ----------------------------------------------------------------------------------------------------


class TableObject(NamedTuple):
    """Any message about an object of a table: which kind of message, which family, the table's name."""

    kind: int
    family: int
    table: str
    attributes: dict[int, bytes]


class Element(NamedTuple):
    key: bytes
    flags: int
    code: int | None
    chain: str | None


def get_chains() -> bytes:
    return _message(GETCHAIN, 0, b"")


def get_tables() -> bytes:
    return _message(GETTABLE, 0, b"")


def get_rules(table: str, chain: str) -> bytes:
    """Of one chain: a dump of a whole table begins at its first rule again for every 32 KB that it returns."""
    return _message(GETRULE, 0, string(1, table) + string(2, chain))


def get_sets(table: str) -> bytes:
    return _message(GETSET, 0, string(1, table))


def get_elements(table: str, name: str) -> bytes:
    return _message(GETSETELEM, 0, string(1, table) + string(2, name))


def table_object(found: Message) -> TableObject | None:
    """None for what is no message of nf_tables about a table (a new generation). Raises MalformedMessageError."""
    kind = found.kind & 0xFF
    if found.kind >> 8 != SUBSYSTEM or kind in (NEWGEN, GETGEN) or len(found.payload) < 4:
        return None
    decoded = attributes(found.payload, 4)
    return TableObject(kind, found.payload[0], read_string(decoded.get(1, b"")), decoded)


def base_chain(found: TableObject) -> BaseChain | None:
    """The base chain that a NEWCHAIN describes, None for a regular chain. Raises MalformedMessageError."""
    if 4 not in found.attributes:
        return None
    hook = attributes(found.attributes[4])
    number, priority = (read_be32(hook.get(kind, b"")) for kind in (1, 2))
    return BaseChain(
        read_string(found.attributes.get(7, b"")),
        HOOKS[number] if number < len(HOOKS) else f"hook {number}",
        priority - (1 << 32) if priority >> 31 else priority,
        5 in found.attributes and read_be32(found.attributes[5]) == VERDICT_DROP,
    )


def set_layout(found: TableObject) -> SetLayout:
    """What a NEWSET describes. The timeout flag is passed over where nothing in the set times out.
    Raises MalformedMessageError."""
    known = found.attributes
    flags = read_be32(known[3]) if 3 in known else 0
    return SetLayout(
        flags if 11 in known else flags & ~SET_TIMEOUT,
        read_be32(known[4]) if 4 in known else 0,
        read_be32(known[5]) if 5 in known else 0,
    )


class CounterValue(NamedTuple):
    name: str
    packets: int
    octets: int


def counter(found: TableObject) -> CounterValue | None:
    """What a NEWOBJ says of a counter, None for an object of another type. Raises MalformedMessageError."""
    known = found.attributes
    if found.kind != NEWOBJ or 2 not in known or 3 not in known or read_be32(known[3]) != OBJECT_COUNTER:
        return None
    held = attributes(known.get(4, b""))
    octets, packets = (read_be64(held[kind]) if kind in held else 0 for kind in (1, 2))
    return CounterValue(read_string(known[2]), packets, octets)


def elements(found: TableObject) -> list[Element]:
    """The elements of one NEWSETELEM. Raises MalformedMessageError."""
    data = found.attributes.get(3, b"")
    plain = _plain_keys(data)
    if plain is not None:
        return [Element(key, 0, None, None) for key in plain]
    return [_element(payload) for _, payload in iter_attributes(data)]


def _plain_keys(data: bytes) -> list[bytes] | None:
    """The keys if each element is nothing but a key of the same length: then no element is parsed alone."""
    if len(data) < 16:
        return None
    length = _LENGTH_AND_KIND.unpack_from(data)[0]
    if length <= 12 or length & 3 or len(data) % length or length != 12 + _LENGTH_AND_KIND.unpack_from(data, 8)[0] - 4:
        return None
    pieces = list(struct.iter_unpack(f"12s{length - 12}s", data))
    if len({head for head, _ in pieces}) != 1:
        return None
    return [key for _, key in pieces]


def _element(payload: bytes) -> Element:
    parts = attributes(payload)
    key = attributes(parts.get(1, b"")).get(1, b"")
    flags = read_be32(parts[3]) if 3 in parts else 0
    if 2 not in parts:
        return Element(key, flags, None, None)
    decided = attributes(attributes(parts[2]).get(2, b""))
    if 1 not in decided:
        return Element(key, flags, None, None)
    code = read_be32(decided[1])
    chain = read_string(decided[2]) if 2 in decided else None
    return Element(key, flags, code - (1 << 32) if code >> 31 else code, chain)
