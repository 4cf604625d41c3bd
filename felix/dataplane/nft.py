"""Keep the table `inet weft` equal to what is desired, one atomic batch per change.

The table is ours altogether: what is in it and not desired is removed; no other table is touched, and nothing is
written before the kernel has been read. A change costs what it changes. After a refusal, or when somebody else
changed the table, the kernel is read again and only the difference is written. A chain or set that the kernel keeps
refusing is replaced by one that lets no workload through (`fail_closed`), so that its neighbours are still right;
it is reported and tried again.

The driver does no waiting and reads no clock: callers pass the time (monotonic seconds) and call `on_tick` when
`retry_at_s` has come."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from msgspec import Struct, field

from felix.dataplane.nft_blame import culprits, parts_behind
from felix.dataplane.nft_counters import Counters
from felix.dataplane.nft_plan import Batch, NeedsRewriteError
from felix.dataplane.nft_stand_ins import fail_closed, without_counters
from felix.dataplane.nft_state import KernelChain, KernelSet, KernelTable, NftKernel, Refusal
from felix.rules import operations as op
from felix.rules import values as v
from felix.rules.changes import Changes
from felix.rules.members import KeyChange, Members, members_of
from weft.netlink.socket import DumpInterruptedError

_ATTEMPTS = 6
_FIRST_BACK_OFF_S, _LAST_BACK_OFF_S = 0.5, 60.0
_FOREIGN_QUIET_S = 5.0
_NO_CHANGE = KeyChange(set(), set())

_Name = TypeVar("_Name")
_Value = TypeVar("_Value")


class Report(Struct, frozen=True):
    """`in_kernel`: all of the desired state is there, except `failed`: name of chain, set or map entry -> why.
    `operations` is how many it took."""

    in_kernel: bool
    failed: Mapping[str, str]
    operations: int = 0


class _Set:
    """A desired set with its members, and the change that the kernel does not know of yet."""

    def __init__(self, value: v.Set) -> None:
        self.key = value.key
        self.members: Members = members_of(value.key, value.members)


class _Touched(Struct):
    """Names that the next batch looks at, in order; for sets with what changes in them."""

    chains: dict[str, None] = field(default_factory=dict)
    sets: dict[str, KeyChange] = field(default_factory=dict)
    maps: dict[str, set[str]] = field(default_factory=dict)


class NftDriver:
    def __init__(self, kernel: NftKernel, fail_closed: Callable[[v.Chain], v.Chain] = fail_closed) -> None:
        self._kernel = kernel
        self._fail_closed = fail_closed
        self._chains: dict[str, v.Chain] = {}
        self._sets: dict[str, _Set] = {}
        self._maps: dict[str, dict[str, v.Verdict]] = {}
        # What the kernel holds, as far as we know; only trusted while _synchronised.
        self._held_chains: dict[str, KernelChain] = {}
        self._held_sets: dict[str, v.KeyType] = {}
        self._held_maps: dict[str, dict[str, v.Verdict]] = {}
        self._counters = Counters()
        self._synchronised = False
        self._started = False
        self._refused = False
        self._blocked: dict[str, str] = {}
        self._last_problem = "not programmed yet"
        self._back_off_s = _FIRST_BACK_OFF_S
        self._last_foreign_s = float("-inf")
        self.retry_at_s: float | None = None

    # --- inputs -----------------------------------------------------------------------------------------------

    def start(self, desired: v.Table, now_s: float) -> Report:
        """Take over whatever the kernel holds and change what differs."""
        self._chains = dict(desired.chains)
        self._sets = {name: _Set(value) for name, value in desired.sets.items()}
        self._maps = {name: dict(value.entries) for name, value in desired.maps.items()}
        self._counters.restart(self._chains.values())
        self._started = True
        self._blocked.clear()
        return self._synchronise(now_s)

    def apply(self, changes: Changes, now_s: float) -> Report:
        """Make the desired state the changed one, in the kernel too. Not before `start`."""
        assert self._started, "apply before start: nothing may be written before the whole state is known"
        touched = self._desire(changes)
        if not self._synchronised:
            if self._refused and self.retry_at_s is not None and now_s < self.retry_at_s:
                return self._report(0)
            return self._synchronise(now_s)
        batch = Batch()
        try:
            adopt = self._plan(batch, touched)
            adopt_counters = self._counters.plan(batch, self._counts_that_go(), self._blocked)
        except (NeedsRewriteError, OSError):
            return self._synchronise(now_s)
        operations = batch.operations()
        if operations and self._kernel.commit(operations):
            return self._synchronise(now_s)
        adopt()
        adopt_counters()
        return self._report(len(operations))

    def _counts_that_go(self) -> Mapping[str, v.Count]:
        names = self._counters.must_know()
        return self._kernel.counts(names) if names else {}

    def on_foreign_change(self, now_s: float) -> Report:
        """Somebody else touched the table, or may have. Repairs at once; against one who keeps on doing it,
        with back-off."""
        often = now_s - self._last_foreign_s < _FOREIGN_QUIET_S
        self._last_foreign_s = now_s
        self._synchronised = False
        if not self._started:
            return self._report(0)
        if often:
            if self.retry_at_s is None:
                self._retry_later(now_s)
            return self._report(0)
        return self._synchronise(now_s)

    def on_tick(self, now_s: float) -> Report:
        """Try again what is due: everything that was refused."""
        if self._started and self.retry_at_s is not None and now_s >= self.retry_at_s:
            self._blocked.clear()
            return self._synchronise(now_s)
        return self._report(0)

    def problems_of(self, interface: str) -> list[str]:
        """Why what is programmed for an interface is not what is desired; empty if it is."""
        if not self._synchronised:
            return [self._last_problem or "changed by somebody else"]
        if not self._blocked:
            return []
        parts = parts_behind(interface, self._chains, self._maps)
        return [f"{name}: {self._blocked[name]}" for name in parts if name in self._blocked]

    def sizes(self) -> tuple[int, int]:
        """How many sets there should be, and how many members they have together."""
        return len(self._sets), sum(len(one.members) for one in self._sets.values())

    # --- desired ----------------------------------------------------------------------------------------------

    def _desire(self, changes: Changes) -> _Touched:
        touched = _Touched()
        for name, value in changes.sets.items():
            touched.sets[name] = self._desire_set(name, value)
        for name, new_map in changes.maps.items():
            before = self._maps.pop(name, {})
            if new_map is not None:
                self._maps[name] = dict(new_map.entries)
            touched.maps.setdefault(name, set()).update(before, self._maps.get(name, ()))
        for name, change in changes.members.items():
            delta = self._sets[name].members.change(change.added, change.removed)
            touched.sets[name] = _merged(touched.sets.get(name, _NO_CHANGE), delta)
        for name, entries in changes.entries.items():
            for interface, verdict in entries.items():
                _put(self._maps[name], interface, verdict)
                self._blocked.pop(f"entry {interface} of {name}", None)
            touched.maps.setdefault(name, set()).update(entries)
        for name, chain in changes.chains.items():
            self._counters.replace(self._chains.get(name), chain)
            if chain is None:
                self._chains.pop(name, None)
            else:
                self._chains[name] = chain
            self._blocked.pop(name, None)
            touched.chains[name] = None
        return touched

    def _desire_set(self, name: str, value: v.Set | None) -> KeyChange:
        before = self._sets.pop(name, None)
        old = before.members.keys() if before is not None else set()
        if value is None:
            self._blocked.pop(f"set {name}", None)
            return _NO_CHANGE
        self._sets[name] = _Set(value)
        new = self._sets[name].members.keys()
        if before is not None and before.key is not value.key:
            return KeyChange(new, set())
        return KeyChange(new - old, old - new)

    # --- planning ---------------------------------------------------------------------------------------------

    def _plan(self, batch: Batch, touched: _Touched) -> Callable[[], None]:
        """Fill the batch; the returned function notes what the kernel holds once it is through."""
        chains: dict[str, KernelChain | None] = {}
        for name in touched.chains:
            chains[name] = batch.chain(name, self._wanted_chain(name), self._held_chains.get(name))
        for name, change in touched.sets.items():
            self._plan_set(batch, name, change)
        maps = {name: self._plan_map(batch, name, interfaces) for name, interfaces in touched.maps.items()}

        def adopt() -> None:
            for name, chain in chains.items():
                _put(self._held_chains, name, chain)
            for name in touched.sets:
                desired = self._sets.get(name)
                _put(self._held_sets, name, None if desired is None else desired.key)
            for name, entries in maps.items():
                if name not in self._maps:
                    self._held_maps.pop(name, None)
                    continue
                held = self._held_maps.setdefault(name, {})
                for interface, verdict in entries.items():
                    _put(held, interface, verdict)

        return adopt

    def _wanted_chain(self, name: str) -> v.Chain | None:
        chain = self._chains.get(name)
        if chain is None or not self._blocked:
            return chain
        chain = without_counters(chain, self._blocked)
        if name in self._blocked or any(f"set {looked_up}" in self._blocked for looked_up in chain.lookups()):
            return self._fail_closed(chain)
        return chain

    def _plan_set(self, batch: Batch, name: str, change: KeyChange) -> None:
        desired, held = self._sets.get(name), self._held_sets.get(name)
        if desired is None:
            if held is not None:
                batch.delete_set(name, is_map=False)
        elif held is None:
            batch.create_set(name, desired.key, () if f"set {name}" in self._blocked else desired.members.keys())
        elif held is not desired.key or name in self._maps:
            raise NeedsRewriteError(name)
        elif f"set {name}" not in self._blocked:
            batch.change_set(name, desired.key, change)

    def _plan_map(self, batch: Batch, name: str, interfaces: Iterable[str]) -> dict[str, v.Verdict | None]:
        desired, held = self._maps.get(name), self._held_maps.get(name)
        if desired is None:
            if held is not None:
                batch.delete_set(name, is_map=True)
            return {}
        if held is None:
            batch.create_map(name)
            held, interfaces = {}, desired
        wanted = {interface: self._wanted_entry(name, interface) for interface in interfaces}
        batch.change_map(name, wanted, {interface: held.get(interface) for interface in wanted})
        return wanted

    def _wanted_entry(self, name: str, interface: str) -> v.Verdict | None:
        if f"entry {interface} of {name}" in self._blocked:
            return v.Drop()
        return self._maps[name].get(interface)

    # --- from a fresh read ------------------------------------------------------------------------------------

    def _synchronise(self, now_s: float) -> Report:
        self._synchronised = False
        operations: list[op.Operation] = []
        for attempt in range(_ATTEMPTS):
            try:
                actual = self._kernel.read()
            except (OSError, DumpInterruptedError) as error:
                self._last_problem = f"cannot read the table: {error!r}"
                continue
            operations, adopt = self._difference(actual)
            refusals = self._kernel.commit(operations) if operations else []
            if not refusals:
                adopt()
                self._synchronised, self._refused, self._last_problem = True, False, ""
                self._settle(now_s)
                return self._report(len(operations))
            self._last_problem = refusals[0].text
            if attempt:  # refused from a fresh read, twice: it will not get better by itself
                self._block(refusals)
        self._refused = True
        self._retry_later(now_s)
        return self._report(0)

    def _difference(self, actual: KernelTable) -> tuple[list[op.Operation], Callable[[], None]]:
        if not self._kinds_clash(actual):
            try:
                return self._difference_to(actual)
            except NeedsRewriteError:
                pass  # the next lines do
        operations, adopt = self._difference_to(KernelTable(exists=True, counters=actual.counters), anew=True)
        return [op.CreateTable(), op.DeleteTable(), op.CreateTable(), *operations], adopt

    def _kinds_clash(self, actual: KernelTable) -> bool:
        """Is a set where a map should be, or the other way round, or a set of a kind that cannot become ours?"""
        foreign = {name for name, found in actual.sets.items() if found.key is None}
        return not (
            foreign.isdisjoint(self._sets)
            and self._maps.keys().isdisjoint(actual.sets)
            and self._sets.keys().isdisjoint(actual.maps)
        )

    def _difference_to(
        self, actual: KernelTable, *, anew: bool = False
    ) -> tuple[list[op.Operation], Callable[[], None]]:
        """`anew`: of the table as it is only what the counters have counted is kept."""
        batch = Batch()
        self._held_chains = dict(actual.chains)
        self._held_sets = {name: found.key for name, found in actual.sets.items() if found.key is not None}
        self._held_maps = {name: dict(entries) for name, entries in actual.maps.items()}
        for name, found in actual.sets.items():
            if found.key is None:
                batch.delete_set(name, is_map=found.is_map)
        touched = _Touched(chains=dict.fromkeys([*self._chains, *actual.chains]))
        for name in dict.fromkeys([*self._sets, *self._held_sets]):
            touched.sets[name] = self._set_difference(name, actual.sets.get(name))
        for name in dict.fromkeys([*self._maps, *self._held_maps]):
            touched.maps[name] = self._maps.get(name, {}).keys() | self._held_maps.get(name, {}).keys()
        adopt_others = self._plan(batch, touched)
        self._counters.hold(actual.counters)
        plan_counters = self._counters.plan_anew if anew else self._counters.plan
        adopt_counters = plan_counters(batch, actual.counters, self._blocked)

        def adopt() -> None:
            adopt_others()
            adopt_counters()

        operations = batch.operations()
        return operations if actual.exists else [op.CreateTable(), *operations], adopt

    def _set_difference(self, name: str, found: KernelSet | None) -> KeyChange:
        desired = self._sets.get(name)
        if desired is None or found is None:
            return _NO_CHANGE
        keys = set() if f"set {name}" in self._blocked else desired.members.keys()
        return KeyChange(keys - found.keys, set(found.keys - keys))

    # --- failures ---------------------------------------------------------------------------------------------

    def _block(self, refusals: Iterable[Refusal]) -> None:
        """Put aside what the kernel objected to first, and whatever it objected to for the same reason."""
        first = next(iter(refusals))
        for refusal in refusals:
            if refusal.errno == first.errno:
                for name in culprits(refusal.operation, self._chains, self._maps):
                    self._blocked[name] = refusal.text

    def _settle(self, now_s: float) -> None:
        if self._blocked:
            self._retry_later(now_s)
        else:
            self.retry_at_s = None
            if now_s - self._last_foreign_s >= _FOREIGN_QUIET_S:
                self._back_off_s = _FIRST_BACK_OFF_S

    def _retry_later(self, now_s: float) -> None:
        self.retry_at_s = now_s + self._back_off_s
        self._back_off_s = min(self._back_off_s * 2, _LAST_BACK_OFF_S)

    def _report(self, operations: int) -> Report:
        if self._synchronised:
            return Report(True, dict(self._blocked), operations)
        return Report(False, {**self._blocked, "table": self._last_problem or "changed by somebody else"}, operations)


def _put(mapping: dict[_Name, _Value], key: _Name, value: _Value | None) -> None:
    if value is None:
        mapping.pop(key, None)
    else:
        mapping[key] = value


def _merged(first: KeyChange, second: KeyChange) -> KeyChange:
    """Two changes in a row as one."""
    add = (first.add - second.remove) | (second.add - first.remove)
    remove = (first.remove - second.add) | (second.remove - first.add)
    return KeyChange(add, remove)
