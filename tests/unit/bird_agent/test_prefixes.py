"""Prefixes that are read fast are the standard library's in every respect."""

from __future__ import annotations

import copy
import pickle
from ipaddress import IPv4Network, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bird_agent.exabgp.prefixes import number_of, read_packed, read_prefix, read_route

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
    if made.num_addresses <= 4:
        assert list(made.hosts()) == list(one.hosts())
        assert list(made) == list(one)


@given(networks)
def test_a_route_of_the_kernel_is_read_alike(one: Any) -> None:
    made = read_route(one.network_address.packed + bytes((one.prefixlen,)))
    assert (made, hash(made), str(made)) == (one, hash(one), str(one))


@pytest.mark.parametrize("packed", ["0a00000118", "0a00000021", "0a0000", "fd00" + "00" * 13 + "0140"])
def test_a_route_that_no_kernel_has_is_refused(packed: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_route(bytes.fromhex(packed))


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


ipv4 = st.builds(lambda number, length: (number, length), st.integers(0, (1 << 32) - 1), st.integers(0, 32))


@given(st.lists(ipv4))
def test_packed_prefixes_are_those_of_the_text_whatever_is_behind_their_length(given: list[tuple[int, int]]) -> None:
    packed = b"".join(bytes((length,)) + number.to_bytes(4, "big")[: (length + 7) // 8] for number, length in given)
    expected = [ip_network(pair, strict=False) for pair in given]
    made = read_packed(packed)
    assert made == expected == [read_prefix(str(one)) for one in made]
    assert made == [read_prefix(str(one)) for one in expected]
    assert [hash(one) for one in made] == [hash(one) for one in expected]
    assert [number_of(one) for one in made] == [int(one.network_address) for one in expected]


@pytest.mark.parametrize("data", [b"\x18\x0a\x00", b"\x21\x0a\x00\x00\x00\x00", b"\x00\x08"])
def test_what_ends_within_a_prefix_or_is_longer_than_an_address(data: bytes) -> None:
    with pytest.raises(ValueError, match="a prefix of"):
        read_packed(data)


@given(st.binary(max_size=40))
def test_any_bytes_are_prefixes_or_refused(data: bytes) -> None:
    try:
        made = read_packed(data)
    except ValueError:
        return
    assert sum(1 + (one.prefixlen + 7) // 8 for one in made) == len(data)
