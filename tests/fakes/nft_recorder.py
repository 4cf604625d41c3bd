"""An empty kernel that takes every batch and keeps it as text."""

from collections.abc import Sequence

from felix.dataplane.nft_state import KernelTable, Refusal
from felix.rules import text
from felix.rules.operations import Operation


class NftRecorder:
    def __init__(self) -> None:
        self.scripts: list[str] = []

    def read(self) -> KernelTable:
        return KernelTable()

    def commit(self, operations: Sequence[Operation]) -> list[Refusal]:
        self.scripts.append(text.script(operations))
        return []
