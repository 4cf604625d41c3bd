"""The framing that all netlink families share."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.netlink.message import (
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLMSG_DONE,
    NLMSG_ERROR,
    MalformedMessageError,
    Message,
    acknowledgement,
    attribute,
    attributes,
    be16,
    be32,
    be64,
    iter_attributes,
    message,
    messages,
    nested,
    read_be16,
    read_be32,
    read_be64,
    read_string,
    read_u32,
    string,
    u8,
    u16,
    u32,
    u64,
)

pairs = st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=8)


@given(pairs)
def test_attributes_come_back_as_they_were_written_and_aligned(wanted: list[tuple[int, bytes]]) -> None:
    data = b"".join(attribute(kind, payload) for kind, payload in wanted)
    assert list(iter_attributes(data)) == wanted
    assert len(data) % 4 == 0


@given(st.lists(st.tuples(st.integers(16, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=30)), max_size=6))
def test_messages_come_back_as_they_were_written(wanted: list[tuple[int, int, bytes]]) -> None:
    data = b"".join(message(kind, flags, body, 7) for kind, flags, body in wanted)
    assert [(found.kind, found.flags, found.payload) for found in messages(data)] == wanted


@given(st.binary(max_size=80))
def test_bytes_that_make_no_sense_are_refused_and_never_crash(data: bytes) -> None:
    for read in (messages, iter_attributes):
        try:
            list(read(data))
        except MalformedMessageError:
            pass


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        pytest.param(u8(3, 7), "05000300 07000000", id="u8"),
        pytest.param(u16(3, 0x0102), "06000300 02010000", id="u16"),
        pytest.param(u32(3, 0x01020304), "08000300 04030201", id="u32"),
        pytest.param(u64(3, 1), "0c000300 0100000000000000", id="u64"),
        pytest.param(be16(3, 0x0102), "06000300 01020000", id="be16"),
        pytest.param(be32(3, 0x01020304), "08000300 01020304", id="be32"),
        pytest.param(be64(3, 1), "0c000300 0000000000000001", id="be64"),
        pytest.param(string(1, "lo"), "07000100 6c6f0000", id="string"),
        pytest.param(nested(2, u32(1, 1)), "0c000280 08000100 01000000", id="nested"),
    ],
)
def test_integers_and_strings_are_laid_out_as_the_kernel_reads_them(encoded: bytes, expected: str) -> None:
    assert encoded == bytes.fromhex(expected)


def test_readers_undo_the_encoders() -> None:
    assert attributes(u32(1, 5))[1] == struct.pack("=I", 5)
    assert read_u32(attributes(u32(1, 5))[1]) == 5
    assert read_be16(attributes(be16(1, 5))[1]) == 5
    assert read_be32(attributes(be32(1, 5))[1]) == 5
    assert read_be64(attributes(be64(1, 5))[1]) == 5
    assert read_string(attributes(string(1, "cali0"))[1]) == "cali0"


def test_an_integer_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(MalformedMessageError, match="3 bytes where 4"):
        read_u32(b"abc")


def test_an_attribute_too_long_for_its_length_field_is_refused() -> None:
    with pytest.raises(ValueError, match="65540"):
        attribute(1, bytes(65536))


REFUSED = message(24, 5, b"12345678", 9)


@pytest.mark.parametrize(
    ("flags", "original"),
    [
        pytest.param(NLM_F_ACK_TLVS | NLM_F_CAPPED, REFUSED[:16], id="capped to the header"),
        pytest.param(NLM_F_ACK_TLVS, REFUSED, id="the whole message quoted"),
    ],
)
def test_the_kernels_explanation_is_found_behind_the_quoted_message(flags: int, original: bytes) -> None:
    payload = struct.pack("=i", -22) + original + string(1, "Invalid prefix") + u32(2, 20)
    ack = acknowledgement(Message(NLMSG_ERROR, flags, 9, 0, payload))
    assert (ack.sequence, ack.errno, ack.text, ack.offset) == (9, 22, "Invalid prefix", 20)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        pytest.param(NLMSG_ERROR, struct.pack("=i", 0) + REFUSED[:16], id="acknowledgement"),
        pytest.param(NLMSG_DONE, struct.pack("=i", 0), id="end of a dump"),
        pytest.param(NLMSG_DONE, b"", id="end of a dump without a status"),
    ],
)
def test_success_is_errno_zero(kind: int, payload: bytes) -> None:
    assert acknowledgement(Message(kind, 0, 9, 0, payload)).errno == 0
