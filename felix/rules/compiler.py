"""Rules and sets as the kernel wants them: a rule becomes expressions, a set a layout, a key an element.

The same statement always gives the same bytes, so the digest of a compiled rule says what is in the kernel without
reading expressions back. No messages, no batches: `writer` makes those."""

import struct
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple, assert_never

from felix.rules import values as v
from felix.rules.members import network_intervals, port_intervals, prefix_length
from weft.netlink import nftables as nft
from weft.netlink import nftables_expressions as ex

INTERFACE_NAME_BYTES = 16
_TYPE_IPV4, _TYPE_IPV6, _TYPE_PROTOCOL, _TYPE_PORT, _TYPE_INTERFACE = 7, 8, 12, 13, 41
_SERVICE = _TYPE_PROTOCOL << 6 | _TYPE_PORT
_NFPROTO = {4: 2, 6: 10}

MAP_LAYOUT = nft.SetLayout(nft.SET_MAP, _TYPE_INTERFACE, INTERFACE_NAME_BYTES, host_order=True)
LAYOUTS = {
    v.KeyType.ADDRESS_V4: nft.SetLayout(0, _TYPE_IPV4, 4),
    v.KeyType.ADDRESS_V6: nft.SetLayout(0, _TYPE_IPV6, 16),
    v.KeyType.NETWORK_V4: nft.SetLayout(nft.SET_INTERVAL, _TYPE_IPV4, 4),
    v.KeyType.NETWORK_V6: nft.SetLayout(nft.SET_INTERVAL, _TYPE_IPV6, 16),
    v.KeyType.PORT: nft.SetLayout(nft.SET_INTERVAL, _TYPE_PORT, 2),
    v.KeyType.SERVICE_V4: nft.SetLayout(0, _TYPE_IPV4 << 12 | _SERVICE, 12),
    v.KeyType.SERVICE_V6: nft.SetLayout(0, _TYPE_IPV6 << 12 | _SERVICE, 24),
}

_CT_STATES = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}
_CT_STATUSES = {
    "expected": 1,
    "seen-reply": 2,
    "assured": 4,
    "confirmed": 8,
    "snat": 16,
    "dnat": 32,
    "dying": 512,
}
_ADDRESS_TYPES = {
    "unicast": 1,
    "local": 2,
    "broadcast": 3,
    "multicast": 5,
    "blackhole": 6,
    "unreachable": 7,
    "prohibit": 8,
}
_ICMPX_ADMIN_PROHIBITED = 3
_HOST32 = struct.Struct("=I")
_UNIQUE = (v.CountIn, v.SetMark)  # one for each rule: nothing is won by remembering them


class AnonymousSet(NamedTuple):
    """A set that lives in one rule, and the test for it there."""

    layout: nft.SetLayout
    elements: tuple[bytes, ...]
    negated: bool


class CompiledRule(NamedTuple):
    """A rule's expressions in order, its anonymous sets where they are looked up, and a digest of it all."""

    rule: v.Rule
    parts: tuple[bytes | AnonymousSet, ...]
    digest: bytes


@lru_cache(maxsize=16384)  # a changed chain is written whole, and most of its rules are what they were
def compile_rule(rule: v.Rule) -> CompiledRule:
    parts: list[bytes | AnonymousSet] = []
    pending: list[bytes] = []
    version: int | None = None
    for statement in rule.statements:
        if isinstance(statement, (v.NetworkProtocol, v.Address, v.AddressInSet, v.ServiceInSet)):
            if version is None:
                pending.append(_network_protocol(statement.version))
            version = statement.version
        compiled = _stateful(statement) if isinstance(statement, _UNIQUE) else _compiled(statement)
        for part in compiled:
            if isinstance(part, bytes):
                pending.append(part)
            else:
                parts += [b"".join(pending), part]
                pending.clear()
    parts.append(b"".join(pending))
    return CompiledRule(rule, tuple(parts), _digest(rule, parts))


def _digest(rule: v.Rule, parts: list[bytes | AnonymousSet]) -> bytes:
    digest = blake2b(rule.comment.encode() + b"\0", digest_size=8)
    for part in parts:
        if isinstance(part, bytes):
            digest.update(part)
        else:
            digest.update(repr((part.layout, part.negated)).encode())
            digest.update(b"".join(part.elements))
    return digest.digest()


@lru_cache(maxsize=4096)
def _compiled(statement: v.Statement) -> tuple[bytes | AnonymousSet, ...]:
    match statement:
        case v.Accept() | v.Drop() | v.Return() | v.Jump() | v.Goto():
            return (ex.immediate_verdict(*verdict_code(statement)),)
        case v.NetworkProtocol():
            return ()  # compile_rule tests it once for the whole rule
        case v.Interface(way, name, negated):
            return ex.meta(_interface_key(way)), ex.compare(_operator(negated), _interface_pattern(name))
        case v.L4Protocol(number, negated):
            return ex.meta(ex.META_L4PROTO), ex.compare(_operator(negated), bytes((number,)))
        case v.Address():
            return _address(statement)
        case v.AddressInSet(side, name, version, negated):
            return _load_address(side, version), ex.lookup(name, inverted=negated)
        case v.Ports():
            return _ports(statement)
        case v.PortInSet(side, name, negated):
            return _load_port(side), ex.lookup(name, inverted=negated)
        case v.ServiceInSet(side, name, version, negated):
            behind = ex.REGISTER_4_BYTES + (1 if version == 4 else 4)
            return (
                _load_address(side, version),
                ex.meta(ex.META_L4PROTO, behind),
                _load_port(side, behind + 1),
                ex.lookup(name, inverted=negated),
            )
        case v.IcmpType(kind, code, negated):
            data = bytes((kind,)) if code is None else bytes((kind, code))
            load = ex.payload(ex.TRANSPORT_HEADER, 0, len(data))
            return load, ex.compare(_operator(negated), data)
        case _:
            return _stateful(statement)


def _stateful(
    statement: v.ConntrackState
    | v.ConntrackStatus
    | v.Mark
    | v.ConntrackMark
    | v.ReversePath
    | v.AddressType
    | v.Action,
) -> tuple[bytes, ...]:
    match statement:
        case v.ConntrackState(states, negated):
            return (ex.ct(ex.CT_STATE), *_any_bit(sum({_CT_STATES[s] for s in states}), negated))
        case v.ConntrackStatus(statuses, negated):
            return (ex.ct(ex.CT_STATUS), *_any_bit(sum({_CT_STATUSES[s] for s in statuses}), negated))
        case v.Mark(value, mask, negated):
            return (ex.meta(ex.META_MARK), *_masked(value, mask, negated))
        case v.ConntrackMark(value, mask, negated):
            return (ex.ct(ex.CT_MARK), *_masked(value, mask, negated))
        case v.ReversePath(exists):
            load = ex.fib(ex.FIB_OIF, ex.FIB_SADDR | ex.FIB_IIF | ex.FIB_PRESENT)
            return load, ex.compare(ex.EQUAL, bytes((exists, 0, 0, 0)))
        case v.AddressType(side, kind, negated):
            load = ex.fib(ex.FIB_ADDRESS_TYPE, ex.FIB_SADDR if side is v.Side.SOURCE else ex.FIB_DADDR)
            return load, ex.compare(_operator(negated), _HOST32.pack(_ADDRESS_TYPES[kind]))
        case v.SetMark(value, mask):
            return (*_changed(ex.meta(ex.META_MARK), value, mask), ex.meta_set(ex.META_MARK))
        case v.SetConntrackMark(value, mask):
            return (*_changed(ex.ct(ex.CT_MARK), value, mask), ex.ct_set(ex.CT_MARK))
        case v.Counter():
            return (ex.counter(),)
        case v.CountIn(name):
            return (ex.object_reference(nft.OBJECT_COUNTER, name),)
        case v.Limit(packets, burst, seconds):
            return (ex.limit_packets(packets, burst, seconds),)
        case v.Log(prefix, group, snap_bytes):
            return (ex.log(prefix, group, snap_bytes),)
        case v.Masquerade(fully_random):
            return (ex.masquerade(ex.NAT_FULLY_RANDOM if fully_random else 0),)
        case v.SourceNat(address):
            return ex.immediate(address.packed), ex.source_nat(_NFPROTO[address.version])
        case v.NoTrack():
            return (ex.notrack(),)
        case v.Reject(True):
            return (ex.reject(ex.REJECT_TCP_RESET, 0),)
        case v.Reject():
            return (ex.reject(ex.REJECT_ICMPX, _ICMPX_ADMIN_PROHIBITED),)
        case v.InterfaceVerdict(way, name):
            return ex.meta(_interface_key(way)), ex.lookup_verdict(name)
        case _:
            assert_never(statement)


def _operator(negated: bool) -> int:
    return ex.NOT_EQUAL if negated else ex.EQUAL


def _network_protocol(version: int) -> bytes:
    return ex.meta(ex.META_NFPROTO) + ex.compare(ex.EQUAL, bytes((_NFPROTO[version],)))


def _interface_key(way: v.Way) -> int:
    return ex.META_IIFNAME if way is v.Way.IN else ex.META_OIFNAME


def _interface_pattern(name: str) -> bytes:
    return name[:-1].encode() if name.endswith("*") else interface_key(name)


def _load_address(side: v.Side, version: int, length: int = 0) -> bytes:
    """The address, or only its first `length` bytes."""
    whole, source = (4, 12) if version == 4 else (16, 8)
    offset = source if side is v.Side.SOURCE else source + whole
    return ex.payload(ex.NETWORK_HEADER, offset, length or whole)


def _load_port(side: v.Side, register: int = ex.REGISTER_1) -> bytes:
    return ex.payload(ex.TRANSPORT_HEADER, 0 if side is v.Side.SOURCE else 2, 2, register)


def _address(statement: v.Address) -> tuple[bytes | AnonymousSet, ...]:
    side, version, negated = statement.side, statement.version, statement.negated
    intervals = network_intervals(statement.networks)
    size = 4 if version == 4 else 16
    if len(intervals) > 1:
        layout = LAYOUTS[v.KeyType.NETWORK_V4 if version == 4 else v.KeyType.NETWORK_V6]
        return _load_address(side, version), _anonymous(layout, intervals, negated)
    first, last = intervals[0]
    length = prefix_length(first, last, size * 8)
    if length is None:
        return _load_address(side, version), *_between(first, last, size, negated)
    network = (IPv4Network if version == 4 else IPv6Network)((first, length))
    return _prefix(side, network, negated)


def _prefix(side: v.Side, network: v.IPNetwork, negated: bool) -> tuple[bytes, ...]:
    """Only the bytes that the prefix reaches into are loaded, as nft does."""
    length, address = network.prefixlen, network.network_address.packed
    if length and length % 8 == 0:
        data = address[: length // 8]
        return _load_address(side, network.version, len(data)), ex.compare(_operator(negated), data)
    if not length and not negated:
        return ()  # any address of the family, and the family has been tested
    masked = ex.bitwise(network.netmask.packed, bytes(len(address)))
    return _load_address(side, network.version), masked, ex.compare(_operator(negated), address)


def _ports(statement: v.Ports) -> tuple[bytes | AnonymousSet, ...]:
    intervals = port_intervals(statement.ranges)
    if len(intervals) > 1:
        return _load_port(statement.side), _anonymous(LAYOUTS[v.KeyType.PORT], intervals, statement.negated)
    return _load_port(statement.side), *_between(*intervals[0], 2, statement.negated)


def _between(first: int, last: int, size: int, negated: bool) -> tuple[bytes, ...]:
    low, high = first.to_bytes(size, "big"), last.to_bytes(size, "big")
    if first == last:
        return (ex.compare(_operator(negated), low),)
    if negated:
        return (ex.outside_range(low, high),)
    return ex.compare(ex.GREATER_OR_EQUAL, low), ex.compare(ex.LESS_OR_EQUAL, high)


def _anonymous(layout: nft.SetLayout, intervals: list[tuple[int, int]], negated: bool) -> AnonymousSet:
    size = layout.key_length
    flags = nft.SET_ANONYMOUS | nft.SET_CONSTANT
    if all(first == last for first, last in intervals):
        keys = [first.to_bytes(size, "big") for first, _ in intervals]
        plain = nft.SetLayout(flags, layout.key_type, size)
        return AnonymousSet(plain, tuple(nft.plain_elements(keys, size)), negated)
    pairs = [first.to_bytes(size, "big") + last.to_bytes(size, "big") for first, last in intervals]
    ranged = nft.SetLayout(flags | nft.SET_INTERVAL, layout.key_type, size)
    return AnonymousSet(ranged, tuple(interval_elements(pairs, size)), negated)


def _any_bit(bits: int, negated: bool) -> tuple[bytes, bytes]:
    test = ex.compare(ex.EQUAL if negated else ex.NOT_EQUAL, bytes(4))
    return ex.bitwise(_HOST32.pack(bits), bytes(4)), test


def _masked(value: int, mask: int, negated: bool) -> tuple[bytes, ...]:
    test = ex.compare(_operator(negated), _HOST32.pack(value))
    return (test,) if mask == 0xFFFFFFFF else (ex.bitwise(_HOST32.pack(mask), bytes(4)), test)


def _changed(load: bytes, value: int, mask: int) -> tuple[bytes, ...]:
    if mask == 0xFFFFFFFF:
        return (ex.immediate(_HOST32.pack(value)),)
    return load, ex.bitwise(_HOST32.pack(mask ^ 0xFFFFFFFF), _HOST32.pack(value))


def verdict_code(verdict: v.Verdict) -> tuple[int, str | None]:
    match verdict:
        case v.Accept():
            return nft.VERDICT_ACCEPT, None
        case v.Drop():
            return nft.VERDICT_DROP, None
        case v.Return():
            return nft.VERDICT_RETURN, None
        case v.Jump(chain):
            return nft.VERDICT_JUMP, chain
        case v.Goto(chain):
            return nft.VERDICT_GOTO, chain
        case _:
            assert_never(verdict)


def verdict_of(code: int | None, chain: str | None) -> v.Verdict | None:
    """The other way round; None for a verdict that is none of ours."""
    match code, chain:
        case nft.VERDICT_ACCEPT, None:
            return v.Accept()
        case nft.VERDICT_DROP, None:
            return v.Drop()
        case nft.VERDICT_RETURN, None:
            return v.Return()
        case nft.VERDICT_JUMP, str(target):
            return v.Jump(target)
        case nft.VERDICT_GOTO, str(target):
            return v.Goto(target)
        case _:
            return None


def interface_key(name: str) -> bytes:
    return name.encode().ljust(INTERFACE_NAME_BYTES, b"\0")


def interval_elements(pairs: list[bytes], size: int) -> list[bytes]:
    """Start and end of each interval; one that reaches the last value has no end."""
    found = []
    for pair in sorted(pairs):
        found.append(nft.element(pair[:size]))
        behind = int.from_bytes(pair[size:], "big") + 1
        if behind >> (8 * size) == 0:
            found.append(nft.element(behind.to_bytes(size, "big"), interval_end=True))
    return found


def intervals_of(elements: list[nft.Element], size: int) -> set[bytes]:
    """The intervals that a dump's elements stand for, as `interval_elements` takes them."""
    found: set[bytes] = set()
    start: bytes | None = None
    for key, is_start in sorted((e.key, not e.flags & nft.ELEMENT_INTERVAL_END) for e in elements):
        if start is not None:
            last = int.from_bytes(key, "big") - 1
            found.add(start + last.to_bytes(size, "big"))
        start = key if is_start else None
    if start is not None:
        found.add(start + b"\xff" * size)
    return found
