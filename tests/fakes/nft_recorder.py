"""An empty kernel that takes every batch and keeps it as text."""

from collections.abc import Collection, Mapping, Sequence

from felix.dataplane.nft_state import KernelTable, Refusal
from felix.rules import text
from felix.rules.operations import Operation
from felix.rules.values import Count


class NftRecorder:
    def __init__(self) -> None:
        self.scripts: list[str] = []

    def read(self) -> KernelTable:
        return KernelTable()

    def commit(self, operations: Sequence[Operation]) -> list[Refusal]:
        self.scripts.append(text.script(operations))
        return []

    def counts(self, names: Collection[str]) -> Mapping[str, Count]:
        return {}
