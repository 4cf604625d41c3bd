"""From what should be and what is to the operations of one batch, in the only order that the kernel takes.

Pure. A batch is atomic, but the kernel checks each step: a chain must exist before a jump to it and have no jump
left when it goes, a map's entry must go before it comes back with another verdict, and a set may go only when no
rule looks into it. A counter is there before the first rule that counts in it, and goes after the last."""

from collections.abc import Iterable, Mapping

from felix.dataplane.nft_state import KernelChain
from felix.rules import operations as op
from felix.rules.compiler import compile_rule
from felix.rules.members import KeyChange
from felix.rules.values import Chain, Count, KeyType, Verdict
from felix.rules.writer import base_chain

_ZERO = Count()


class NeedsRewriteError(Exception):
    """An object would have to change its kind while others refer to it: write the whole table anew."""


class Batch:
    """Operations collected by kind. Each method takes one object as it should be and as it is."""

    def __init__(self) -> None:
        self._create_counters: list[op.Operation] = []
        self._create_sets: list[op.Operation] = []
        self._create_chains: list[op.Operation] = []
        self._flush: list[op.Operation] = []
        self._remove: list[op.Operation] = []
        self._add: list[op.Operation] = []
        self._rules: list[op.Operation] = []
        self._entries: list[op.Operation] = []
        self._delete_sets: list[op.Operation] = []
        self._delete_chains: list[op.Operation] = []
        self._delete_counters: list[op.Operation] = []
        self._keep_sums: list[op.Operation] = []

    def operations(self) -> list[op.Operation]:
        return [
            *self._create_counters,
            *self._create_sets,
            *self._create_chains,
            *self._flush,
            *self._remove,
            *self._add,
            *self._rules,
            *self._entries,
            *self._delete_sets,
            *self._delete_chains,
            *self._delete_counters,
            *self._keep_sums,
        ]

    def chain(self, name: str, desired: Chain | None, actual: KernelChain | None) -> KernelChain | None:
        """Returns what the kernel has once the batch is through."""
        if desired is None:
            if actual is not None:
                self._flush.append(op.FlushChain(name))
                self._delete_chains.append(op.DeleteChain(name))
            return None
        compiled = [compile_rule(rule) for rule in desired.rules]
        base = base_chain(desired.hook)
        after = KernelChain(base, tuple(rule.digest for rule in compiled))
        if actual == after:
            return after
        if actual is None:
            self._create_chains.append(op.CreateChain(name, desired.hook))
        elif actual.base == base:
            self._flush.append(op.FlushChain(name))
        elif actual.base is None or base is None:
            raise NeedsRewriteError(name)
        else:  # nothing can jump to a base chain, so it can go and come back
            self._create_chains += [op.FlushChain(name), op.DeleteChain(name), op.CreateChain(name, desired.hook)]
        self._rules += [op.AddRule(name, rule) for rule in compiled]
        return after

    def create_set(self, name: str, key: KeyType, keys: Iterable[bytes]) -> None:
        self._create_sets.append(op.CreateSet(name, key))
        self.change_set(name, key, KeyChange(set(keys), set()))

    def change_set(self, name: str, key: KeyType, change: KeyChange) -> None:
        if change.remove:
            self._remove.append(op.RemoveElements(name, key, change.remove))
        if change.add:
            self._add.append(op.AddElements(name, key, change.add))

    def create_map(self, name: str) -> None:
        self._create_sets.append(op.CreateMap(name))

    def change_map(
        self, name: str, desired: Mapping[str, Verdict | None], actual: Mapping[str, Verdict | None]
    ) -> None:
        """Entries by interface; None is one that should not be, or that is not there. Both have the same keys."""
        changed = {interface for interface, verdict in desired.items() if verdict != actual[interface]}
        gone = [interface for interface in changed if actual[interface] is not None]
        come = {interface: verdict for interface in changed if (verdict := desired[interface]) is not None}
        if gone:
            self._remove.append(op.RemoveEntries(name, gone))
        if come:
            self._entries.append(op.AddEntries(name, come))

    def delete_set(self, name: str, *, is_map: bool) -> None:
        self._delete_sets.append(op.DeleteSet(name, is_map))

    def create_counter(self, name: str, start: Count = _ZERO) -> None:
        self._create_counters.append(op.CreateCounter(name, start))

    def delete_counter(self, name: str) -> None:
        self._delete_counters.append(op.DeleteCounter(name))

    def keep_sum(self, name: str, total: Count) -> None:
        """A counter that holds a number; one of the name that is there has to be deleted, too."""
        self._keep_sums.append(op.CreateCounter(name, total))
