"""Assigning and releasing against a datastore that refuses as etcd does."""

import asyncio
from contextlib import AsyncExitStack
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import pytest

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
from weft.datastore.base import Create, Delete
from weft.ipam.allocator import AssignRequest
from weft.model import codec, keys
from weft.model.errors import AddressInUseError, ConflictError, DatastoreUnavailableError, NoFreeAddressError
from weft.model.ipam import IPAMConfigValue
from weft.model.keys import BlockKey, HandleKey, Owner

SMALL = pool("10.0.0.0/29", block_size=30)
"""Two blocks of four addresses."""
BIG = pool("10.0.0.0/16")
SIX = pool("fd00::/48", "six")
BOTH = {4: 1, 6: 1}


def request(handle: str, node: str = "n1", **rest: Any) -> AssignRequest:
    return AssignRequest(holder(handle, node), **rest)


@pytest.fixture(params=[True, False], ids=["transactions", "ordered"])
def store(request: pytest.FixtureRequest) -> MemoryDatastore:
    return MemoryDatastore(transactional=request.param)


async def test_the_first_assignment_claims_a_block_and_confirms_it(store: MemoryDatastore) -> None:
    ipam = client(store, FixedContext(pools=[BIG]))
    (address,) = await ipam.assign(request("a"))
    ((cidr, block),) = blocks(store).items()
    assert block.held_by("a") == [address]
    assert affinities(store) == {("host:n1", cidr): "confirmed"}
    assert handles(store)["a"].block == {cidr: 1}


async def test_a_warm_assignment_is_one_commit_and_no_read() -> None:
    store = MemoryDatastore()
    ipam = client(store, FixedContext(pools=[BIG, SIX]))
    await ipam.assign(request("a", counts=BOTH))
    store.calls.clear()
    await ipam.assign(request("b", counts=BOTH), after=lambda addresses: [Create("/endpoint", b"{}")])
    assert [op for op, _ in store.calls] == ["commit"]
    assert store.calls[0][1].endswith("/endpoint"), "the caller's write comes last"


async def test_a_warm_release_is_one_commit_and_no_read(store: MemoryDatastore) -> None:
    ipam = client(store, FixedContext(pools=[BIG]))
    await ipam.assign(request("a"))
    store.put("/endpoint", b"{}")
    store.calls.clear()
    await ipam.release_by_handle("a", before=[Delete("/endpoint")])
    assert [op for op, _ in store.calls] == ["commit"]
    assert store.calls[0][1].startswith("/endpoint,"), "the caller's write comes first"
    assert not handles(store)
    assert all(block.is_empty for block in blocks(store).values())


async def test_both_families_come_in_one_request(store: MemoryDatastore) -> None:
    ipam = client(store, FixedContext(pools=[BIG, SIX]))
    addresses = await ipam.assign(request("a", counts=BOTH))
    assert [address.version for address in addresses] == [4, 6]
    assert set(await ipam.addresses_of("a")) == set(addresses)


async def test_many_concurrent_requests_all_get_different_addresses(store: MemoryDatastore) -> None:
    ipam = client(store, FixedContext(pools=[BIG]))
    given = await asyncio.gather(*(ipam.assign(request(f"h{i}")) for i in range(200)))
    assert len({address for addresses in given for address in addresses}) == 200
    assert len(blocks(store)) == 4


async def test_two_nodes_take_different_blocks(store: MemoryDatastore) -> None:
    for node in ("n1", "n2"):
        await client(store, FixedContext(node, [SMALL])).assign(request(node, node))
    assert {block.value.affinity for block in blocks(store).values()} == {"host:n1", "host:n2"}


async def test_a_request_larger_than_a_block_takes_several(store: MemoryDatastore) -> None:
    addresses = await client(store, FixedContext(pools=[SMALL])).assign(request("a", counts={4: 7}))
    assert len(set(addresses)) == 7
    assert sorted(handles(store)["a"].block.values()) == [3, 4]


async def test_addresses_are_borrowed_when_no_block_is_left(store: MemoryDatastore) -> None:
    await client(store, FixedContext("n1", [SMALL])).assign(request("a", counts={4: 5}))
    addresses = await client(store, FixedContext("n2", [SMALL])).assign(request("b", "n2", counts={4: 2}))
    assert len(addresses) == 2
    assert {block.value.affinity for block in blocks(store).values()} == {"host:n1"}


STRICT = IPAMConfigValue(strict_affinity=True, auto_allocate_blocks=True)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        pytest.param(STRICT, "strict affinity forbids borrowing", id="strict-affinity"),
        pytest.param(IPAMConfigValue(strict_affinity=True), "auto-allocation of blocks is off", id="no-new-blocks"),
        pytest.param(
            IPAMConfigValue(strict_affinity=True, auto_allocate_blocks=True, max_blocks_per_host=1),
            "owns 1 blocks, its limit",
            id="limit-reached",
        ),
    ],
)
async def test_why_there_is_no_address(store: MemoryDatastore, config: IPAMConfigValue, why: str) -> None:
    await client(store, FixedContext("n1", [SMALL])).assign(request("a", counts={4: 4}))
    if config is STRICT:
        await client(store, FixedContext("n2", [SMALL])).assign(request("b", "n2"))
    with pytest.raises(NoFreeAddressError, match=why):
        await client(store, FixedContext("n1", [SMALL], config)).assign(request("c"))
    assert "c" not in handles(store)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(IPAMConfigValue(auto_allocate_blocks=True, max_blocks_per_host=1), id="limit-reached"),
        pytest.param(IPAMConfigValue(), id="no-new-blocks"),
    ],
)
async def test_a_node_that_may_not_claim_borrows(store: MemoryDatastore, config: IPAMConfigValue) -> None:
    await client(store, FixedContext("n1", [SMALL])).assign(request("a", counts={4: 4}))
    await client(store, FixedContext("n2", [SMALL])).assign(request("b", "n2"))
    assert len(await client(store, FixedContext("n1", [SMALL], config)).assign(request("c"))) == 1


async def test_an_empty_block_of_another_node_is_taken_after_a_minute(store: MemoryDatastore) -> None:
    clock = Clock()
    first = client(store, FixedContext("n1", [SMALL]), clock)
    await first.assign(request("a", counts={4: 5}))
    await first.release_by_handle("a")
    second = client(store, FixedContext("n2", [SMALL], STRICT), clock)
    with pytest.raises(NoFreeAddressError):
        await second.assign(request("b", "n2"))
    clock.advance(61)
    await second.assign(request("b", "n2"))
    assert sorted(affinities(store).values()) == ["confirmed", "confirmed"]
    assert {owner for owner, _ in affinities(store)} == {"host:n1", "host:n2"}
    await first.assign(request("c"))


async def test_a_reserved_block_is_never_claimed(store: MemoryDatastore) -> None:
    source = FixedContext(pools=[SMALL], reserved=["10.0.0.0/30", "10.0.0.4/31"])
    addresses = await client(store, source).assign(request("a", counts={4: 2}))
    assert sorted(map(str, addresses)) == ["10.0.0.6", "10.0.0.7"]
    with pytest.raises(NoFreeAddressError):
        await client(store, source).assign(request("b"))


async def test_a_specific_address_is_given_wherever_it_is_free(store: MemoryDatastore) -> None:
    first, second = client(store, FixedContext("n1", [SMALL])), client(store, FixedContext("n2", [SMALL]))
    wanted = IPv4Address("10.0.0.2")
    assert await first.assign(request("a", addresses=(wanted,))) == (wanted,)
    assert affinities(store) == {("host:n1", "10.0.0.0/30"): "confirmed"}
    with pytest.raises(AddressInUseError):
        await second.assign(request("b", "n2", addresses=(wanted,)))
    await second.assign(request("b", "n2", addresses=(IPv4Address("10.0.0.3"),)))
    strict = client(store, FixedContext("n2", [SMALL], STRICT))
    with pytest.raises(AddressInUseError):
        await strict.assign(request("c", "n2", addresses=(IPv4Address("10.0.0.1"),)))
    with pytest.raises(NoFreeAddressError, match="in no enabled pool"):
        await first.assign(request("d", addresses=(IPv4Address("192.0.2.1"),)))


async def test_what_a_crash_left_is_used_by_the_same_handle(store: MemoryDatastore) -> None:
    source = FixedContext(pools=[SMALL])
    held = await client(store, source).assign(request("a", counts={4: 2}))
    (again,) = await client(store, source).assign(request("a"))
    (other,) = await client(store, source).assign(request("a", in_use=frozenset({again})))
    assert {again, other} == set(held)
    assert len(await client(store, source).assign(request("a", in_use=frozenset(held)))) == 1


async def test_a_lost_race_is_decided_again(store: MemoryDatastore) -> None:
    ipam, rival = client(store, FixedContext(pools=[BIG])), client(store, FixedContext(pools=[BIG]))
    await ipam.assign(request("a"))
    (taken,) = await rival.assign(request("b"))
    (given,) = await ipam.assign(request("c"))
    assert given != taken
    assert len(handles(store)) == 3


async def test_the_callers_own_lost_write_is_the_callers_business(store: MemoryDatastore) -> None:
    ipam = client(store, FixedContext(pools=[BIG]))
    store.put("/endpoint", b"{}")
    with pytest.raises(ConflictError) as lost:
        await ipam.assign(request("a"), after=lambda addresses: [Create("/endpoint", b"{}")])
    assert lost.value.key == "/endpoint"
    await ipam.release_by_handle("a")
    assert not handles(store)


async def test_work_beside_the_commit_is_undone_before_the_next_try(store: MemoryDatastore) -> None:
    ipam, rival = client(store, FixedContext(pools=[BIG])), client(store, FixedContext(pools=[BIG]))
    await ipam.assign(request("a"))
    await rival.assign(request("b"))
    log: list[str] = []

    async def wire(addresses: tuple[Any, ...], undo: AsyncExitStack) -> None:
        log.append(f"wire {addresses[0]}")
        undo.callback(log.append, f"undo {addresses[0]}")

    (address,) = await ipam.assign(request("c"), overlap=wire)
    assert len(log) == 3
    assert log[1] == log[0].replace("wire", "undo")
    assert log[2] == f"wire {address}"


async def test_an_error_beside_the_commit_comes_out_after_it(store: MemoryDatastore) -> None:
    async def wire(addresses: tuple[Any, ...], undo: AsyncExitStack) -> None:
        raise OSError("no such namespace")

    ipam = client(store, FixedContext(pools=[BIG]))
    with pytest.raises(OSError, match="namespace"):
        await ipam.assign(request("a"), overlap=wire)
    assert len(await ipam.release_by_handle("a")) == 1


async def test_an_unanswered_commit_is_found_out_by_the_next_call(store: MemoryDatastore) -> None:
    ipam = client(store, FixedContext(pools=[BIG]))
    await ipam.assign(request("a"))
    store.fail("commit")
    with pytest.raises(DatastoreUnavailableError):
        await ipam.assign(request("b"))
    await ipam.assign(request("b"))
    assert set(handles(store)) == {"a", "b"}


async def test_a_refused_request_does_not_hide_an_older_handle(store: MemoryDatastore) -> None:
    await client(store, FixedContext(pools=[SMALL])).assign(request("a"))
    ipam = client(store, FixedContext(pools=[]))
    with pytest.raises(NoFreeAddressError):
        await ipam.assign(request("a"))
    assert len(await ipam.release_by_handle("a")) == 1


async def test_some_addresses_of_a_handle_are_kept(store: MemoryDatastore) -> None:
    ipam = client(store, FixedContext(pools=[SMALL]))
    first, second, third = await ipam.assign(request("a", counts={4: 3}))
    assert await ipam.release_by_handle("a", keep=[second]) == (first, third)
    assert await ipam.addresses_of("a") == (second,)
    assert sum(handles(store)["a"].block.values()) == 1


async def test_addresses_are_released_without_their_pool(store: MemoryDatastore) -> None:
    (address,) = await client(store, FixedContext(pools=[SMALL])).assign(request("a"))
    ipam = client(store, FixedContext(pools=[]))
    assert await ipam.release_addresses([address, ip_address("10.0.0.1"), ip_address("192.0.2.1")], "b") == ()
    assert await ipam.release_addresses([address, ip_address("192.0.2.1")]) == (address,)
    assert not handles(store)


async def test_a_node_that_is_gone_leaves_its_used_blocks_to_nobody(store: MemoryDatastore) -> None:
    ipam = client(store, FixedContext("n1", [SMALL, SIX]))
    (address,) = await ipam.assign(request("a"))
    await ipam.assign(request("b", counts={6: 1}))
    await ipam.release_by_handle("b")
    other = client(store, FixedContext("n2", [SMALL, SIX]))
    await other.release_node("n1")
    assert not affinities(store)
    ((_, block),) = blocks(store).items()
    assert block.value.affinity is None
    assert block.held_by("a") == [address]
    await other.release_by_handle("a")
    assert not blocks(store), "an empty block of nobody is deleted"


async def test_an_emptied_block_goes_when_its_pool_no_longer_selects_the_node(store: MemoryDatastore) -> None:
    source = FixedContext("n1", [pool("10.0.0.0/29", block_size=30, node_selector="has(rack)")], labels={"rack": "1"})
    ipam = client(store, source)
    await ipam.assign(request("a"))
    source.value = FixedContext("n1", source.value.pools).value
    await ipam.release_by_handle("a")
    assert not blocks(store)
    assert not affinities(store)


@pytest.mark.parametrize(
    "state", ["pending", "pendingDeletion", "confirmed"], ids=["claim-cut-short", "release-cut-short", "block-gone"]
)
async def test_an_affinity_without_its_block_is_completed(store: MemoryDatastore, state: str) -> None:
    key = keys.AffinityKey(Owner("host", "n1"), ip_network("10.0.0.4/30"))
    store.put(keys.path(key), b'{"state":"%s","deleted":false}' % state.encode())
    (address,) = await client(store, FixedContext(pools=[SMALL])).assign(request("a"))
    assert address in key.cidr
    assert affinities(store) == {("host:n1", "10.0.0.4/30"): "confirmed"}


async def test_an_affinity_of_a_block_that_another_node_owns_is_removed(store: MemoryDatastore) -> None:
    key = keys.AffinityKey(Owner("host", "n1"), ip_network("10.0.0.4/30"))
    other = client(store, FixedContext("n2", [SMALL]))
    await other.assign(request("b", "n2", addresses=(IPv4Address("10.0.0.4"),)))
    store.put(keys.path(key), b'{"state":"pending"}')
    await client(store, FixedContext(pools=[SMALL])).assign(request("a"))
    assert affinities(store) == {("host:n1", "10.0.0.0/30"): "confirmed", ("host:n2", "10.0.0.4/30"): "confirmed"}


async def test_fields_of_a_newer_calico_survive(store: MemoryDatastore) -> None:
    ipam = client(store, FixedContext(pools=[SMALL]))
    await ipam.assign(request("a"))
    ((cidr, _),) = blocks(store).items()
    path = keys.path(BlockKey(ip_network(cidr)))
    raw = store.value(path)
    assert raw is not None
    store.put(path, raw[:-1] + b',"fromTheFuture":{"a":1}}')
    await ipam.assign(request("b"))
    assert b'"fromTheFuture":{"a":1}' in (store.value(path) or b"")


async def test_a_damaged_block_is_left_alone(store: MemoryDatastore) -> None:
    ipam = client(store, FixedContext(pools=[SMALL]))
    await ipam.assign(request("a"))
    ((cidr, _),) = blocks(store).items()
    path = keys.path(BlockKey(ip_network(cidr)))
    store.put(path, b"{")
    (address,) = await ipam.assign(request("b"))
    assert address not in ip_network(cidr)
    assert store.value(path) == b"{"


def test_a_write_that_arrives_after_the_release_of_its_handle_loses() -> None:
    """The dead process had listed the block; a release that only dropped the handle would lose the address."""
    store = MemoryDatastore(transactional=False)
    run(client(Stepped(store), FixedContext(pools=[SMALL])).assign(request("other")))  # type: ignore[arg-type]
    dying = client(Stepped(store), FixedContext(pools=[SMALL])).assign(request("a"))  # type: ignore[arg-type]
    while "a" not in handles(store):
        dying.send(None)
    run(client(Stepped(store), FixedContext(pools=[SMALL])).release_by_handle("a"))  # type: ignore[arg-type]
    dying.send(None)
    dying.close()
    ((_, block),) = blocks(store).items()
    assert not block.held_by("a")


def test_a_stored_block_reads_as_calico_writes_it() -> None:
    store = MemoryDatastore()
    run(client(Stepped(store), FixedContext(pools=[SMALL])).assign(request("a")))  # type: ignore[arg-type]
    ((cidr, block),) = blocks(store).items()
    raw = store.value(keys.path(BlockKey(ip_network(cidr))))
    assert raw is not None
    for expected in (
        b'"affinity":"host:n1"',
        b'"affinity_claim_time":"2025-01-02T03:04:05Z"',
        b'"allocations":[0,null,null,null]',
        b'"unallocated":[1,2,3]',
        b'"attributes":[{"handle_id":"a","secondary":{"node":"n1"}}]',
        b'"sequenceNumberForAllocation":{"0":1735787045000000000}',
        b'"deleted":false',
    ):
        assert expected in raw
    assert codec.decode_stored(HandleKey("a"), store.value(keys.path(HandleKey("a"))) or b"") == handles(store)["a"]
    assert block.value.sequence_number == 1735787045000000001
