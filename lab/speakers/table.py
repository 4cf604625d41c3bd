"""What sessions hold, as bits: thousands of sessions that hear the same thousands of prefixes share its reading.

Each prefix ever seen has a bit, a set of prefixes is an integer, and an UPDATE heard a second time, by whichever
session, costs one look into a dictionary. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lab.speakers import codec
from weft.model.address import IPNetwork

KEPT = 100_000
"""So many UPDATEs are remembered; then it begins anew."""


@dataclass(frozen=True, slots=True)
class Heard:
    """An UPDATE, in bits and in numbers of prefixes."""

    announced: int
    withdrawn: int
    announcements: int
    withdrawals: int

    @property
    def end_of_rib(self) -> bool:
        return not self.announcements and not self.withdrawals


class Table:
    def __init__(self) -> None:
        self._bits: dict[IPNetwork, int] = {}
        self._prefixes: list[IPNetwork] = []
        self.known: dict[bytes, Heard] = {}
        """Whole UPDATEs alone, each with its length: bytes that are in here are one."""

    def bits(self, prefixes: Iterable[IPNetwork]) -> int:
        found = 0
        for prefix in prefixes:
            found |= 1 << self._bit(prefix)
        return found

    def prefixes(self, bits: int) -> list[IPNetwork]:
        found = (prefix for number, prefix in enumerate(self._prefixes) if bits >> number & 1)
        return sorted(found, key=lambda prefix: (prefix.version, prefix))

    def heard(self, piece: bytes) -> Heard:
        """Of an UPDATE as `codec.split` gives it."""
        heard = self.known.get(piece)
        if heard is None:
            update = codec.read_update(piece[3:])
            heard = Heard(
                self.bits(update.announced), self.bits(update.withdrawn), len(update.announced), len(update.withdrawn)
            )
            if len(self.known) >= KEPT:
                self.known.clear()
            self.known[piece] = heard
        return heard

    def _bit(self, prefix: IPNetwork) -> int:
        number = self._bits.setdefault(prefix, len(self._prefixes))
        if number == len(self._prefixes):
            self._prefixes.append(prefix)
        return number
