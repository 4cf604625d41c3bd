"""Ports, protocols, AS numbers, durations and DSCP marks: every spelling, and the one that is written."""

from __future__ import annotations

import copy
import pickle
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.model.values import AsNumber, Dscp, Duration, Port, Protocol

PORTS = {
    "a number": (80, Port(80, 80), 80),
    "a number as text": ("80", Port(80, 80), 80),
    "a range": ("8000:8100", Port(8000, 8100), "8000:8100"),
    "a range of one": ("80:80", Port(80, 80), 80),
    "a name": ("http-alt", Port(name="http-alt"), "http-alt"),
    "the highest": (65535, Port(65535, 65535), 65535),
}


@pytest.mark.parametrize(("raw", "port", "written"), PORTS.values(), ids=PORTS.keys())
def test_a_port_reads_every_spelling_and_writes_calicos(raw: object, port: Port, written: object) -> None:
    assert Port.parse(raw) == port
    assert port.to_json() == written
    assert Port.parse(port.to_json()) == port


@pytest.mark.parametrize("raw", [65536, -1, "70000", "90:80", "1:70000", "a b", "", True, 1.5, None, [80]], ids=repr)
def test_what_is_no_port_is_refused(raw: object) -> None:
    with pytest.raises(ValueError, match="port"):
        Port.parse(raw)


PROTOCOLS = {
    "by name": ("TCP", Protocol(6, "TCP"), "TCP"),
    "in lower case, as before v3": ("icmpv6", Protocol(58, "ICMPv6"), "ICMPv6"),
    "by number": (6, Protocol(6), 6),
    "a number as text": ("132", Protocol(132), 132),
}


@pytest.mark.parametrize(("raw", "protocol", "written"), PROTOCOLS.values(), ids=PROTOCOLS.keys())
def test_a_protocol_is_a_number_that_remembers_its_spelling(raw: object, protocol: Protocol, written: object) -> None:
    assert Protocol.parse(raw) == protocol
    assert protocol.to_json() == written


@pytest.mark.parametrize("raw", [0, 256, "0", "IGMP", "", True, None], ids=repr)
def test_what_is_no_protocol_is_refused(raw: object) -> None:
    with pytest.raises(ValueError, match="protocol"):
        Protocol.parse(raw)


def test_only_tcp_udp_and_sctp_have_ports() -> None:
    having = [name for name in ("TCP", "UDP", "SCTP", "UDPLite", "ICMP") if Protocol.parse(name).has_ports]
    assert having == ["TCP", "UDP", "SCTP"]


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        (64512, 64512),
        ("64512", 64512),
        ("1.10", 65546),
        ("0.1", 1),
        (4294967295, 4294967295),
        ("65535.65535", 4294967295),
    ],
    ids=repr,
)
def test_an_as_number_reads_plain_and_dotted_forms(raw: object, number: int) -> None:
    assert AsNumber.parse(raw) == number


@pytest.mark.parametrize("raw", [-1, 4294967296, "65536.1", "1.", ".1", "1.2.3", "x", "", True, None, 1.5], ids=repr)
def test_what_is_no_as_number_is_refused(raw: object) -> None:
    with pytest.raises(ValueError, match="AS number"):
        AsNumber.parse(raw)


DURATIONS = {
    "seconds": ("5s", timedelta(seconds=5), "5s"),
    "minutes and seconds": ("1m30s", timedelta(seconds=90), "1m30s"),
    "seconds above a minute": ("90s", timedelta(seconds=90), "1m30s"),
    "a whole hour": ("1h", timedelta(hours=1), "1h0m0s"),
    "milliseconds": ("500ms", timedelta(milliseconds=500), "500ms"),
    "a fraction": ("1.5s", timedelta(seconds=1.5), "1.5s"),
    "microseconds": ("100us", timedelta(microseconds=100), "100µs"),
    "nothing": ("0", timedelta(), "0s"),
    "below nothing": ("-2s", timedelta(seconds=-2), "-2s"),
}


@pytest.mark.parametrize(("text", "span", "written"), DURATIONS.values(), ids=DURATIONS.keys())
def test_a_duration_reads_kubernetes_spelling_and_writes_gos(text: str, span: timedelta, written: str) -> None:
    duration = Duration.parse(text)
    assert duration == span
    assert duration.to_json() == written


@pytest.mark.parametrize("raw", ["5", "s", "5 s", "5d", "", 5, None], ids=repr)
def test_what_is_no_duration_is_refused(raw: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        Duration.parse(raw)


@given(st.timedeltas(min_value=timedelta(days=-10), max_value=timedelta(days=1000)))
def test_a_written_duration_reads_back_within_a_microsecond(span: timedelta) -> None:
    read = Duration.parse(Duration(seconds=0, microseconds=span // timedelta(microseconds=1)).to_json())
    assert abs(read - span) <= timedelta(microseconds=1)


def test_a_dscp_mark_keeps_its_name() -> None:
    assert Dscp.parse("ef").to_json() == "EF"
    assert Dscp.parse("AF11").value == 10
    assert Dscp.parse("12").to_json() == 12
    with pytest.raises(ValueError, match="DSCP"):
        Dscp.parse(64)


def test_scalars_are_frozen_and_can_be_copied() -> None:
    port = Port(80, 90)
    with pytest.raises(AttributeError):
        port.first = 1
    with pytest.raises(AttributeError):
        del port.first
    assert copy.deepcopy(port) == port == pickle.loads(pickle.dumps(port))
    assert len({Port(1, 2), Port(1, 2), Port(1, 3)}) == 2
    assert repr(port) == "Port(80, 90, '')"
