"""A kernel for the nft driver that lives in memory and refuses what nf_tables refuses.

`tests/functional/nft/test_fake_kernel.py` runs the same batches against it and the real one. Refusals can be injected
by name (`refuse`), other people's edits are made by calling `commit` and telling the driver."""

import errno
import os
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from felix.dataplane.nft_state import KernelChain, KernelSet, KernelTable, Refusal
from felix.rules import operations as op
from felix.rules import values as v
from felix.rules.compiler import CompiledRule
from felix.rules.members import is_interval
from felix.rules.writer import base_chain


class _RefusedError(Exception):
    def __init__(self, number: int) -> None:
        self.number = number


class _State:
    def __init__(self) -> None:
        self.exists = False
        self.chains: dict[str, tuple[v.Hook | None, list[CompiledRule]]] = {}
        self.sets: dict[str, tuple[v.KeyType, set[bytes]]] = {}
        self.maps: dict[str, dict[str, v.Verdict]] = {}
        self.counters: dict[str, v.Count] = {}

    def copy(self) -> "_State":
        other = _State()
        other.exists = self.exists
        other.chains = {name: (hook, list(rules)) for name, (hook, rules) in self.chains.items()}
        other.sets = {name: (key, set(keys)) for name, (key, keys) in self.sets.items()}
        other.maps = {name: dict(entries) for name, entries in self.maps.items()}
        other.counters = dict(self.counters)
        return other


class FakeNft:
    def __init__(self) -> None:
        self._state = _State()
        self.commits: list[list[op.Operation]] = []
        self.refuse: dict[str, list[int]] = {}  # name of an object -> errors, one for each batch that touches it
        self.always_refuse: dict[str, int] = {}

    def read(self) -> KernelTable:
        state = self._state
        return KernelTable(
            state.exists,
            {
                name: KernelChain(base_chain(hook), tuple(rule.digest for rule in rules))
                for name, (hook, rules) in state.chains.items()
            },
            {name: KernelSet(key, frozenset(keys)) for name, (key, keys) in state.sets.items()},
            {name: dict(entries) for name, entries in state.maps.items()},
            dict(state.counters),
        )

    def counts(self, names: Collection[str]) -> Mapping[str, v.Count]:
        return {name: self._state.counters[name] for name in names if name in self._state.counters}

    def count(self, name: str, packets: int = 1, octets: int = 100) -> None:
        """As if packets had reached the rules of this counter."""
        self._state.counters[name] += v.Count(packets, octets)

    def rules(self) -> Mapping[str, tuple[v.Rule, ...]]:
        return {name: tuple(rule.rule for rule in rules) for name, (_, rules) in self._state.chains.items()}

    def commit(self, operations: Sequence[op.Operation]) -> list[Refusal]:
        state = self._state.copy()
        refusals = []
        injected = {name: errors.pop(0) for name, errors in self.refuse.items() if errors}
        for operation in operations:
            try:
                number = (self.always_refuse | injected).get(named(operation))
                if number is not None:
                    raise _RefusedError(number)
                _run(state, operation)
            except _RefusedError as refused:
                refusals.append(Refusal(operation, refused.number, os.strerror(refused.number)))
        if not refusals and _loops(state):
            refusals.append(Refusal(None, errno.ELOOP, os.strerror(errno.ELOOP)))
        if not refusals:
            self._state = state
            self.commits.append(list(operations))
        return refusals


def named(operation: op.Operation) -> str:
    for attribute in ("chain", "set", "map", "name"):
        if hasattr(operation, attribute):
            return str(getattr(operation, attribute))
    return ""


def _need(condition: bool, number: int) -> None:
    if not condition:
        raise _RefusedError(number)


def _run(state: _State, operation: op.Operation) -> None:
    if isinstance(operation, op.CreateTable):
        state.exists = True
        return
    _need(state.exists, errno.ENOENT)
    match operation:
        case op.DeleteTable():
            state.__init__()  # type: ignore[misc]
        case op.CreateChain() | op.FlushChain() | op.AddRule() | op.DeleteChain():
            _run_chain(state, operation)
        case op.CreateSet(name, key):
            _need(name not in state.maps and state.sets.get(name, (key,))[0] is key, errno.EEXIST)
            state.sets.setdefault(name, (key, set()))
        case op.CreateMap(name):
            _need(name not in state.sets, errno.EEXIST)
            state.maps.setdefault(name, {})
        case op.DeleteSet(name):
            _need(name in state.sets or name in state.maps, errno.ENOENT)
            _need(not any(name in _chain(state, other).lookups() for other in state.chains), errno.EBUSY)
            state.sets.pop(name, None)
            state.maps.pop(name, None)
        case op.CreateCounter(name, start):
            state.counters.setdefault(name, start)
        case op.DeleteCounter(name):
            _need(name in state.counters, errno.ENOENT)
            _need(not any(name in _chain(state, other).counters() for other in state.chains), errno.EBUSY)
            del state.counters[name]
        case op.AddElements(name, key, keys):
            held = _set(state, name, key)
            _need(not (is_interval(key) and _overlap(held | set(keys))), errno.EEXIST)
            held |= set(keys)
        case op.RemoveElements(name, key, keys):
            held = _set(state, name, key)
            _need(held >= set(keys), errno.ENOENT)
            held -= set(keys)
        case op.AddEntries(name, entries):
            _need(name in state.maps, errno.ENOENT)
            for interface, verdict in entries.items():
                _target(state, verdict)
                _need(state.maps[name].get(interface, verdict) == verdict, errno.EBUSY)
                state.maps[name][interface] = verdict
        case op.RemoveEntries(name, interfaces):
            _need(name in state.maps, errno.ENOENT)
            for interface in interfaces:
                _need(interface in state.maps[name], errno.ENOENT)
                del state.maps[name][interface]


def _run_chain(state: _State, operation: op.CreateChain | op.FlushChain | op.AddRule | op.DeleteChain) -> None:
    match operation:
        case op.CreateChain(name, hook):
            _need(state.chains.get(name, (hook,))[0] == hook, errno.EEXIST)
            state.chains.setdefault(name, (hook, []))
        case op.FlushChain(name):
            _need(name in state.chains, errno.ENOENT)
            state.chains[name][1].clear()
        case op.AddRule(name, compiled):
            _need(name in state.chains, errno.ENOENT)
            _target(state, compiled.rule.statements[-1])
            one = v.Chain(name, (compiled.rule,))
            maps = {s.map for s in compiled.rule.statements if isinstance(s, v.InterfaceVerdict)}
            _need(maps <= state.maps.keys() and set(one.lookups()) - maps <= state.sets.keys(), errno.ENOENT)
            _need(one.counters() <= state.counters.keys(), errno.ENOENT)
            state.chains[name][1].append(compiled)
        case op.DeleteChain(name):
            _need(name in state.chains, errno.ENOENT)
            jumps = {target for other in state.chains for target in _chain(state, other).jumps()}
            entries = {_jump(verdict) for held in state.maps.values() for verdict in held.values()}
            _need(name not in jumps | entries, errno.EBUSY)
            del state.chains[name]


def _chain(state: _State, name: str) -> v.Chain:
    return v.Chain(name, tuple(rule.rule for rule in state.chains[name][1]))


def _set(state: _State, name: str, key: v.KeyType) -> set[bytes]:
    _need(name in state.sets, errno.ENOENT)
    _need(state.sets[name][0] is key, errno.EINVAL)
    return state.sets[name][1]


def _jump(statement: v.Statement) -> str | None:
    return statement.chain if isinstance(statement, (v.Jump, v.Goto)) else None


def _target(state: _State, statement: v.Statement) -> None:
    chain = _jump(statement)
    if chain is not None:
        _need(chain in state.chains, errno.ENOENT)
        _need(state.chains[chain][0] is None, errno.EOPNOTSUPP)


def _overlap(keys: set[bytes]) -> bool:
    halves = sorted((key[: len(key) // 2], key[len(key) // 2 :]) for key in keys)
    return any(later[0] <= earlier[1] for earlier, later in pairwise(halves))


def _loops(state: _State) -> bool:
    """Does a chain lead to itself? Only chains that packets can reach are checked by the kernel."""

    def targets(name: str) -> set[str]:
        found = set(_chain(state, name).jumps())
        for looked_up in _chain(state, name).lookups():
            entries = state.maps.get(looked_up, {}).values()
            found |= {target for verdict in entries if (target := _jump(verdict)) is not None}
        return found

    def visit(name: str, path: frozenset[str]) -> bool:
        return name in path or any(visit(target, path | {name}) for target in targets(name))

    return any(visit(name, frozenset()) for name, (hook, _) in state.chains.items() if hook is not None)
