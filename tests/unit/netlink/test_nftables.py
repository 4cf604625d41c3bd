"""nf_tables messages as pyroute2 decodes them, and our own decoder on messages of another's making."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyroute2.netlink.nfnetlink import nftsocket

from weft.netlink import nftables as nft
from weft.netlink import nftables_expressions as ex
from weft.netlink.message import MalformedMessageError, Message, attribute, be32, messages, nested

TABLE = nft.TableMessages("weft")
names = st.text(st.sampled_from("abcxyz019-_"), min_size=1, max_size=40)


def decoded(kind: Any, data: bytes) -> Any:
    found = kind(data)
    found.decode()
    return found


@given(name=names, priority=st.integers(-(1 << 31), (1 << 31) - 1), drop=st.booleans())
def test_a_base_chain_reads_the_same_to_pyroute2_and_to_us(name: str, priority: int, drop: bool) -> None:
    base = nft.BaseChain("filter", "forward", priority, drop)
    data = TABLE.new_chain(name, base)
    theirs = decoded(nftsocket.nft_chain_msg, data)
    assert theirs.get_attr("NFTA_CHAIN_TABLE") == "weft"
    assert theirs.get_attr("NFTA_CHAIN_NAME") == name
    assert theirs.get_attr("NFTA_CHAIN_TYPE") == "filter"
    (ours,) = messages(data)
    found = nft.table_object(ours)
    assert found is not None
    assert nft.base_chain(found) == base


EXPRESSIONS: dict[str, tuple[bytes, str, dict[str, Any]]] = {
    "meta": (ex.meta(ex.META_L4PROTO), "meta", {"NFTA_META_KEY": "NFT_META_L4PROTO"}),
    "payload": (
        ex.payload(ex.TRANSPORT_HEADER, 2, 2),
        "payload",
        {"NFTA_PAYLOAD_OFFSET": 2, "NFTA_PAYLOAD_LEN": 2, "NFTA_PAYLOAD_BASE": "NFT_PAYLOAD_TRANSPORT_HEADER"},
    ),
    "cmp": (ex.compare(ex.NOT_EQUAL, b"\x06"), "cmp", {"NFTA_CMP_OP": "NFT_CMP_NEQ"}),
    "lookup": (ex.lookup("s", number=7), "lookup", {"NFTA_LOOKUP_SET": "s", "NFTA_LOOKUP_SET_ID": 7}),
    "ct": (ex.ct(ex.CT_STATE), "ct", {"NFTA_CT_KEY": "NFT_CT_STATE"}),
    "log": (ex.log("denied: ", None), "log", {"NFTA_LOG_PREFIX": "denied: "}),
}


@pytest.mark.parametrize(("data", "name", "expected"), EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_an_expression_reads_to_pyroute2_as_it_was_meant(data: bytes, name: str, expected: dict[str, Any]) -> None:
    rule = decoded(nftsocket.nft_rule_msg, TABLE.add_rule("c", data, b""))
    (found,) = rule.get_attr("NFTA_RULE_EXPRESSIONS")
    assert found.get_attr("NFTA_EXPR_NAME") == name
    attributes = found.get_attr("NFTA_EXPR_DATA")
    assert {key: attributes.get_attr(key) for key in expected} == expected


@given(keys=st.lists(st.binary(min_size=6, max_size=6), max_size=5), table=names)
def test_keys_that_need_padding_survive_the_fast_path_and_the_slow(keys: list[bytes], table: str) -> None:
    assert nft.plain_elements(keys, 6) == [nft.element(key) for key in keys]
    found = [
        element
        for data in nft.TableMessages(table).add_elements("s", nft.plain_elements(keys, 6))
        for message in messages(data)
        if (one := nft.table_object(message)) is not None
        for element in nft.elements(one)
    ]
    assert [element.key for element in found] == keys


def test_elements_with_more_than_a_key_are_read_one_by_one() -> None:
    verdict = nft.verdict(nft.VERDICT_GOTO, "fw-cali0")
    listed = [
        nft.element(b"cali0".ljust(16, b"\0"), data=verdict),
        nft.element(b"\x0a\0\0\0", interval_end=True),
        nested(1, nested(1, attribute(1, b"\x0b\0\0\0")), be32(3, 0)),
    ]
    (message,) = messages(TABLE.add_elements("s", listed)[0])
    found = nft.table_object(message)
    assert found is not None
    assert nft.elements(found) == [
        nft.Element(b"cali0".ljust(16, b"\0"), 0, nft.VERDICT_GOTO, "fw-cali0"),
        nft.Element(b"\x0a\0\0\0", nft.ELEMENT_INTERVAL_END, None, None),
        nft.Element(b"\x0b\0\0\0", 0, None, None),
    ]


@given(data=st.binary(max_size=40))
def test_user_data_of_anybody_is_read_without_an_error(data: bytes) -> None:
    for kind, value in nft.read_userdata(data).items():
        assert bytes((kind, len(value))) in data


@pytest.mark.parametrize(("timeout", "flags"), [(b"", 4), (attribute(11, bytes(8)), 20)], ids=["none", "some"])
def test_the_timeout_flag_counts_where_something_times_out_alone(timeout: bytes, flags: int) -> None:
    body = attribute(1, b"weft\0") + be32(3, nft.SET_INTERVAL | nft.SET_TIMEOUT) + be32(4, 7) + be32(5, 4) + timeout
    [answer] = messages(nft._message(nft.NEWSET, 0, body))
    found = nft.table_object(answer)
    assert found is not None
    assert nft.set_layout(found) == nft.SetLayout(flags, 7, 4)


NEWCHAIN, NEWSETELEM = nft.SUBSYSTEM << 8 | 3, nft.SUBSYSTEM << 8 | 12
DUMPED = (
    *messages(TABLE.new_chain("c", nft.BaseChain("filter", "forward", -5, False))),
    *(one for data in TABLE.add_elements("s", nft.plain_elements([b"abcdef", b"ghijkl"], 6)) for one in messages(data)),
    *(
        one
        for data in TABLE.add_elements("m", [nft.element(b"cali0", data=nft.verdict(nft.VERDICT_GOTO, "fw"))])
        for one in messages(data)
    ),
    Message(
        nft.SUBSYSTEM << 8 | nft.NEWOBJ,
        0,
        1,
        0,
        bytes(4) + attribute(1, b"weft\0") + attribute(2, b"n\0") + be32(3, nft.OBJECT_COUNTER) + nested(4, be32(1, 7)),
    ),
)


@given(
    dumped=st.sampled_from(DUMPED),
    places=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 40),
)
@example(dumped=Message(NEWCHAIN, 0, 1, 0, bytes(4) + nested(4)), places=[], cut=0)
def test_a_spoilt_dump_is_refused_as_malformed_or_read(
    dumped: Message, places: list[tuple[int, int]], cut: int
) -> None:
    whole = bytearray(dumped.payload)
    for place, value in places:
        whole[place % len(whole)] = value
    spoilt = dumped._replace(payload=bytes(whole[: max(len(whole) - cut, 0)]))
    for decode in (nft.base_chain, nft.elements, nft.set_layout, nft.counter):
        try:
            found = nft.table_object(spoilt)
            read = decode(found) if found is not None else None
        except MalformedMessageError:
            continue
        assert read is None or isinstance(read, (nft.BaseChain, nft.SetLayout, nft.CounterValue, list))


@given(kind=st.sampled_from([NEWCHAIN, NEWSETELEM]), payload=st.binary(max_size=120))
def test_any_bytes_for_a_dump_are_refused_as_malformed_or_read(kind: int, payload: bytes) -> None:
    try:
        found = nft.table_object(Message(kind, 0, 1, 0, payload))
    except MalformedMessageError:
        return
    assert found is None or found.kind == kind & 0xFF
