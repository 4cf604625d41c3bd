"""Packets of nflog are read as far as they go, and no bytes at all do harm."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.netlink import nflog
from weft.netlink.message import MalformedMessageError, Message, attribute, be32, messages, string

IPV4 = bytes.fromhex("45000054000040004006000a0a000001 0a000002".replace(" ", ""))
IPV6 = bytes.fromhex("60000000 0008 06 40".replace(" ", "")) + b"\xfd" + bytes(14) + b"\x01\xfd" + bytes(14) + b"\x02"
PORTS = struct.pack(">HH", 40000, 443)


def _ipv4(protocol: int, behind: bytes, *, fragment: int = 0, options: bytes = b"") -> bytes:
    head = bytearray(IPV4)
    head[0] = 0x45 + len(options) // 4
    head[6:8] = fragment.to_bytes(2, "big")
    head[9] = protocol
    return bytes(head) + options + behind


def _ipv6(protocol: int, behind: bytes) -> bytes:
    head = bytearray(IPV6)
    head[6] = protocol
    return bytes(head) + behind


V4 = (ip_address("10.0.0.1"), ip_address("10.0.0.2"))
V6 = (ip_address("fd00::1"), ip_address("fd00::2"))

CASES: dict[str, tuple[bytes, nflog.Headers | None]] = {
    "TCP": (_ipv4(6, PORTS), nflog.Headers(*V4, 6, 40000, 443)),
    "UDP behind options": (_ipv4(17, PORTS, options=bytes(8)), nflog.Headers(*V4, 17, 40000, 443)),
    "ICMP": (_ipv4(1, b"\x08\x00"), nflog.Headers(*V4, 1, icmp_type=8, icmp_code=0)),
    "no ICMPv6 in IPv4": (_ipv4(58, b"\x08\x00"), nflog.Headers(*V4, 58)),
    "GRE": (_ipv4(47, PORTS), nflog.Headers(*V4, 47)),
    "a first fragment": (_ipv4(17, PORTS, fragment=0x2000), nflog.Headers(*V4, 17, 40000, 443)),
    "a later fragment": (_ipv4(17, PORTS, fragment=0x2001), nflog.Headers(*V4, 17)),
    "cut off in the ports": (_ipv4(6, PORTS[:3]), nflog.Headers(*V4, 6)),
    "cut off in the addresses": (_ipv4(6, PORTS)[:19], None),
    "IPv6 SCTP": (_ipv6(132, PORTS), nflog.Headers(*V6, 132, 40000, 443)),
    "ICMPv6": (_ipv6(58, b"\x80\x00"), nflog.Headers(*V6, 58, icmp_type=128, icmp_code=0)),
    "behind hop-by-hop options": (_ipv6(0, bytes((17, 0)) + bytes(6) + PORTS), nflog.Headers(*V6, 17, 40000, 443)),
    "behind an authentication header": (
        _ipv6(51, bytes((6, 4)) + bytes(22) + PORTS),
        nflog.Headers(*V6, 6, 40000, 443),
    ),
    "a later IPv6 fragment": (_ipv6(44, bytes((6, 0, 0, 8)) + bytes(4) + PORTS), nflog.Headers(*V6, 6)),
    "a first IPv6 fragment": (
        _ipv6(44, bytes((6, 0, 0, 1)) + bytes(4) + PORTS),
        nflog.Headers(*V6, 6, 40000, 443),
    ),
    "neither family": (b"\x10" + bytes(60), None),
    "nothing": (b"", None),
}


@pytest.mark.parametrize(("payload", "expected"), CASES.values(), ids=CASES)
def test_headers_are_read_as_far_as_they_go(payload: bytes, expected: nflog.Headers | None) -> None:
    assert nflog.headers(payload) == expected


def test_a_packet_s_message_is_decoded() -> None:
    body = struct.pack(">BBH", 2, 0, 4517) + be32(2, 0xABCD) + be32(4, 3) + be32(5, 7) + be32(12, 9)
    body += attribute(9, _ipv4(6, PORTS)) + string(10, "weft deny")
    found = nflog.packet(Message(0x400, 0, 0, 0, body))
    assert found == nflog.LoggedPacket(4517, "weft deny", 0xABCD, 3, 7, 9, _ipv4(6, PORTS))


def test_messages_of_others_are_no_packets() -> None:
    assert nflog.packet(Message(0x401, 0, 0, 0, b"")) is None
    assert nflog.packet(Message(3, 0, 0, 0, b"")) is None


@given(st.binary(max_size=120))
def test_arbitrary_payloads_are_read_or_are_none(payload: bytes) -> None:
    nflog.headers(payload)


@given(st.sampled_from([0x45, 0x46, 0x4F, 0x60]), st.binary(min_size=19, max_size=90))
def test_arbitrary_packets_of_a_version_are_read(first: int, rest: bytes) -> None:
    found = nflog.headers(bytes((first,)) + rest)
    assert (found is None) == (first == 0x60 and len(rest) < 39)


@given(st.binary(max_size=80))
def test_arbitrary_messages_raise_the_documented_error_or_are_packets(body: bytes) -> None:
    try:
        found = nflog.packet(Message(0x400, 0, 0, 0, body))
    except MalformedMessageError:
        return
    assert found is not None


def test_binding_names_the_group_in_each_message() -> None:
    found = [one for data in nflog.bind(4517, 128, 100, 50) for one in messages(data)]
    assert {(one.kind, one.payload[:4]) for one in found} == {(0x401, b"\0\0" + (4517).to_bytes(2, "big"))}


@pytest.mark.parametrize(
    ("before", "now", "lost"), [(None, 7, 0), (6, None, 0), (6, 7, 0), (6, 9, 2), ((1 << 32) - 1, 0, 0)]
)
def test_gaps_in_the_sequence_are_what_was_lost(before: int | None, now: int | None, lost: int) -> None:
    assert nflog.lost_between(before, now) == lost
