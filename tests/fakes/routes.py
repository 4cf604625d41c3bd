"""A kernel's routing table for `RouteTable`: refuses as the real one does, and takes injected failures by prefix."""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from weft.netlink.route import PackedPrefix, Route, RouteOwner, Target, pack, unpack
from weft.netlink.routetable import RouteChanges, RouteRefusal


@dataclass
class FakeRouteKernel:
    """`table` holds everybody's routes of the owner's metric, one for each prefix, as the kernel's replace sees them.

    refuse: prefix -> errno for every write to it. missing_links: routes through these are refused. unreadable: the
    next so many reads fail."""

    owner: RouteOwner
    table: dict[PackedPrefix, tuple[int, Target]] = field(default_factory=dict)
    refuse: dict[PackedPrefix, int] = field(default_factory=dict)
    missing_links: set[int] = field(default_factory=set)
    unreadable: int = 0
    reads: int = 0
    writes: list[RouteChanges] = field(default_factory=list)

    def read(self) -> dict[PackedPrefix, Target]:
        self.reads += 1
        if self.unreadable:
            self.unreadable -= 1
            raise OSError(errno.ENOBUFS, "injected")
        return self._ours()

    def look_up(self, prefixes: Sequence[PackedPrefix]) -> dict[PackedPrefix, Target]:
        """As the kernel's: a longer prefix in front of ours hides it."""
        ours = self._ours()
        networks = [unpack(packed) for packed in self.table]
        first = {packed: unpack(packed).network_address for packed in prefixes}
        return {
            packed: ours[packed]
            for packed in prefixes
            if packed in ours
            and not any(
                network.prefixlen > packed[-1] and network.version == first[packed].version and first[packed] in network
                for network in networks
            )
        }

    def _ours(self) -> dict[PackedPrefix, Target]:
        return {packed: target for packed, (protocol, target) in self.table.items() if protocol == self.owner.protocol}

    def apply(self, changes: RouteChanges) -> list[RouteRefusal]:
        self.writes.append(changes)
        refused: list[RouteRefusal] = []
        for packed in changes.delete:
            if error := self.refuse.get(packed):
                refused.append(_refusal(packed, error))
            elif packed in self.table and self.table[packed][0] == self.owner.protocol:
                del self.table[packed]
        for packed, target in (*changes.replace.items(), *changes.create.items()):
            error = self.refuse.get(packed, 0)
            if any(hop.link in self.missing_links for hop in target.hops):
                error = errno.ENODEV
            if packed in changes.create and packed in self.table:
                error = errno.EEXIST
            if error:
                refused.append(_refusal(packed, error))
            else:
                self.table[packed] = (self.owner.protocol, target)
        return refused

    def link_down(self, link: int) -> None:
        """As the kernel does: routes of the link go, and nobody is told."""
        self.missing_links.add(link)
        for packed, (_, target) in list(self.table.items()):
            if any(hop.link == link for hop in target.hops):
                del self.table[packed]

    def somebody_else_writes(self, route: Route) -> None:
        """A replace: it overwrites, whoever's route it was."""
        self.table[pack(route.destination)] = (route.protocol, route.target)

    def ours(self) -> dict[str, Target]:
        mine = self.owner.protocol
        return {str(unpack(packed)): target for packed, (protocol, target) in self.table.items() if protocol == mine}


def _refusal(packed: PackedPrefix, error: int) -> RouteRefusal:
    return RouteRefusal(packed, error, os.strerror(error))
