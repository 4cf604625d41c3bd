"""Which named counters there should be, which the kernel has, and what becomes of what the retired ones counted.

A counter is there as long as a chain wants it. What it has counted by the time it goes is added to a counter that
nothing counts in (`retired_counter`), which stays as long as any counter of its group, a policy and direction, is
there: so the sum over a group never loses anything, over the end of this process either. Pure."""

from collections.abc import Callable, Iterable, Mapping

from felix.dataplane.nft_plan import Batch
from felix.rules.render_names import group_of, is_retired_counter, retired_counter, retired_counters
from felix.rules.values import Chain, Count

_NOTHING = Count()


class Counters:
    def __init__(self) -> None:
        self._users: dict[str, int] = {}  # counter -> how many chains want it
        self._groups: dict[str, int] = {}  # group -> how many of its counters are wanted
        self._held: set[str] = set()
        self._touched: set[str] = set()

    # --- desired ------------------------------------------------------------------------------------------------

    def restart(self, chains: Iterable[Chain]) -> None:
        """These chains, and nothing else, are desired."""
        self._users.clear()
        self._groups.clear()
        for chain in chains:
            self.replace(None, chain)

    def replace(self, before: Chain | None, after: Chain | None) -> None:
        """A chain becomes another, comes (None before) or goes (None after)."""
        old = before.counters() if before is not None else set()
        new = after.counters() if after is not None else set()
        for name in new - old:
            self._want(name)
        for name in old - new:
            self._leave(name)

    def _want(self, name: str) -> None:
        self._touched.add(name)
        users = self._users.get(name, 0)
        self._users[name] = users + 1
        if not users:
            group = group_of(name)
            self._groups[group] = self._groups.get(group, 0) + 1

    def _leave(self, name: str) -> None:
        self._touched.add(name)
        self._users[name] -= 1
        if self._users[name]:
            return
        del self._users[name]
        group = group_of(name)
        self._groups[group] -= 1
        if not self._groups[group]:
            del self._groups[group]
            self._touched.update(retired_counters(group))

    # --- planning -----------------------------------------------------------------------------------------------

    def hold(self, names: Iterable[str]) -> None:
        """These are in the kernel, as a fresh read says; everything is to be compared."""
        self._held = set(names)
        self._touched = {*self._held, *self._users}

    def must_know(self) -> set[str]:
        """Whose counts `plan` needs: of those that go, and of the sums that they are added to."""
        gone = {name for name in self._gone() if group_of(name) in self._groups}
        return gone | {total for name in gone if (total := retired_counter(name)) in self._held}

    def _gone(self) -> set[str]:
        return {name for name in self._touched & self._held if not self._stays(name)}

    def _stays(self, name: str) -> bool:
        return name in self._users or (is_retired_counter(name) and group_of(name) in self._groups)

    def plan(self, batch: Batch, counts: Mapping[str, Count], blocked: Mapping[str, str]) -> Callable[[], None]:
        """Fill the batch; the returned function notes what the kernel holds once it is through."""
        come = {one for one in self._touched if one in self._users and one not in self._held}
        come -= {one for one in come if f"counter {one}" in blocked}
        gone = self._gone()
        for name in come:
            batch.create_counter(name)
        for name in gone:
            batch.delete_counter(name)
        sums = self._sums(gone, counts)
        for name, total in sums.items():
            if name in self._held:
                batch.delete_counter(name)
            batch.keep_sum(name, total)

        def adopt() -> None:
            self._held = (self._held - gone) | come | sums.keys()
            self._touched.clear()

        return adopt

    def plan_anew(self, batch: Batch, counts: Mapping[str, Count], blocked: Mapping[str, str]) -> Callable[[], None]:
        """As `plan`, where the table is written from nothing: the counters go on from what they were."""
        come = {one for one in self._users if f"counter {one}" not in blocked}
        for name in come:
            batch.create_counter(name, counts.get(name, _NOTHING))
        sums = {name: held for name, held in counts.items() if self._stays(name) and name not in self._users}
        sums |= self._sums((name for name in counts if not self._stays(name)), counts)
        for name, total in sums.items():
            batch.keep_sum(name, total)

        def adopt() -> None:
            self._held = {*come, *sums}
            self._touched.clear()

        return adopt

    def _sums(self, gone: Iterable[str], counts: Mapping[str, Count]) -> dict[str, Count]:
        """The new sums of groups that stay and to which something is added."""
        sums: dict[str, Count] = {}
        for name in gone:
            counted = counts.get(name, _NOTHING)
            if counted and not is_retired_counter(name) and group_of(name) in self._groups:
                total = retired_counter(name)
                sums[total] = sums.get(total, counts.get(total, _NOTHING)) + counted
        return sums
