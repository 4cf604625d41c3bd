"""What is passed on of what was learnt, to whom, and with what."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bird_agent.bestpath import Path, Peer
from bird_agent.exabgp.commands import Announcement
from bird_agent.exabgp.events import AsSegment, PathAttributes
from bird_agent.exports import Exports, Source, advertising
from bird_agent.filters import MAX_PRIORITY
from bird_agent.passing import NO_ADVERTISE, NO_EXPORT, Area, Learnt, Role
from bird_agent.policy import Exporter, policies
from bird_agent.session_config import SessionConfig, SessionKind
from tests.unit.bird_agent.test_filters import filters
from weft.model.address import IPAddress, IPNetwork
from weft.model.base import Metadata
from weft.model.bgp import BGPConfiguration, BGPConfigurationSpec, PrefixAdvertisement, ServiceBlock
from weft.model.node import Node
from weft.model.pool import IPPool, IPPoolSpec

CLUSTER = IPv4Address("244.0.0.1")
BLOCK, OTHERS, BEYOND = (ip_network(text) for text in ("10.65.0.0/26", "10.65.1.0/26", "203.0.113.0/24"))
IN_BLOCK, PRIVATE = ip_network("10.65.0.7/32"), ip_network("10.66.1.0/26")
EXTERNAL = ip_network("198.51.100.7/32")
POOLS = [
    IPPool(metadata=Metadata(name="p"), spec=IPPoolSpec(cidr=ip_network("10.65.0.0/16"))),
    IPPool(metadata=Metadata(name="q"), spec=IPPoolSpec(cidr=ip_network("10.66.0.0/16"), disable_bgp_export=True)),
]
TOR, INNER, CLIENT, SECOND = (ip_address(f"10.1.0.{last}") for last in (254, 1, 2, 3))
ME = ip_address("10.1.0.9")
NORMAL = MAX_PRIORITY - 1024


def session(peer: IPAddress, **values: Any) -> SessionConfig:
    base: dict[str, Any] = {
        "peer_as": 65001 if peer == TOR else 64512,
        "local": ME,
        "local_as": 64512,
        "kind": SessionKind.NODE,
        "resource": "BGPPeer/x",
        "client": peer in (CLIENT, SECOND),
    }
    return SessionConfig(peer=peer, **{**base, **values})


def path(peer: IPAddress, next_hop: IPAddress | None = None, **attributes: Any) -> Path:
    internal = peer != TOR
    if internal:
        attributes = {"local_preference": NORMAL, **attributes}
    sender = Peer(peer, IPv4Address(int(peer)), 64512 if internal else 65001, internal, 64512)
    return Path(sender, next_hop or peer, PathAttributes(origin=0, **attributes))


def exporter(
    learnt: dict[IPNetwork, Path],
    reflects: bool = True,
    config: SessionConfig | None = None,
    rules: tuple[dict[str, Any], ...] = (),
    **spec: Any,
) -> Exporter:
    exports = Exports()
    default = BGPConfiguration(metadata=Metadata(name="default"), spec=BGPConfigurationSpec(**spec))
    known = advertising(Node(metadata=Metadata(name="n1")), {"default": default}, POOLS)
    exports.set_basis(frozenset({BLOCK}), known)
    role = Role(CLUSTER if reflects else None, frozenset({CLIENT, SECOND} if reflects else ()), passes=True)
    kept = Learnt()
    best = {prefix: (one,) for prefix, one in learnt.items()}
    kept.set_basis(role, Area(known, {BLOCK}, reflects), bool(rules), best)
    made = Exporter(exports, kept, lambda _: "up0")
    if config is not None and rules:
        made.policies = policies([config], filters(*rules, direction="exportV4"))
    return made


def passed(made: Exporter, config: SessionConfig) -> dict[IPNetwork, Announcement]:
    return {prefix: one for prefix, one in made.announcements(config).items() if prefix != BLOCK}


@pytest.mark.parametrize(
    ("source", "target", "reflects", "does"),
    [
        (INNER, TOR, False, True),
        (TOR, INNER, False, True),
        (INNER, CLIENT, False, False),
        (INNER, INNER, False, False),
        (TOR, TOR, False, False),
        (INNER, CLIENT, True, True),
        (CLIENT, INNER, True, True),
        (CLIENT, SECOND, True, True),
        (CLIENT, CLIENT, True, False),
        (CLIENT, TOR, True, True),
        (TOR, CLIENT, True, True),
    ],
)
def test_routes_pass_between_ases_and_within_one_only_by_way_of_a_reflector(
    source: IPAddress, target: IPAddress, reflects: bool, does: bool
) -> None:
    made = exporter({OTHERS: path(source)}, reflects)
    assert bool(passed(made, session(target, client=reflects and target in (CLIENT, SECOND)))) == does


def test_two_internal_peers_that_are_no_clients_hear_nothing_of_each_other() -> None:
    made = exporter({OTHERS: path(INNER)})
    other = session(ip_address("10.1.0.8"))
    assert passed(made, other) == {}
    assert made.explain(other, OTHERS) == "learnt within the AS, and neither end is a client of this node"


def test_a_reflected_route_keeps_what_it_has_and_says_where_it_came_from() -> None:
    attributes = {
        "as_path": (AsSegment("as-sequence", (65005,)), AsSegment("as-set", (65006, 65007))),
        "med": 7,
        "communities": ((64512, 1),),
        "extended_communities": (0x0002FC0000000001, 0x4002FC0000000001),
        "others": ("atomic-aggregate",),
    }
    hop = ip_address("10.1.0.77")
    made = exporter({OTHERS: path(CLIENT, hop, **attributes)})
    assert passed(made, session(SECOND))[OTHERS] == Announcement(
        hop,
        communities=("64512:1",),
        local_preference=NORMAL,
        as_path=(65005, (65006, 65007)),
        med=7,
        originator_id=IPv4Address(int(CLIENT)),
        cluster_list=(CLUSTER,),
        extended_communities=(0x0002FC0000000001, 0x4002FC0000000001),
        others=("atomic-aggregate",),
    )
    # To another AS: our own number before the path, and nothing that is only for inside.
    assert passed(made, session(TOR))[OTHERS] == Announcement(
        ME,
        communities=("64512:1",),
        as_path=(64512, 65005, (65006, 65007)),
        med=1,
        extended_communities=(0x0002FC0000000001,),
        others=("atomic-aggregate",),
    )


def test_a_route_that_was_reflected_before_keeps_its_originator_and_gets_one_more_cluster() -> None:
    first, before = IPv4Address("10.1.0.66"), IPv4Address("244.0.0.9")
    made = exporter({OTHERS: path(INNER, originator_id=first, cluster_list=(before,))})
    told = passed(made, session(CLIENT))[OTHERS]
    assert (told.originator_id, told.cluster_list) == (first, (CLUSTER, before))


def test_what_comes_from_another_as_is_not_reflected_but_passed_on() -> None:
    told = passed(exporter({OTHERS: path(TOR, as_path=(AsSegment("as-sequence", (65001,)),))}), session(CLIENT))[OTHERS]
    assert (told.originator_id, told.cluster_list) == (None, ())
    assert (told.next_hop, told.local_preference, told.as_path) == (TOR, 100, (65001,))


HOP = ip_address("10.1.0.77")


@pytest.mark.parametrize(
    ("target", "mode", "expected"),
    [
        (CLIENT, "Auto", HOP),
        (CLIENT, "Keep", HOP),
        (CLIENT, "Self", ME),
        (TOR, "Auto", ME),
        (TOR, "Keep", HOP),
        (TOR, "Self", ME),
    ],
)
def test_next_hop_mode_says_which_next_hop_a_passed_route_has(
    target: IPAddress, mode: Any, expected: IPAddress
) -> None:
    made = exporter({OTHERS: path(INNER, HOP)})
    assert passed(made, session(target, next_hop_mode=mode))[OTHERS].next_hop == expected


def test_a_link_local_next_hop_is_for_nobody_else_and_a_peer_is_not_sent_to_itself() -> None:
    prefix, six = ip_network("fd65::/122"), ip_address("fd00::9")
    pool = IPPool(metadata=Metadata(name="six"), spec=IPPoolSpec(cidr=ip_network("fd65::/64")))
    POOLS.append(pool)
    try:
        made = exporter({prefix: path(INNER, ip_address("fe80::1%10.1.0.1"))})
    finally:
        POOLS.remove(pool)
    config = session(CLIENT, versions=(4, 6), other_local=six)
    assert passed(made, config)[prefix].next_hop == six
    made = exporter({OTHERS: path(INNER, CLIENT)})
    assert passed(made, session(CLIENT)) == {}
    assert made.explain(session(CLIENT), OTHERS) == "its next hop is the peer"


@pytest.mark.parametrize(
    ("prefix", "preference", "reflects", "does"),
    [
        pytest.param(OTHERS, NORMAL, False, True, id="in a pool"),
        pytest.param(BEYOND, NORMAL, True, False, id="in no pool"),
        pytest.param(PRIVATE, NORMAL, True, False, id="in a pool with disableBGPExport"),
        pytest.param(IN_BLOCK, NORMAL, True, False, id="in a block of this node"),
        pytest.param(IN_BLOCK, MAX_PRIORITY - 512, False, True, id="moving away from this node"),
        pytest.param(EXTERNAL, NORMAL, False, False, id="a service's external address"),
        pytest.param(EXTERNAL, NORMAL, True, True, id="a service's external address, at a reflector"),
    ],
)
def test_without_filters_what_lies_in_pools_and_ranges_is_passed_on(
    prefix: IPNetwork, preference: int, reflects: bool, does: bool
) -> None:
    ranges = (ServiceBlock(cidr=EXTERNAL),)
    made = exporter({prefix: path(INNER, local_preference=preference)}, reflects, service_external_ips=ranges)
    assert (prefix in passed(made, session(TOR))) == does


def test_filters_decide_first_and_can_ask_for_what_was_learnt() -> None:
    config = session(TOR, filters=("f",))
    learnt = {OTHERS: path(INNER), BEYOND: path(INNER), PRIVATE: path(CLIENT)}
    rules = ({"action": "Accept", "source": "RemotePeers", "operations": [{"addCommunity": {"value": "9:9"}}]},)
    found = exporter(learnt, config=config, rules=rules).announcements(config)
    assert {prefix: one.communities for prefix, one in found.items()} == {
        BLOCK: (),
        **dict.fromkeys(learnt, ("9:9",)),
    }
    made = exporter(learnt, config=config, rules=({"action": "Reject", "source": "RemotePeers"},))
    assert made.announcements(config).keys() == {BLOCK}
    assert made.explain(config, OTHERS) == "rejected by BGPFilter/f exportV4[0]"
    made = exporter(learnt, config=config, rules=({"action": "Accept", "asPathPrefix": [65001]},))
    assert made.announcements(config).keys() == {BLOCK, OTHERS}


def test_prefix_advertisements_tag_what_is_passed_on_too() -> None:
    tagged = (PrefixAdvertisement(cidr=ip_network("10.65.1.0/24"), communities=("100:1",)),)
    made = exporter({OTHERS: path(INNER, communities=((5, 5),))}, prefix_advertisements=tagged)
    assert passed(made, session(TOR))[OTHERS].communities == ("5:5", "100:1")


def test_well_known_communities_keep_a_route_where_it_is() -> None:
    made = exporter({OTHERS: path(TOR, communities=(NO_ADVERTISE,)), BEYOND: path(INNER)})
    assert passed(made, session(CLIENT)) == {}
    made = exporter({OTHERS: path(CLIENT, communities=(NO_EXPORT,))})
    assert passed(made, session(TOR)) == {}
    assert passed(made, session(SECOND)).keys() == {OTHERS}


def test_our_own_goes_before_what_was_learnt_but_for_other_routes_of_the_kernel() -> None:
    made = exporter({OTHERS: path(INNER), BLOCK: path(INNER)})
    assert made.announcements(session(TOR))[BLOCK] == Announcement(ME)
    made._exports.change_workloads({ip_network("10.65.1.1/32"): "cali1"}, ())
    made._exports.set_others([(OTHERS, Source.KERNEL, "up0", 50)])
    assert passed(made, session(TOR))[OTHERS].as_path == (64512,)
    made._exports.set_others([(OTHERS, Source.CONNECTED, "up0", 0)])
    assert OTHERS not in passed(made, session(TOR))


def test_learnt_tells_what_changed_and_nothing_else() -> None:
    kept = Learnt()
    known = advertising(None, {}, POOLS)
    area, role = Area(known, {BLOCK}, False), Role(None, frozenset(), passes=True)
    first, second = path(INNER), path(SECOND)
    assert kept.set_basis(role, area, False, {OTHERS: (first,), BEYOND: (first,)}) == {OTHERS}
    assert kept.on_best([OTHERS, BEYOND], {OTHERS: (first, second), BEYOND: (second,)}) == set()
    assert kept.on_best([OTHERS], {OTHERS: (second,)}) == {OTHERS}
    assert kept.on_best([OTHERS], {}) == {OTHERS}
    assert kept.set_basis(replace(role, passes=False), area, True, {OTHERS: (first,)}) == set()
    assert kept.on_best([OTHERS], {OTHERS: (first,)}) == set()


PREFIXES = st.sampled_from([OTHERS, BEYOND, PRIVATE, IN_BLOCK, EXTERNAL, ip_network("10.65.2.0/26")])
PATHS = st.builds(
    path,
    st.sampled_from([TOR, INNER, CLIENT, SECOND]),
    st.sampled_from([HOP, TOR, CLIENT, None]),
    med=st.sampled_from([None, 5]),
    communities=st.sampled_from([(), (NO_EXPORT,), ((1, 2),)]),
    cluster_list=st.sampled_from([(), (IPv4Address("9.9.9.9"),)]),
    as_path=st.sampled_from([(), (AsSegment("as-sequence", (65001, 65002)),)]),
)


@given(
    learnt=st.dictionaries(PREFIXES, PATHS),
    target=st.sampled_from([TOR, INNER, CLIENT, SECOND]),
    reflects=st.booleans(),
    mode=st.sampled_from(["Auto", "Self", "Keep"]),
)
def test_all_at_once_are_told_what_each_by_itself_would_be_and_never_what_makes_a_loop(
    learnt: dict[IPNetwork, Path], target: IPAddress, reflects: bool, mode: Any
) -> None:
    made = exporter(learnt, reflects)
    config = session(target, next_hop_mode=mode, client=reflects and target in (CLIENT, SECOND))
    told = passed(made, config)
    one_by_one = {
        prefix: made.decide_learnt(config, prefix, entry).announcement for prefix, entry in made._learnt.entries.items()
    }
    assert told == {prefix: one for prefix, one in one_by_one.items() if one is not None}
    for prefix, one in told.items():
        source = learnt[prefix]
        assert source.peer.address != target
        assert one.next_hop != target
        if not config.internal:
            assert one.as_path[0] == 64512
            assert one.med == (1 if source.peer.internal else None)
            assert (one.local_preference, one.originator_id, one.cluster_list) == (None, None, ())
        elif source.peer.internal:
            assert reflects
            assert one.cluster_list == (CLUSTER, *source.attributes.cluster_list)
            assert one.originator_id == IPv4Address(int(source.peer.address))
