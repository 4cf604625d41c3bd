"""The parsers of addresses and prefixes: nothing but what the standard library reads, and the same."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.model.address import parse_address, parse_network

octets = st.sampled_from(["0", "1", "10", "255", "256", "01", "", "-1", "1e1", " 1", "\u0661"])
hosts = st.one_of(
    st.ip_addresses().map(str), st.lists(octets, min_size=3, max_size=5).map(".".join), st.text(max_size=8)
)
lengths = st.one_of(
    st.just(""),
    st.integers(-1, 129).map(lambda number: f"/{number}"),
    st.sampled_from(["/", "/08", "/255.0.0.0", "/x"]),
)


def _read(parse: object, text: str) -> object:
    assert callable(parse)
    try:
        return parse(text)
    except ValueError:
        return None


@given(hosts)
def test_an_address_is_what_the_standard_library_reads(text: str) -> None:
    assert _read(parse_address, text) == _read(ipaddress.ip_address, text)


@given(hosts, lengths)
def test_a_prefix_is_what_the_standard_library_reads(host: str, length: str) -> None:
    assert _read(parse_network, host + length) == _read(ipaddress.ip_network, host + length)


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_every_ipv4_prefix_without_host_bits_is_read(address: ipaddress.IPv4Address, length: int) -> None:
    network = ipaddress.ip_network((int(address), length), strict=False)
    assert parse_network(str(network)) == network


@pytest.mark.parametrize(("text", "right"), [("10.0.0.1/24", "such as 10.0.0.0/24"), ("10.0.0/24", "a prefix")])
def test_a_wrong_prefix_is_refused_with_what_would_be_right(text: str, right: str) -> None:
    with pytest.raises(ValueError, match=right):
        parse_network(text)
