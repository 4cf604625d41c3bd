"""Entries of the connection table: as the kernel writes them into a dump, and requests that make them.

Connections here have the reply that belongs to their original direction, after a translation of the destination (dnat)
or of the source (masqueraded)."""

import itertools
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from weft.netlink import conntrack as ct
from weft.netlink.conntrack import Tuple
from weft.netlink.message import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_MULTI,
    NLM_F_REQUEST,
    attribute,
    be16,
    be32,
    message,
    nested,
    u8,
)

TCP, UDP = 6, 17
_REPLIED = ct.STATUS_SEEN_REPLY | ct.STATUS_ASSURED | ct.STATUS_CONFIRMED
_COUNTERS_ORIGINAL, _USE, _ID, _PROTOCOL_INFO = 9, 11, 12, 4


def pack(address: str) -> bytes:
    return ip_address(address).packed


def directions(
    source: str,
    source_port: int,
    destination: str,
    port: int,
    protocol: int = UDP,
    *,
    dnat: tuple[str, int] | None = None,
    masqueraded: tuple[str, int] | None = None,
) -> tuple[Tuple, Tuple]:
    """The original direction and the reply's."""
    answering = dnat or (destination, port)
    answered = masqueraded or (source, source_port)
    return (
        Tuple(pack(source), pack(destination), protocol, (source_port, port)),
        Tuple(pack(answering[0]), pack(answered[0]), protocol, (answering[1], answered[1])),
    )


def as_dumped(
    original: Tuple,
    reply: Tuple,
    *,
    mark: int = 0,
    status: int = _REPLIED,
    zone: int | None = None,
    master: Tuple | None = None,
    sequence: int = 1,
    flags: int = 0,
) -> bytes:
    """One message of a dump."""
    parts = [ct.encode_tuple(ct.TUPLE_ORIGINAL, original), ct.encode_tuple(ct.TUPLE_REPLY, reply)]
    if zone is not None:
        parts.append(be16(ct.ZONE, zone))
    status |= ct.STATUS_EXPECTED if master is not None else 0
    parts += [be32(ct.STATUS, status), be32(ct.TIMEOUT, 30)]
    parts.append(nested(_COUNTERS_ORIGINAL, attribute(1, bytes(8)), attribute(2, mark.to_bytes(8, "big"))))
    if mark:
        parts.append(be32(ct.MARK, mark))
    parts += [be32(_ID, 0x08000800), be32(_USE, 1)]
    if master is not None:
        parts.append(ct.encode_tuple(ct.TUPLE_MASTER, master))
    return message(ct.CT_NEW, NLM_F_MULTI | flags, _generic(original.family) + b"".join(parts), sequence)


def _generic(family: int) -> bytes:
    return bytes((family, 0, 0, 0))


def create(original: Tuple, reply: Tuple, *, mark: int = 0, timeout_s: int = 600) -> bytes:
    """The request that makes this entry, as an established connection."""
    parts = [
        ct.encode_tuple(ct.TUPLE_ORIGINAL, original),
        ct.encode_tuple(ct.TUPLE_REPLY, reply),
        be32(ct.STATUS, _REPLIED),
        be32(ct.TIMEOUT, timeout_s),
        be32(ct.MARK, mark),
    ]
    if original.protocol == TCP:
        parts.append(nested(_PROTOCOL_INFO, nested(1, u8(1, 3))))  # established
    return message(ct.CT_NEW, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL, _generic(original.family) + b"".join(parts))


def many(count: int, source_prefix: int, destination: str, port: int = 80) -> Iterator[bytes]:
    """Requests for connections to one address, each from another address and port."""
    answering = pack(destination)
    for number in range(count):
        sender = (source_prefix + number).to_bytes(4, "big")
        ports = 1024 + number % 60_000, port
        yield create(Tuple(sender, answering, UDP, ports), Tuple(answering, sender, UDP, (ports[1], ports[0])))


def batches(requests: Iterator[bytes], size: int = 2000) -> Iterator[Sequence[bytes]]:
    while batch := list(itertools.islice(requests, size)):
        yield batch
