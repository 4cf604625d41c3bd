"""What a table of nft values does with the first packet of a connection: an interpreter of the kernel's rules.

It knows the statements that decide about packets. `Chains` keeps a table as changes make it, and refuses changes
that the kernel would: of members that are not there, or towards chains and sets that do not exist."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import assert_never

from msgspec import Struct

from felix.rules import values as v
from felix.rules.changes import Changes
from weft.policy.verdict import Flow


class Packet(Struct, frozen=True):
    flow: Flow
    iif: str = ""
    oif: str = ""
    ct_state: str = "new"
    is_translated: bool = False
    ct_mark: int = 0


class Chains:
    """A table that changes are applied to."""

    def __init__(self) -> None:
        self.table = v.Table()

    def apply(self, changes: Changes) -> None:
        chains, sets, maps = dict(self.table.chains), dict(self.table.sets), dict(self.table.maps)
        for target, new in ((chains, changes.chains), (sets, changes.sets), (maps, changes.maps)):
            for name, value in new.items():
                before = target.pop(name, None)  # type: ignore[attr-defined]
                assert value is not None or before is not None, f"{name} removed twice"
                if value is not None:
                    target[name] = value  # type: ignore[index]
        for name, change in changes.members.items():
            assert change.removed <= sets[name].members
            assert not change.added & sets[name].members
            sets[name] = v.Set(name, sets[name].key, (sets[name].members | change.added) - change.removed)
        for name, entries in changes.entries.items():
            now = dict(maps[name].entries)
            for interface, verdict in entries.items():
                assert now.pop(interface, None) != verdict
                if verdict is not None:
                    now[interface] = verdict
            maps[name] = v.VerdictMap(name, now)
        self.table = v.Table(chains, sets, maps)
        assert not self.table.missing_references()


class _OnItsWay:
    """A packet, and what the rules on its way have done to it. A packet from nowhere is the node's own."""

    def __init__(self, packet: Packet) -> None:
        self.flow, self.iif, self.oif = packet.flow, packet.iif, packet.oif
        self.ct_state, self.ct_mark, self.is_translated = packet.ct_state, packet.ct_mark, packet.is_translated
        self.mark = 0


def passes_hook(table: v.Table, hook: str, packet: Packet) -> bool:
    """Whether every filter chain of the hook accepts the packet, in order of priority."""
    return passes(table, (hook,), packet)


def passes(table: v.Table, hooks: Sequence[str], packet: Packet) -> bool:
    """Whether it gets through these hooks, one after the other."""
    on_its_way = _OnItsWay(packet)
    for hook in hooks:
        bases = [c for c in table.chains.values() if c.hook and c.hook.hook == hook and c.hook.type == "filter"]
        for chain in sorted(bases, key=lambda chain: chain.hook.priority if chain.hook else 0):
            assert chain.hook is not None
            final = _run(table, chain, on_its_way)
            if isinstance(final, v.Drop | v.Reject) or (final is None and chain.hook.policy == "drop"):
                return False
    return True


def _run(table: v.Table, chain: v.Chain, packet: _OnItsWay) -> v.Accept | v.Drop | v.Reject | None:
    """None: the end of the chain was reached, or it returned."""
    for rule in chain.rules:
        verdict = _verdict(table, rule, packet)
        match verdict:
            case None:
                continue
            case v.Accept() | v.Drop() | v.Reject():
                return verdict
            case v.Return():
                return None
            case v.Goto(name):
                return _run(table, table.chains[name], packet)
            case v.Jump(name):
                final = _run(table, table.chains[name], packet)
                if final is not None:
                    return final
            case _:
                assert_never(verdict)
    return None


def _verdict(table: v.Table, rule: v.Rule, packet: _OnItsWay) -> v.Verdict | v.Reject | None:
    for statement in rule.statements:
        match statement:
            case v.Accept() | v.Drop() | v.Reject() | v.Return() | v.Jump() | v.Goto():
                return statement
            case v.InterfaceVerdict(way, name):
                return table.maps[name].entries.get(packet.iif if way is v.Way.IN else packet.oif)
            case v.Log() | v.Counter() | v.CountIn() | v.Limit():
                continue
            case v.SetMark(value, mask):
                packet.mark = packet.mark & ~mask | value
            case v.NoTrack():
                packet.ct_state, packet.is_translated = "untracked", False
            case _:
                if not _matches(table, statement, packet):
                    return None
    return None


def _matches(table: v.Table, statement: v.Statement, packet: _OnItsWay) -> bool:
    flow = packet.flow
    match statement:
        case v.Interface(way, name, negated):
            return fnmatchcase(packet.iif if way is v.Way.IN else packet.oif, name) != negated
        case v.NetworkProtocol(version):
            return flow.source.version == version
        case v.L4Protocol(number, negated):
            return (flow.protocol == number) != negated
        case v.Address(side, networks, negated):
            address = flow.source if side is v.Side.SOURCE else flow.destination
            if address.version != statement.version:
                return False
            return any(address in network for network in networks) != negated
        case v.AddressInSet(side, name, version, negated):
            address = flow.source if side is v.Side.SOURCE else flow.destination
            members = table.sets[name].members
            if address.version != version:
                return False
            inside = address in members or any(
                isinstance(m, (v.IPv4Network, v.IPv6Network)) and address in m for m in members
            )
            return inside != negated
        case v.ServiceInSet(side, name, version, negated):
            address = flow.source if side is v.Side.SOURCE else flow.destination
            port = flow.source_port if side is v.Side.SOURCE else flow.destination_port
            if address.version != version:
                return False
            return (v.AddressPort(address, flow.protocol, port or 0) in table.sets[name].members) != negated
        case v.Ports(side, ranges, negated):
            port = flow.source_port if side is v.Side.SOURCE else flow.destination_port
            return any(one.first <= (port or 0) <= one.last for one in ranges) != negated
        case v.IcmpType(kind, code, negated):
            return (flow.icmp_type == kind and code in (None, flow.icmp_code)) != negated
        case v.Mark(value, mask, negated):
            return (packet.mark & mask == value) != negated
        case v.ConntrackStatus(("dnat",), negated):
            return packet.ct_state != "untracked" and packet.is_translated != negated
        case v.AddressType(v.Side.SOURCE, "local", negated):
            return (not packet.iif) != negated
        case v.ReversePath(exists):
            return exists
        case v.ConntrackState(states, negated):
            return (packet.ct_state in states) != negated
        case v.ConntrackMark(value, mask, negated):
            return packet.ct_state != "untracked" and (packet.ct_mark & mask == value) != negated
        case _:
            raise NotImplementedError(f"no interpretation of {statement}")
