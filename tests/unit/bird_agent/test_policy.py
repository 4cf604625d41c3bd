"""What each peer is told, with what and why; and what is accepted of what it says."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bird_agent.bestpath import Local, Path, Peer, local_preference_of, unusable
from bird_agent.exabgp.commands import Announcement
from bird_agent.exabgp.events import AsSegment, PathAttributes
from bird_agent.exports import Exports, Source, advertising
from bird_agent.filters import MAX_PRIORITY
from bird_agent.passing import Learnt
from bird_agent.policy import Exporter, Importer, Own, Policies, policies
from bird_agent.session_config import SessionConfig, SessionKind
from tests.unit.bird_agent.test_filters import filters
from weft.model.address import IPNetwork
from weft.model.base import Metadata
from weft.model.bgp import BGPConfiguration, BGPConfigurationSpec, BGPFilter, PrefixAdvertisement
from weft.model.node import Node
from weft.model.pool import IPPool, IPPoolSpec

POOL = IPPool(metadata=Metadata(name="p"), spec=IPPoolSpec(cidr=ip_network("10.65.0.0/16")))
BLOCK, IN_BLOCK, BORROWED = (ip_network(text) for text in ("10.65.0.0/26", "10.65.0.1/32", "10.65.9.1/32"))
CONNECTED, STATIC = ip_network("10.1.0.0/24"), ip_network("192.0.2.0/24")


def session(internal: bool = False, **values: Any) -> SessionConfig:
    base: dict[str, Any] = {
        "peer": ip_address("10.1.0.254"),
        "peer_as": 64512 if internal else 65001,
        "local": ip_address("10.1.0.1"),
        "local_as": 64512,
        "kind": SessionKind.GLOBAL,
        "resource": "BGPPeer/tor",
    }
    return SessionConfig(**{**base, **values})


def exporter(filter_: dict[str, BGPFilter] | None = None, config: SessionConfig | None = None, **spec: Any) -> Exporter:
    exports = Exports()
    default = BGPConfiguration(metadata=Metadata(name="default"), spec=BGPConfigurationSpec(**spec))
    node = Node(metadata=Metadata(name="n1"))
    exports.set_basis(frozenset({BLOCK}), advertising(node, {"default": default}, [POOL]))
    exports.change_workloads({IN_BLOCK: "cali1", BORROWED: "cali2"}, ())
    exports.set_others([(CONNECTED, Source.CONNECTED, "up0", 0), (STATIC, Source.KERNEL, "up0", 50)])
    made = Exporter(exports, Learnt(), lambda _: "")
    if filter_ is not None and config is not None:
        made.policies = policies([config], filter_)
    return made


FILTERED = session(filters=("f",))
NORMAL = MAX_PRIORITY - 1024


def told(internal: bool, *rules: dict[str, Any], **spec: Any) -> dict[IPNetwork, Announcement]:
    config = session(internal, filters=("f",))
    return exporter(filters(*rules, direction="exportV4"), config, **spec).announcements(config)


def test_without_filters_peers_hear_of_blocks_and_borrowed_addresses() -> None:
    assert exporter().announcements(session()) == dict.fromkeys((BLOCK, BORROWED), Announcement(ip_address("10.1.0.1")))
    within = Announcement(ip_address("10.1.0.1"), local_preference=NORMAL)
    assert exporter().announcements(session(True)) == dict.fromkeys((BLOCK, BORROWED), within)
    assert exporter().announcements(session(), {BLOCK, CONNECTED, STATIC}).keys() == {BLOCK}
    six = session(peer=ip_address("fd00::2"), local=ip_address("fd00::1"))
    assert exporter().announcements(six) == {}


def test_priorities_are_carried_as_local_preference_within_the_as() -> None:
    found = exporter(ipv4_normal_route_priority=512).announcements(session(True))
    assert {one.local_preference for one in found.values()} == {MAX_PRIORITY - 512}
    found = told(True, {"action": "Accept", "priority": 50})
    assert {prefix: one.local_preference for prefix, one in found.items()} == {
        BLOCK: NORMAL,
        BORROWED: NORMAL,
        STATIC: MAX_PRIORITY - 50,
    }


@pytest.mark.parametrize(
    ("rules", "announced"),
    [
        pytest.param([{"action": "Reject"}], set(), id="reject all"),
        pytest.param([{"action": "Accept"}], {BLOCK, IN_BLOCK, BORROWED, CONNECTED, STATIC}, id="accept all"),
        pytest.param(
            [{"action": "Accept", "cidr": "10.1.0.0/24", "matchOperator": "Equal"}],
            {BLOCK, BORROWED, CONNECTED},
            id="a connected network as well",
        ),
        pytest.param(
            [{"action": "Reject", "cidr": "10.65.9.0/24", "matchOperator": "In"}], {BLOCK}, id="no borrowed address"
        ),
        pytest.param(
            [{"action": "Accept", "source": "RemotePeers"}, {"action": "Reject"}], set(), id="nothing is re-advertised"
        ),
        pytest.param(
            [{"action": "Accept", "interface": "cali*"}, {"action": "Reject"}], {IN_BLOCK, BORROWED}, id="by interface"
        ),
        pytest.param([{"action": "Accept", "asPathPrefix": [1]}, {"action": "Reject"}], set(), id="no AS path yet"),
    ],
)
def test_filters_come_before_what_is_announced_by_itself(
    rules: list[dict[str, Any]], announced: set[IPNetwork]
) -> None:
    assert told(False, *rules).keys() == announced


TAGGED = (PrefixAdvertisement(cidr=ip_network("10.65.0.0/24"), communities=("100:1", "100:2:3")),)


def test_what_a_filter_accepts_is_not_tagged_with_the_communities_of_its_prefix() -> None:
    found = exporter(prefix_advertisements=TAGGED).announcements(session())
    assert (found[BLOCK].communities, found[BLOCK].large_communities) == (("100:1",), ("100:2:3",))
    assert found[BORROWED].communities == ()
    rule = {"action": "Accept", "operations": [{"addCommunity": {"value": "9:9"}}]}
    found = told(False, rule, prefix_advertisements=TAGGED)
    assert (found[BLOCK].communities, found[BLOCK].large_communities) == (("9:9",), ())


@pytest.mark.parametrize(
    ("internal", "as_path"),
    [pytest.param(False, (64512, 65000, 65001), id="eBGP"), pytest.param(True, (65000, 65001), id="iBGP")],
)
def test_what_is_prepended_stands_behind_our_own_as(internal: bool, as_path: tuple[int, ...]) -> None:
    rule = {"action": "Accept", "operations": [{"prependASPath": {"prefix": [65000, 65001]}}]}
    assert told(internal, rule)[BLOCK].as_path == as_path


def test_a_decision_names_the_rule_that_took_it() -> None:
    rules = [
        {"action": "Reject", "cidr": "10.65.0.0/26", "matchOperator": "Equal"},
        {"action": "Accept", "cidr": "10.1.0.0/24", "matchOperator": "In"},
    ]
    made = exporter(filters(*rules, direction="exportV4"), FILTERED)
    reasons = {str(prefix): made.decide(FILTERED, one).reason for prefix, one in made.candidates.items()}
    assert reasons == {
        "10.65.0.0/26": "rejected by BGPFilter/f exportV4[0]",
        "10.65.0.1/32": "workload: not announced unless a filter accepts it",
        "10.65.9.1/32": "workload",
        "10.1.0.0/24": "accepted by BGPFilter/f exportV4[1]",
        "192.0.2.0/24": "kernel route: not announced unless a filter accepts it",
    }


@given(
    st.lists(st.tuples(st.sampled_from([BLOCK, IN_BLOCK, BORROWED, STATIC]), st.booleans()), max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_peers_without_filters_are_told_what_a_filter_without_rules_would_let_pass(
    workloads: list[tuple[IPNetwork, bool]], internal: bool, tagged: bool
) -> None:
    made = exporter(prefix_advertisements=TAGGED if tagged else ())
    for prefix, present in workloads:
        made._exports.change_workloads({prefix: "cali9"} if present else {}, [] if present else [prefix])
    config = session(internal)
    decided = {prefix: made.decide(config, one).announcement for prefix, one in made.candidates.items()}
    assert made.announcements(config) == {prefix: one for prefix, one in decided.items() if one is not None}


PEER = Peer(ip_address("10.1.0.254"), IPv4Address("10.1.0.254"), 65001, False)
OWN = Own(
    frozenset({ip_address("10.0.0.1")}),
    frozenset({ip_network("10.65.0.0/26")}),
)


def importer(*rules: dict[str, Any]) -> Importer:
    made = policies([FILTERED], filters(*rules)) if rules else Policies()
    return Importer(OWN, made, {ip_address("10.1.0.254"): "up0"}.__getitem__)


def path(internal: bool = False, **attributes: Any) -> Path:
    peer = Peer(PEER.address, PEER.router_id, 64512 if internal else 65001, internal)
    return Path(peer, PEER.address, PathAttributes(**attributes))


@pytest.mark.parametrize(
    ("prefix", "accepted"),
    [
        ("10.65.1.0/26", True),
        ("10.65.0.7/32", True),
        ("10.0.0.9/32", True),
        ("10.65.0.0/16", True),
        ("0.0.0.0/0", True),
        ("::/0", True),
        ("10.65.0.0/26", False),
        ("10.65.0.32/27", False),
        ("10.65.0.64/27", True),
        ("10.0.0.1/32", False),
        ("169.254.1.0/24", False),
        ("fe80::/64", False),
        ("127.0.0.0/8", False),
        ("224.0.0.0/4", False),
        ("10.96.0.1/32", True),
    ],
)
def test_everything_is_accepted_but_what_can_only_be_a_mistake(prefix: str, accepted: bool) -> None:
    for judge in (importer(), importer({"action": "Accept"})):
        assert isinstance(judge(path(), ip_network(prefix)), Path) == accepted


P = ip_network("203.0.113.0/24")


def test_an_import_filter_rejects_and_says_by_which_rule() -> None:
    judge = importer(
        {"action": "Accept", "peerType": "iBGP"},
        {"action": "Reject", "communities": {"values": ["1:1"]}},
        {"action": "Reject", "interface": "up0", "asPathPrefix": [65001]},
    )
    assert isinstance(judge(path(), P), Path)
    assert isinstance(judge(path(True, communities=((1, 1),)), P), Path)
    assert judge(path(communities=((1, 1),)), P) == "rejected by BGPFilter/f importV4[1]"
    reason = judge(path(as_path=(AsSegment("as-sequence", (65001,)),)), P)
    assert reason == "rejected by BGPFilter/f importV4[2]"


def test_an_import_filter_changes_what_the_best_path_is_chosen_by() -> None:
    rule = {
        "action": "Accept",
        "operations": [
            {"setPriority": {"value": 100}},
            {"addCommunity": {"value": "9:9"}},
            {"prependASPath": {"prefix": [65001]}},
        ],
    }
    made = importer(rule)(path(local_preference=5, as_path=(AsSegment("as-sequence", (65001,)),)), P)
    assert isinstance(made, Path)
    assert local_preference_of(made) == MAX_PRIORITY - 100
    assert made.attributes.communities == ((9, 9),)
    assert made.attributes.as_path == (AsSegment("as-sequence", (65001, 65001)),)


@pytest.mark.parametrize(
    ("asked", "priority"),
    [
        pytest.param(path(True, local_preference=MAX_PRIORITY - 512), 512, id="as a Calico node says"),
        pytest.param(path(True), MAX_PRIORITY - 100, id="not said"),
        pytest.param(
            path(local_preference=MAX_PRIORITY - 512), MAX_PRIORITY - 100, id="what another AS says is nothing"
        ),
    ],
)
def test_the_priority_of_a_received_route_is_its_local_preference(asked: Path, priority: int) -> None:
    judge = importer({"action": "Reject", "priority": priority})
    assert judge(asked, P) == "rejected by BGPFilter/f importV4[0]"


@pytest.mark.parametrize(
    ("local_as", "allowed", "numbers", "usable"),
    [
        pytest.param(None, 0, (65001, 64512), False, id="our AS"),
        pytest.param(None, 1, (65001, 64512), True, id="once allowed"),
        pytest.param(None, 1, (64512, 65001, 64512), False, id="twice"),
        pytest.param(65100, 0, (65001, 64512), True, id="another AS towards this peer"),
        pytest.param(65100, 0, (65001, 65100), False, id="our AS towards this peer"),
    ],
)
def test_how_often_our_own_as_may_be_in_a_path(
    local_as: int | None, allowed: int, numbers: tuple[int, ...], usable: bool
) -> None:
    peer = Peer(PEER.address, PEER.router_id, 65001, False, local_as, allowed)
    asked = Path(peer, PEER.address, PathAttributes(as_path=(AsSegment("as-sequence", numbers),)))
    assert (unusable(asked, Local(64512, IPv4Address(1))) is None) == usable
