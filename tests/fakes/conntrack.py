"""A table of connections in memory, as `ConntrackSocket` shows the kernel's."""

from collections.abc import Iterator, Sequence

from felix.dataplane.connections import Sieve
from felix.rules.render_names import CUT_CONNECTION
from tests.fakes.conntrack_entries import as_dumped
from weft.netlink import conntrack as ct
from weft.netlink.conntrack import Sighting, Tuple, read_chunk


class FakeConnectionTable:
    """`entries`: original direction -> [reply, mark, master]. One entry a chunk. `fail_with` is raised, once each, at
    the end of a scan; `refuse_marks` by `mark`."""

    def __init__(self) -> None:
        self.entries: dict[Tuple, tuple[Tuple, int, Tuple | None]] = {}
        self.examined: list[Tuple] = []
        self.sieves: list[Sieve] = []
        self.fail_with: list[Exception] = []
        self.refuse_marks: list[OSError] = []

    def add(self, pair: tuple[Tuple, Tuple], mark: int = 0, master: Tuple | None = None) -> Tuple:
        original, reply = pair
        self.entries[original] = (reply, mark, master)
        return original

    def cut(self) -> set[Tuple]:
        return {original for original, (_, mark, _) in self.entries.items() if mark & CUT_CONNECTION}

    def sightings(self, sieve: Sieve) -> Iterator[list[Sighting]]:
        self.sieves.append(sieve)
        for original in list(self.entries):
            found = self._sighting(original, sieve)
            if found:
                self.examined.append(original)
            yield found
        if self.fail_with:
            raise self.fail_with.pop()

    def _sighting(self, original: Tuple, sieve: Sieve | None) -> list[Sighting]:
        reply, mark, master = self.entries[original]
        wants = sieve.wants() if sieve is not None else lambda *_: True
        return read_chunk(as_dumped(original, reply, mark=mark, master=master), 1, wants).sightings

    def original(self, wanted: Tuple) -> Sighting | None:
        return self._sighting(wanted, None)[0] if wanted in self.entries else None

    def mark(self, sightings: Sequence[Sighting], cut: bool) -> None:
        if self.refuse_marks:
            raise self.refuse_marks.pop()
        names = {ct.encode_tuple(ct.TUPLE_ORIGINAL, original): original for original in self.entries}
        for one in sightings:
            original = names.get(one.name)
            if original is None:
                continue
            reply, mark, master = self.entries[original]
            self.entries[original] = (reply, mark & ~CUT_CONNECTION | (CUT_CONNECTION if cut else 0), master)
