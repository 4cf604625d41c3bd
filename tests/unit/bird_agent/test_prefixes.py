"""Prefixes that are read fast are the standard library's in every respect."""

from __future__ import annotations

import copy
import pickle
from ipaddress import IPv4Network, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bird_agent.exabgp.prefixes import read_prefix

networks = st.builds(
    lambda number, length: ip_network((number, length), strict=False), st.integers(0, (1 << 32) - 1), st.integers(0, 32)
) | st.builds(
    lambda number, length: ip_network((number, length), strict=False),
    st.integers(1 << 32, (1 << 128) - 1),
    st.integers(0, 128),
)


@given(networks, networks)
def test_a_prefix_is_what_the_standard_library_makes_of_it(one: Any, other: Any) -> None:
    made = read_prefix(str(one))
    assert made == one
    assert one == made
    assert hash(made) == hash(one)
    assert {one: 1}[made] == 1
    assert (str(made), made.prefixlen, made.network_address) == (str(one), one.prefixlen, one.network_address)
    assert (made == other) == (one == other)
    assert made.num_addresses == one.num_addresses
    assert made.broadcast_address == one.broadcast_address
    if made.version == other.version:
        assert made.subnet_of(other) == one.subnet_of(other)
        assert (made < other) == (one < other)
    if made.prefixlen:
        assert {made.supernet()} == {one.supernet()}
    if made.prefixlen < made.max_prefixlen:
        assert set(made.subnets()) == set(one.subnets())
    assert {copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))} == {one}
    assert next(iter(made.hosts())) == next(iter(one.hosts()))


@given(st.text(alphabet="0123456789./:af", max_size=20))
def test_what_the_standard_library_refuses_is_refused(text: str) -> None:
    try:
        expected = ip_network(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            read_prefix(text)
    else:
        assert read_prefix(text) == expected


@pytest.mark.parametrize(
    "text", ["10.0.0.1/24", "010.0.0.0/8", "10.0.0.0/33", "10.0.0/8", "256.0.0.0/8", "10.0.0.0/08x"]
)
def test_what_is_no_prefix(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_prefix(text)


def test_it_is_an_ipv4_network() -> None:
    assert isinstance(read_prefix("10.65.0.0/26"), IPv4Network)
