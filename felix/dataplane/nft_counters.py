"""Which named counters there should be, which the kernel has, and what becomes of what the retired ones counted.

A counter is there as long as a chain wants it. What it has counted by the time it goes is added to a counter that
nothing counts in, one for all of the same beginning (`retired_counter`), which stays as long as one of these is there:
so the sum over all of them never loses anything, over the end of this process either. Pure."""

from collections.abc import Callable, Iterable, Mapping

from felix.dataplane.nft_plan import Batch
from felix.rules.render_names import retired_counter
from felix.rules.values import Chain, Count

_NOTHING = Count()


class Counters:
    def __init__(self) -> None:
        self._users: dict[str, int] = {}  # counter -> how many chains want it
        self._families: dict[str, int] = {}  # name of a sum -> how many counters it is for
        self._held: set[str] = set()
        self._touched: set[str] = set()

    # --- desired ------------------------------------------------------------------------------------------------

    def restart(self, chains: Iterable[Chain]) -> None:
        """These chains, and nothing else, are desired."""
        self._users.clear()
        self._families.clear()
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
            family = retired_counter(name)
            self._families[family] = self._families.get(family, 0) + 1

    def _leave(self, name: str) -> None:
        self._touched.add(name)
        self._users[name] -= 1
        if self._users[name]:
            return
        del self._users[name]
        family = retired_counter(name)
        self._families[family] -= 1
        if not self._families[family]:
            del self._families[family]
            self._touched.add(family)

    # --- planning -----------------------------------------------------------------------------------------------

    def hold(self, names: Iterable[str]) -> None:
        """These are in the kernel, as a fresh read says; everything is to be compared."""
        self._held = set(names)
        self._touched = {*self._held, *self._users}

    def must_know(self) -> set[str]:
        """Whose counts `plan` needs: of those that go, and of the sums that they are added to."""
        gone = self._gone() - self._families.keys()
        return gone | {family for name in gone if (family := retired_counter(name)) in self._held}

    def _gone(self) -> set[str]:
        return {one for one in self._touched & self._held if one not in self._users and one not in self._families}

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
        for family, total in sums.items():
            if family in self._held:
                batch.delete_counter(family)
            batch.keep_sum(family, total)

        def adopt() -> None:
            self._held = (self._held - gone) | come | sums.keys()
            self._touched.clear()

        return adopt

    def plan_anew(self, batch: Batch, counts: Mapping[str, Count], blocked: Mapping[str, str]) -> Callable[[], None]:
        """As `plan`, where the table is written from nothing: the counters go on from what they were."""
        come = {one for one in self._users if f"counter {one}" not in blocked}
        for name in come:
            batch.create_counter(name, counts.get(name, _NOTHING))
        gone = {one for one in counts if one not in self._users and one not in self._families}
        sums = {family: counts[family] for family in self._families if family in counts}
        sums |= self._sums(gone, counts)
        for family, total in sums.items():
            batch.keep_sum(family, total)

        def adopt() -> None:
            self._held = {*come, *sums}
            self._touched.clear()

        return adopt

    def _sums(self, gone: Iterable[str], counts: Mapping[str, Count]) -> dict[str, Count]:
        """The new sums of families that stay and to which something is added."""
        sums: dict[str, Count] = {}
        for name in gone:
            family, counted = retired_counter(name), counts.get(name, _NOTHING)
            if counted and family in self._families:
                sums[family] = sums.get(family, counts.get(family, _NOTHING)) + counted
        return sums
