"""Allocators that race and crash between any two writes never give an address twice and never lose one.

Every "process" is an IPAMClient driven by hand: each read and each write (each transaction, on a store
that has them) is one step, and any process may be stopped for ever at any step."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fakes.datastore import MemoryDatastore
from tests.unit.ipam.stepped import Stepped, run
from tests.unit.ipam.surroundings import (
    Clock,
    FixedContext,
    affinities,
    blocks,
    client,
    handles,
    holder,
    pool,
)
from weft.ipam.allocator import AssignRequest
from weft.ipam.client import IPAMClient
from weft.model.errors import AddressInUseError, NoFreeAddressError
from weft.model.ipam import IPAMConfigValue

POOLS = [pool("10.0.0.0/29", "v4", block_size=31), pool("fd00::/126", "v6", block_size=127)]
HANDLES = ["h1", "h2", "h3", "h4"]
NODES = ["n1", "n1", "n2"]
"""Two of the three allocators are processes of one node, as Calico's plugin beside ours."""

Address = IPv4Address | IPv6Address


@dataclass
class Process:
    """One allocator, and the call it is in the middle of."""

    node: str
    client: IPAMClient
    call: Coroutine[Any, Any, Any] | None = None
    kind: str = ""
    handle: str = ""
    alone: bool = True
    wanted: dict[int, int] = field(default_factory=dict)


class IPAMMachine(RuleBasedStateMachine):
    @initialize(transactional=st.booleans(), strict=st.booleans())
    def set_up(self, transactional: bool, strict: bool) -> None:
        self.store = MemoryDatastore(transactional=transactional)
        self.clock = Clock()
        self.config = IPAMConfigValue(strict_affinity=strict, auto_allocate_blocks=True)
        self.processes = [Process(node, self._client(node)) for node in NODES]
        self.owned: dict[str, set[Address]] = {}
        """What callers were told they hold and have not begun to release."""
        self.late: list[Coroutine[Any, Any, Any]] = []

    def _client(self, node: str) -> IPAMClient:
        return client(Stepped(self.store), FixedContext(node, POOLS, self.config), self.clock)  # type: ignore[arg-type]

    def _busy(self, handle: str) -> bool:
        return any(process.call is not None and process.handle == handle for process in self.processes)

    def _start(self, index: int, kind: str, handle: str, call: Coroutine[Any, Any, Any]) -> None:
        process = self.processes[index]
        process.alone = all(other.call is None for other in self.processes)
        for other in self.processes:
            if other.call is not None:
                other.alone = False
        process.call, process.kind, process.handle = call, kind, handle

    @rule(index=st.integers(0, 2), handle=st.sampled_from(HANDLES), v4=st.integers(0, 3), v6=st.integers(0, 1))
    def begin_assign(self, index: int, handle: str, v4: int, v6: int) -> None:
        process = self.processes[index]
        if process.call is not None or self._busy(handle):
            return
        request = AssignRequest(
            holder(handle, process.node), {4: v4, 6: v6}, in_use=frozenset(self.owned.get(handle, ()))
        )
        process.wanted = {4: v4, 6: v6}
        self._start(index, "assign", handle, process.client.assign(request))

    @rule(index=st.integers(0, 2), handle=st.sampled_from(HANDLES), last=st.integers(0, 7))
    def begin_assign_of_one_address(self, index: int, handle: str, last: int) -> None:
        process = self.processes[index]
        if process.call is not None or self._busy(handle):
            return
        request = AssignRequest(
            holder(handle, process.node),
            addresses=(IPv4Address(f"10.0.0.{last}"),),
            in_use=frozenset(self.owned.get(handle, ())),
        )
        self._start(index, "assign one", handle, process.client.assign(request))

    @rule(index=st.integers(0, 2), handle=st.sampled_from(HANDLES))
    def begin_release(self, index: int, handle: str) -> None:
        process = self.processes[index]
        if process.call is not None or self._busy(handle):
            return
        self.owned.pop(handle, None)
        self._start(index, "release", handle, process.client.release_by_handle(handle))

    @rule(index=st.integers(0, 2), handle=st.sampled_from(HANDLES))
    def begin_release_of_addresses(self, index: int, handle: str) -> None:
        process = self.processes[index]
        if process.call is not None or self._busy(handle):
            return
        addresses = self.owned.pop(handle, set())
        self._start(index, "release", handle, process.client.release_addresses(sorted(addresses, key=str), handle))

    @rule(index=st.integers(0, 2), node=st.sampled_from(NODES))
    def begin_release_of_a_node(self, index: int, node: str) -> None:
        if self.processes[index].call is None:
            self._start(index, "release node", "", self.processes[index].client.release_node(node))

    @rule(index=st.integers(0, 2), steps=st.integers(1, 6))
    def go_on(self, index: int, steps: int) -> None:
        for _ in range(steps):
            self._step(self.processes[index])

    @rule(index=st.integers(0, 2))
    def finish(self, index: int) -> None:
        while self.processes[index].call is not None:
            self._step(self.processes[index])

    @rule(index=st.integers(0, 2))
    def crash(self, index: int) -> None:
        """What the process was told so far stays; what it was doing is left as it is."""
        process = self.processes[index]
        if process.call is not None:
            process.call.close()
        self.processes[index] = Process(process.node, self._client(process.node))

    @rule(index=st.integers(0, 2))
    def crash_with_a_request_on_its_way(self, index: int) -> None:
        """The process is gone, but what it sent last reaches the datastore at some later time."""
        process = self.processes[index]
        if process.call is not None:
            self.late.append(process.call)
        self.processes[index] = Process(process.node, self._client(process.node))

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def a_late_request_arrives(self, data: st.DataObject) -> None:
        call = self.late.pop(data.draw(st.integers(0, len(self.late) - 1)))
        try:
            call.send(None)
        except (StopIteration, NoFreeAddressError, AddressInUseError):
            return
        call.close()

    @rule()
    def time_passes(self) -> None:
        self.clock.advance(61)

    def _free(self, version: int) -> int:
        every = [block.value for block in blocks(self.store).values() if block.cidr.version == version]
        return {4: 8, 6: 4}[version] - sum(len(value.allocations) - len(value.unallocated) for value in every)

    def _told(self, process: Process, addresses: Sequence[Address]) -> None:
        if process.kind.startswith("assign"):
            assert self.owned.setdefault(process.handle, set()).isdisjoint(addresses)
            self.owned[process.handle].update(addresses)

    def _refused(self, process: Process, version: int) -> None:
        if process.alone and not self.config.strict_affinity:
            assert self._free(version) < process.wanted[version], "addresses were free"

    def _step(self, process: Process) -> None:
        if process.call is None:
            return
        try:
            process.call.send(None)
        except StopIteration as done:
            self._told(process, done.value)
            process.call = None
        except NoFreeAddressError as error:
            self._refused(process, error.version)
            process.call = None
        except AddressInUseError:
            process.call = None

    @invariant()
    @precondition(lambda self: hasattr(self, "store"))
    def what_callers_were_told_is_true_and_every_address_is_accounted_for(self) -> None:
        told = [address for addresses in self.owned.values() for address in addresses]
        assert len(told) == len(set(told)), "an address was given twice"
        listed = handles(self.store)
        holders: dict[Address, str | None] = {}
        for cidr, block in blocks(self.store).items():
            for attribute in block.value.attributes:
                assert attribute.handle_id is not None
                assert listed[attribute.handle_id].block.get(cidr, 0) > 0, (
                    "a held address cannot be found by its handle"
                )
                holders.update(dict.fromkeys(block.held_by(attribute.handle_id), attribute.handle_id))
        for handle, addresses in self.owned.items():
            assert {holders.get(address) for address in addresses} <= {handle}, "a told address is not held"

    def teardown(self) -> None:
        """Whatever happened: releasing every handle frees every address, releasing the nodes leaves nothing."""
        if not hasattr(self, "store"):
            return
        for call in (*self.late, *(process.call for process in self.processes)):
            if call is not None:
                call.close()
        cleaner = self._client("n1")
        for handle in HANDLES:
            run(cleaner.release_by_handle(handle))
        assert all(block.is_empty for block in blocks(self.store).values())
        assert not handles(self.store)
        for node in set(NODES):
            run(cleaner.release_node(node))
        assert not affinities(self.store)
        assert not blocks(self.store)


TestIPAM = IPAMMachine.TestCase
TestIPAM.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
