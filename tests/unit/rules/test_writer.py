"""Operations as messages and as text. That both mean the same to a kernel is for tests/functional/nft to show."""

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from felix.rules import operations as op
from felix.rules import text
from felix.rules import values as v
from felix.rules.compiler import compile_rule, interval_elements, intervals_of
from felix.rules.members import members_of, plain_key
from felix.rules.writer import rule_digest, write
from tests.fakes import nft_values
from weft.netlink import nftables as nft
from weft.netlink.message import messages


def test_text_of_a_batch() -> None:
    allow = v.rule(
        v.L4Protocol(v.TCP),
        v.Address(v.Side.SOURCE, (IPv4Network("10.0.0.0/8"),)),
        v.Ports(v.Side.DESTINATION, (v.PortRange(80), v.PortRange(8000, 8080)), negated=True),
        v.Accept(),
        comment="default/web",
    )
    batch = [
        op.CreateTable(),
        op.CreateSet("s", v.KeyType.NETWORK_V4),
        op.AddElements("s", v.KeyType.NETWORK_V4, members_of(v.KeyType.NETWORK_V4, [IPv4Network("10.0.0.0/9")]).keys()),
        op.CreateMap("ends"),
        op.CreateChain("pol"),
        op.CreateChain("forward", v.Hook("filter", "forward", 1, "drop")),
        op.FlushChain("pol"),
        op.AddRule("pol", compile_rule(allow)),
        op.AddRule("forward", compile_rule(v.rule(v.InterfaceVerdict(v.Way.OUT, "ends")))),
        op.AddEntries("ends", {"cali0": v.Goto("pol")}),
        op.RemoveEntries("ends", ["cali1"]),
        op.DeleteSet("old", is_map=True),
        op.DeleteChain("gone"),
    ]
    assert (
        text.script(batch)
        == """\
add table inet weft
add set inet weft s { type ipv4_addr; flags interval, timeout; gc-interval 30d; }
add element inet weft s { 10.0.0.0-10.127.255.255 }
add map inet weft ends { type ifname : verdict; }
add chain inet weft pol
add chain inet weft forward { type filter hook forward priority 1; policy drop; }
flush chain inet weft pol
add rule inet weft pol meta l4proto 6 ip saddr 10.0.0.0/8 th dport != { 80, 8000-8080 } accept comment "default/web"
add rule inet weft forward oifname vmap @ends
add element inet weft ends { "cali0" : goto pol }
delete element inet weft ends { "cali1" }
delete map inet weft old
delete chain inet weft gone
"""
    )


def test_every_message_of_a_batch_knows_its_operation() -> None:
    ports = v.Ports(v.Side.DESTINATION, (v.PortRange(80), v.PortRange(443)))
    add = op.AddRule("c", compile_rule(v.rule(v.L4Protocol(v.TCP), ports, v.Accept())))
    written = write([op.CreateTable(), add])
    assert written.origins == [None, op.CreateTable(), add, add, add, None]
    assert written.messages[0] == nft.BATCH_BEGIN
    assert written.messages[-1] == nft.BATCH_END


def test_a_set_too_large_for_one_message_is_split() -> None:
    keys = {plain_key(IPv4Address(i)) for i in range(10_000)}
    written = write([op.AddElements("s", v.KeyType.ADDRESS_V4, keys)])
    assert len(written.messages) == 2 + 3
    found: list[bytes] = []
    for message in written.messages[1:-1]:
        (decoded,) = messages(message)
        table_object = nft.table_object(decoded)
        assert table_object is not None
        found += [element.key for element in nft.elements(table_object)]
    assert set(found) == keys
    assert len(found) == len(keys)


@given(one=nft_values.rules(), other=nft_values.rules())
def test_rules_have_the_same_digest_only_if_they_are_the_same_to_the_kernel(one: v.Rule, other: v.Rule) -> None:
    first, second = compile_rule(one), compile_rule(other)
    same = (first.parts, one.comment) == (second.parts, other.comment)
    assert (first.digest == second.digest) == same


def test_the_digest_of_a_rule_is_found_in_its_user_data_beside_a_comment() -> None:
    compiled = compile_rule(v.rule(v.Accept(), comment="why"))
    (decoded,) = messages(write([op.AddRule("c", compiled)]).messages[1])
    table_object = nft.table_object(decoded)
    assert table_object is not None
    data = table_object.attributes[7]
    assert rule_digest(data) == compiled.digest
    assert nft.read_userdata(data)[nft.USERDATA_COMMENT] == b"why\0"


@given(members=st.frozensets(nft_values.networks(4), max_size=8))
def test_intervals_survive_encoding_and_decoding(members: frozenset[v.IPNetwork]) -> None:
    keys = members_of(v.KeyType.NETWORK_V4, members).keys()
    written = write([op.AddElements("s", v.KeyType.NETWORK_V4, keys)]).messages[1:-1]
    found: list[nft.Element] = []
    for message in written:
        (decoded,) = messages(message)
        table_object = nft.table_object(decoded)
        assert table_object is not None
        found += nft.elements(table_object)
    assert len(found) == len(interval_elements(list(keys), 4))
    assert intervals_of(found, 4) == keys
