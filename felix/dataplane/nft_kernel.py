"""The real kernel behind the nft driver: reads our table, sends batches, hears of other people's changes.

The edge: no decision is taken here. Only our table is read; other tables are skipped by name."""

import errno
from collections.abc import Collection, Iterable, Sequence

from felix.dataplane.nft_state import KernelChain, KernelSet, KernelTable, Refusal
from felix.rules.compiler import LAYOUTS, MAP_LAYOUT, intervals_of, verdict_of
from felix.rules.members import is_interval
from felix.rules.operations import Operation
from felix.rules.render_names import COUNTERS
from felix.rules.values import Count, KeyType, Verdict
from felix.rules.writer import TABLE, rule_digest, write
from weft.netlink import nftables as nft
from weft.netlink.message import read_string
from weft.netlink.socket import NETLINK_NETFILTER, NetlinkSocket, ResyncNeededError

# One batch is one sendmsg: the whole table of a large node must fit.
_BUFFER_BYTES = 256 << 20
_MOST_SINGLE_READS = 200
_KEY_TYPES = {layout: key for key, layout in LAYOUTS.items()}
_RULE_USERDATA, _CHAIN_NAME, _SET_NAME = 7, 3, 2


class NftSocket:
    """The port `NftKernel` on a netlink socket of this network namespace, or of `netns_fd`."""

    def __init__(self, netns_fd: int | None = None, table: str = TABLE) -> None:
        self._socket = NetlinkSocket(NETLINK_NETFILTER, netns_fd=netns_fd, buffer_bytes=_BUFFER_BYTES)
        self._table = table
        self._messages = nft.TableMessages(table)

    @property
    def port(self) -> int:
        """Tells our own changes from others' in notifications."""
        return self._socket.port

    def close(self) -> None:
        self._socket.close()

    def commit(self, operations: Sequence[Operation]) -> list[Refusal]:
        written = write(operations, self._table)
        try:
            failures = self._socket.exchange(written.messages, final=-2, fatal=0).failures
        except OSError as error:
            return [Refusal(None, error.errno or errno.EIO, str(error))]
        return [Refusal(written.origins[one.index], one.errno, one.text) for one in failures]

    def read(self) -> KernelTable:
        if not self._ours(nft.get_tables()):
            return KernelTable()
        chains: dict[str, KernelChain] = {}
        for found in self._ours(nft.get_chains()):
            name = read_string(found.attributes[_CHAIN_NAME])
            chains[name] = KernelChain(nft.base_chain(found), self._digests(name))
        sets: dict[str, KernelSet] = {}
        maps: dict[str, dict[str, Verdict]] = {}
        for found in self._ours(nft.get_sets(self._table)):
            name, layout = read_string(found.attributes[_SET_NAME]), nft.set_layout(found)
            if layout.flags & nft.SET_ANONYMOUS:
                continue
            entries = self._entries(name) if layout == MAP_LAYOUT else None
            if entries is None:
                sets[name] = self._set(name, _KEY_TYPES.get(layout), layout)
            else:
                maps[name] = entries
        return KernelTable(True, chains, sets, maps, self.all_counts())

    def all_counts(self) -> dict[str, Count]:
        """What all our counters hold. Raises OSError, DumpInterruptedError."""
        return _counts(self._ours(self._messages.get_counters()))

    def counts(self, names: Collection[str]) -> dict[str, Count]:
        if len(names) > _MOST_SINGLE_READS:
            held = self.all_counts()
            return {name: held[name] for name in names if name in held}
        # The last message is acknowledged; one that asks for a counter that is gone is refused and has no answer.
        answers = self._socket.exchange([self._messages.get_counter(name) for name in names])
        return _counts(filter(None, map(nft.table_object, answers.replies)))

    def _digests(self, chain: str) -> tuple[bytes, ...]:
        rules = self._ours(nft.get_rules(self._table, chain))
        return tuple(rule_digest(rule.attributes.get(_RULE_USERDATA, b"")) for rule in rules)

    def _set(self, name: str, key: KeyType | None, layout: nft.SetLayout) -> KernelSet:
        if key is None:
            return KernelSet(None, frozenset(), layout.is_verdict_map)
        found = self._elements(name)
        if is_interval(key):
            return KernelSet(key, frozenset(intervals_of(found, layout.key_length)))
        return KernelSet(key, frozenset(one.key for one in found))

    def _entries(self, name: str) -> dict[str, Verdict] | None:
        """None if one of them is of a kind that we never write."""
        found: dict[str, Verdict] = {}
        for one in self._elements(name):
            verdict = verdict_of(one.code, one.chain)
            if verdict is None:
                return None
            found[read_string(one.key)] = verdict
        return found

    def _elements(self, name: str) -> list[nft.Element]:
        parts = self._ours(nft.get_elements(self._table, name))
        return [element for part in parts for element in nft.elements(part)]

    def _ours(self, request: bytes) -> list[nft.TableObject]:
        return [
            found
            for answer in self._socket.dump(request)
            if (found := nft.table_object(answer)) is not None
            and found.table == self._table
            and found.family == nft.FAMILY_INET
        ]


def _counts(found: Iterable[nft.TableObject]) -> dict[str, Count]:
    values = filter(None, map(nft.counter, found))
    return {one.name: Count(one.packets, one.octets) for one in values if one.name.startswith(COUNTERS)}


class NftWatch:
    """Says when somebody else changed our table. Open it before the first read, or a change is missed."""

    def __init__(self, own_ports: Sequence[int], netns_fd: int | None = None, table: str = TABLE) -> None:
        self._table = table
        self._socket = NetlinkSocket(NETLINK_NETFILTER, groups=[nft.NFNLGRP_NFTABLES], netns_fd=netns_fd)
        self._socket.ignore_ports(own_ports)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def touched(self) -> bool:
        """Takes what is waiting; True if our table was touched, or if notifications were lost."""
        try:
            found = [nft.table_object(one) for one in self._socket.receive()]
        except ResyncNeededError:
            return True
        return any(one is not None and one.table == self._table and one.family == nft.FAMILY_INET for one in found)
