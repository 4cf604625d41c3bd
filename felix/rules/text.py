"""The same operations as text for `nft -f`: for golden tests, for people, and to measure against.

Not used to program a kernel. `nft list` prints some of it in other words (`th dport` becomes `tcp dport`)."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import assert_never

from felix.rules import operations as op
from felix.rules import values as v
from felix.rules.actions import LIMIT_UNITS
from felix.rules.compiler import LAYOUTS
from felix.rules.members import is_interval, network_intervals, port_intervals, prefix_length
from felix.rules.writer import TABLE

_TYPES = {
    v.KeyType.ADDRESS_V4: "ipv4_addr",
    v.KeyType.ADDRESS_V6: "ipv6_addr",
    v.KeyType.NETWORK_V4: "ipv4_addr",
    v.KeyType.NETWORK_V6: "ipv6_addr",
    v.KeyType.PORT: "inet_service",
    v.KeyType.SERVICE_V4: "ipv4_addr . inet_proto . inet_service",
    v.KeyType.SERVICE_V6: "ipv6_addr . inet_proto . inet_service",
}


def script(operations: Iterable[op.Operation], table: str = TABLE) -> str:
    return "".join(line + "\n" for operation in operations for line in _lines(operation, f"inet {table}"))


def _lines(operation: op.Operation, table: str) -> list[str]:
    match operation:
        case op.CreateTable():
            return [f"add table {table}"]
        case op.DeleteTable():
            return [f"delete table {table}"]
        case op.CreateChain(name, hook):
            return [f"add chain {table} {name}{_base(hook)}"]
        case op.FlushChain(name):
            return [f"flush chain {table} {name}"]
        case op.DeleteChain(name):
            return [f"delete chain {table} {name}"]
        case op.AddRule(chain, compiled):
            return [f"add rule {table} {chain} {rule(compiled.rule)}"]
        case op.CreateSet(name, key):
            flags = "flags interval, timeout; gc-interval 30d; " if is_interval(key) else ""
            return [f"add set {table} {name} {{ type {_TYPES[key]}; {flags}}}"]
        case op.CreateMap(name):
            return [f"add map {table} {name} {{ type ifname : verdict; }}"]
        case op.DeleteSet(name, is_map):
            return [f"delete {'map' if is_map else 'set'} {table} {name}"]
        case op.AddElements(name, key, keys):
            return _element("add", table, name, [_key(key, one) for one in keys])
        case op.RemoveElements(name, key, keys):
            return _element("delete", table, name, [_key(key, one) for one in keys])
        case op.AddEntries(name, entries):
            found = [f'"{interface}" : {_statement(verdict)}' for interface, verdict in entries.items()]
            return _element("add", table, name, found)
        case op.RemoveEntries(name, interfaces):
            return _element("delete", table, name, [f'"{interface}"' for interface in interfaces])
        case op.CreateCounter(name, start):
            value = f" {{ packets {start.packets} bytes {start.bytes} }}" if start else ""
            return [f"add counter {table} {name}{value}"]
        case op.DeleteCounter(name):
            return [f"delete counter {table} {name}"]
        case _:
            assert_never(operation)


def _base(hook: v.Hook | None) -> str:
    if hook is None:
        return ""
    return f" {{ type {hook.type} hook {hook.hook} priority {hook.priority}; policy {hook.policy}; }}"


def _element(verb: str, table: str, name: str, elements: list[str]) -> list[str]:
    return [f"{verb} element {table} {name} {{ {', '.join(elements)} }}"] if elements else []


def _key(kind: v.KeyType, key: bytes) -> str:
    size = LAYOUTS[kind].key_length
    match kind:
        case v.KeyType.ADDRESS_V4 | v.KeyType.ADDRESS_V6:
            return _address(key)
        case v.KeyType.NETWORK_V4 | v.KeyType.NETWORK_V6:
            return _range(_address(key[:size]), _address(key[size:]))
        case v.KeyType.PORT:
            return _range(str(int.from_bytes(key[:2], "big")), str(int.from_bytes(key[2:], "big")))
        case v.KeyType.SERVICE_V4 | v.KeyType.SERVICE_V6:
            return f"{_address(key[:-8])} . {key[-8]} . {int.from_bytes(key[-4:-2], 'big')}"
        case _:
            assert_never(kind)


def _address(packed: bytes) -> str:
    return str(IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed))


def _range(first: str, last: str) -> str:
    return first if first == last else f"{first}-{last}"


def rule(value: v.Rule) -> str:
    text = " ".join(filter(None, map(_statement, value.statements)))
    return f'{text} comment "{value.comment}"' if value.comment else text


def _statement(statement: v.Statement) -> str:
    match statement:
        case v.Interface(way, name, negated):
            return f'{way.value}name {_not(negated)}"{name}"'
        case v.NetworkProtocol(version):
            return f"meta nfproto ipv{version}"
        case v.L4Protocol(number, negated):
            return f"meta l4proto {_not(negated)}{number}"
        case v.Address():
            return _networks(statement)
        case v.AddressInSet(side, name, version, negated):
            return f"{_ip(version)} {side.value}addr {_not(negated)}@{name}"
        case v.Ports(side, ranges, negated):
            ports = [_range(str(first), str(last)) for first, last in port_intervals(ranges)]
            return f"th {side.value}port {_not(negated)}{_one_or_set(ports)}"
        case v.PortInSet(side, name, negated):
            return f"th {side.value}port {_not(negated)}@{name}"
        case v.ServiceInSet(side, name, version, negated):
            key = f"{_ip(version)} {side.value}addr . meta l4proto . th {side.value}port"
            return f"{key} {_not(negated)}@{name}"
        case v.IcmpType(kind, None, negated):
            return f"@th,0,8 {_not(negated)}{kind}"
        case v.IcmpType(kind, code, negated):
            assert code is not None
            return f"@th,0,16 {_not(negated)}{kind << 8 | code:#x}"
        case v.Accept() | v.Drop() | v.Return() | v.Jump() | v.Goto():
            return _verdict(statement)
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
) -> str:
    match statement:
        case v.ConntrackState(states, negated):
            return f"ct state {'! ' if negated else ''}{','.join(states)}"
        case v.ConntrackStatus(statuses, negated):
            return f"ct status {'! ' if negated else ''}{','.join(statuses)}"
        case v.Mark(value, mask, negated):
            return f"meta mark {_masked(value, mask, negated)}"
        case v.ConntrackMark(value, mask, negated):
            return f"ct mark {_masked(value, mask, negated)}"
        case v.ReversePath(exists):
            return f"fib saddr . iif oif {'exists' if exists else 'missing'}"
        case v.AddressType(side, kind, negated):
            return f"fib {side.value}addr type {_not(negated)}{kind}"
        case v.SetMark(value, mask):
            return f"meta mark set {_changed('meta mark', value, mask)}"
        case v.SetConntrackMark(value, mask):
            return f"ct mark set {_changed('ct mark', value, mask)}"
        case v.Counter():
            return "counter"
        case v.CountIn(name):
            return f'counter name "{name}"'
        case v.Limit(packets, burst, seconds):
            return f"limit rate {packets}/{LIMIT_UNITS[seconds]} burst {burst} packets"
        case v.Log(prefix, group, snap_bytes):
            where = "" if group is None else f" group {group}"
            part = "" if snap_bytes is None else f" snaplen {snap_bytes}"
            return "log" + (f' prefix "{prefix}"' if prefix else "") + where + part
        case v.Masquerade(fully_random):
            return "masquerade fully-random" if fully_random else "masquerade"
        case v.SourceNat(address):
            return f"snat {_ip(address.version)} to {address}"
        case v.NoTrack():
            return "notrack"
        case v.Reject(tcp_reset):
            return "reject with tcp reset" if tcp_reset else "reject with icmpx type admin-prohibited"
        case v.InterfaceVerdict(way, name):
            return f"{way.value}name vmap @{name}"
        case _:
            assert_never(statement)


def _verdict(verdict: v.Verdict) -> str:
    match verdict:
        case v.Jump(chain):
            return f"jump {chain}"
        case v.Goto(chain):
            return f"goto {chain}"
        case _:
            return type(verdict).__name__.lower()


def _not(negated: bool) -> str:
    return "!= " if negated else ""


def _ip(version: int) -> str:
    return "ip" if version == 4 else "ip6"


def _networks(match: v.Address) -> str:
    kind, bits = (IPv4Address, 32) if match.version == 4 else (IPv6Address, 128)
    found = []
    for first, last in network_intervals(match.networks):
        length = prefix_length(first, last, bits)
        found.append(_range(str(kind(first)), str(kind(last))) if length is None else f"{kind(first)}/{length}")
        if length == 0 and not match.negated:
            return f"meta nfproto ipv{match.version}"
    return f"{_ip(match.version)} {match.side.value}addr {_not(match.negated)}{_one_or_set(found)}"


def _one_or_set(items: list[str]) -> str:
    return items[0] if len(items) == 1 else "{ " + ", ".join(items) + " }"


def _masked(value: int, mask: int, negated: bool) -> str:
    if mask == 0xFFFFFFFF:
        return f"{_not(negated)}{value:#x}"
    return f"& {mask:#x} {'!=' if negated else '=='} {value:#x}"


def _changed(field: str, value: int, mask: int) -> str:
    return f"{value:#x}" if mask == 0xFFFFFFFF else f"{field} & {mask ^ 0xFFFFFFFF:#x} | {value:#x}"
