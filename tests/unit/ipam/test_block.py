"""One block as a value: first in, first out; every write has a new sequence number; nothing is lost."""

from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.ipam.surroundings import START, holder
from weft.ipam.block import Block
from weft.model.errors import AddressInUseError, BlockFullError
from weft.model.keys import Owner

OWNER = Owner("host", "n1")
CIDR = ip_network("10.65.0.0/29")


def addresses(*last: int) -> list[IPv4Address]:
    return [IPv4Address(f"10.65.0.{one}") for one in last]


def test_a_claimed_block_is_empty_and_belongs_to_its_owner() -> None:
    block = Block.claimed(CIDR, OWNER, START)
    assert block.is_empty
    assert block.belongs_to(OWNER)
    assert not block.belongs_to(Owner("virtual", "n1"))
    assert block.value.sequence_number == int(START.timestamp()) * 10**9


def test_a_released_address_is_the_last_to_be_given_again() -> None:
    block, first = Block.claimed(CIDR, OWNER, START).assign_next(2, holder("a"))
    block, _ = block.release(first)
    block, second = block.assign_next(8, holder("b"))
    assert first == addresses(0, 1)
    assert second == addresses(2, 3, 4, 5, 6, 7, 0, 1)
    with pytest.raises(BlockFullError):
        block.assign_next(1, holder("c"))


def test_an_allocation_remembers_the_sequence_number_it_was_made_at() -> None:
    block = Block.claimed(CIDR, OWNER, START)
    start = block.value.sequence_number
    block, _ = block.assign_next(1, holder("a"))
    block, _ = block.assign_next(1, holder("b"))
    assert block.value.sequence_number_for_allocation == {0: start, 1: start + 1}
    block, _ = block.release(addresses(0))
    assert block.value.sequence_number_for_allocation == {1: start + 1}
    assert block.value.sequence_number == start + 3


def test_reserved_addresses_are_skipped_and_stay_in_the_queue() -> None:
    reserved = [ip_network("10.65.0.0/30"), ip_network("10.65.0.6/32"), ip_network("fd00::/8")]
    block, given_ = Block.claimed(CIDR, OWNER, START).assign_next(8, holder("a"), reserved)
    assert given_ == addresses(4, 5, 7)
    assert block.value.unallocated == (0, 1, 2, 3, 6)


def test_one_holder_has_one_attribute() -> None:
    block, _ = Block.claimed(CIDR, OWNER, START).assign_next(2, holder("a"))
    block = block.assign(addresses(7)[0], holder("a"))
    assert len(block.value.attributes) == 1
    assert block.held_by("a") == addresses(0, 1, 7)


def test_a_specific_address_is_given_once() -> None:
    block = Block.claimed(CIDR, OWNER, START).assign(addresses(3)[0], holder("a"))
    with pytest.raises(AddressInUseError) as refused:
        block.assign(addresses(3)[0], holder("a"))
    assert refused.value.handle_id == "a"


def test_only_the_holder_can_release_when_the_holder_is_named() -> None:
    block, held = Block.claimed(CIDR, OWNER, START).assign_next(1, holder("a"))
    assert block.release(held, "b") == (block, {})
    assert block.release([*held, *addresses(5)], "a")[1] == {"a": 1}


def test_an_address_of_another_block_is_an_error() -> None:
    with pytest.raises(ValueError, match="not in"):
        Block.claimed(CIDR, OWNER, START).holder(IPv4Address("10.65.0.8"))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.sets(st.integers(0, 7)))))
def test_every_address_is_free_or_held_whatever_happens(history: list[tuple[str, int, set[int]]]) -> None:
    block = Block.claimed(CIDR, OWNER, START)
    for who, wanted, released in history:
        before = block.value.sequence_number
        if wanted and block.free():
            block, _ = block.assign_next(wanted, holder(who))
            assert block.value.sequence_number == before + 1
        block, lost = block.release(addresses(*released))
        assert sum(lost.values()) <= len(released)
        held = [*block.held_by("a"), *block.held_by("b")]
        free = [CIDR[ordinal] for ordinal in block.value.unallocated]
        assert sorted([*held, *free], key=str) == list(CIDR)
        assert {attribute.handle_id for attribute in block.value.attributes} == {
            attribute.handle_id for address in held if (attribute := block.holder(address))
        }
