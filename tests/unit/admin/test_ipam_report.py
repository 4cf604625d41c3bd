"""Counting addresses: the report agrees with counting them one by one."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.admin import api, ipam_report
from weft.model.base import Metadata
from weft.model.ipam import Attribute, BlockValue
from weft.model.pool import IPPool, IPPoolSpec

SPACE = IPv4Network("10.65.0.0/24")
subnets = st.integers(24, 32).flatmap(lambda length: st.sampled_from(list(SPACE.subnets(new_prefix=length))))


def pool(name: str, cidr: str) -> IPPool:
    return IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=ip_network(cidr), block_size=28))


def block(cidr: str, holders: dict[int, Attribute], affinity: str | None = "host:n1") -> BlockValue:
    network = ip_network(cidr)
    ordinals = list(holders)
    allocations = [ordinals.index(at) if at in holders else None for at in range(network.num_addresses)]
    return BlockValue(
        cidr=network,
        affinity=affinity,
        allocations=tuple(allocations),
        unallocated=tuple(at for at, index in enumerate(allocations) if index is None),
        attributes=tuple(holders.values()),
    )


HELD = Attribute(handle_id="h", secondary={"node": "n1"})


@given(cidr=subnets, others=st.lists(subnets, max_size=6))
def test_reserved_addresses_are_counted_once_each(cidr: IPv4Network, others: list[IPv4Network]) -> None:
    one_by_one = sum(any(address in other for other in others) for address in cidr)
    assert ipam_report.covered(cidr, ipam_report.flatten(others)) == one_by_one


def test_blocks_are_listed_under_their_pool_and_the_rest_as_orphans() -> None:
    usage = ipam_report.utilization(
        [pool("b", "10.66.0.0/24"), pool("a", "10.65.0.0/24")],
        [block("10.65.0.16/28", {0: HELD, 5: HELD}), block("10.65.0.0/28", {}), block("10.99.0.0/28", {1: HELD})],
        [ip_network("10.65.0.0/29"), ip_network("10.65.0.0/30")],
    )
    assert [(one.name, one.used, one.reserved) for one in usage.pools] == [("a", 2, 8), ("b", 0, 0)]
    assert [str(one.cidr) for one in usage.pools[0].blocks] == ["10.65.0.0/28", "10.65.0.16/28"]
    assert [str(one.cidr) for one in usage.orphans] == ["10.99.0.0/28"]


@pytest.mark.parametrize(
    ("affinity", "holder", "expected"),
    [
        pytest.param("host:n1", {"node": "n1"}, [], id="one's own block is not borrowed"),
        pytest.param("host:n2", {"node": "n1", "type": "x"}, [("n1", "n2", "x", "")], id="another node's is"),
        pytest.param(None, {"node": "n1"}, [("n1", "", "", "")], id="a block of nobody's is"),
        pytest.param("host:n2", {"pod": "p"}, [], id="a holder without a node cannot be told"),
        pytest.param(
            "host:n2", {"node": "n1", "pod": "p", "namespace": "w"}, [("n1", "n2", "pod", "w/p")], id="pods are named"
        ),
    ],
)
def test_borrowed_addresses(
    affinity: str | None, holder: dict[str, str], expected: list[tuple[str, str, str, str]]
) -> None:
    found = ipam_report.borrowed([block("10.65.0.0/28", {3: Attribute(handle_id="h", secondary=holder)}, affinity)])
    assert [(one.borrower, one.owner, one.holder_type, one.holder) for one in found] == expected
    assert all(str(one.address) == "10.65.0.3" for one in found)


@pytest.mark.parametrize(
    ("address", "state"),
    [
        ("10.65.0.3", api.AddressState.IN_USE),
        ("10.65.0.4", api.AddressState.FREE),
        ("10.65.0.5", api.AddressState.RESERVED),
        ("10.65.0.77", api.AddressState.NOT_IN_A_BLOCK),
        ("192.0.2.1", api.AddressState.OUTSIDE_POOLS),
    ],
)
def test_an_address_is_in_exactly_one_state(address: str, state: api.AddressState) -> None:
    one = ip_address(address)
    inside = block("10.65.0.0/28", {3: HELD})
    found = ipam_report.look_up(
        one, [pool("a", "10.65.0.0/24")], inside if one in inside.cidr else None, [ip_network("10.65.0.5/32")]
    )
    assert found.state is state
    assert found.handle_id == ("h" if state is api.AddressState.IN_USE else "")
