"""BGPFilter rules, one match and one operation at a time, and in order."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bird_agent.exabgp.events import AsSegment
from bird_agent.filters import MAX_PRIORITY, FilterRoute, apply, interface_pattern, parse_community, rule_set
from weft.model import codec
from weft.model.base import Metadata
from weft.model.bgp import BGPFilter, BGPFilterRuleV4, BGPFilterSpec
from weft.model.keys import ResourceKey

P100 = MAX_PRIORITY - 100


def sequence(*numbers: int) -> tuple[AsSegment, ...]:
    return (AsSegment("as-sequence", numbers),)


def route(prefix: str = "10.1.2.0/24", **values: Any) -> FilterRoute:
    return FilterRoute(**{"prefix": ip_network(prefix), "local_preference": MAX_PRIORITY - 1024, **values})


def filters(*rules: dict[str, Any], direction: str = "importV4") -> dict[str, BGPFilter]:
    raw = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "BGPFilter",
        "metadata": {"name": "f"},
        "spec": {direction: list(rules)},
    }
    decoded = codec.decode_stored(ResourceKey("BGPFilter", "f"), json.dumps(raw).encode())
    assert isinstance(decoded, BGPFilter)
    return {"f": decoded}


def verdict(asked: FilterRoute, *rules: dict[str, Any], internal: bool = False) -> bool | None:
    """True or False as the rules decide, None if none matches."""
    made, problems = rule_set(["f"], filters(*rules), "import", 4)
    assert problems == []
    found = made.judge(asked, internal)
    return None if found is None else found.accepted


def within(cidr: str, operator: str = "In", **lengths: int) -> dict[str, Any]:
    rule = {"action": "Accept", "cidr": cidr, "matchOperator": operator}
    return rule | ({"prefixLength": lengths} if lengths else {})


@pytest.mark.parametrize(
    ("rule", "matching", "others"),
    [
        pytest.param(within("10.1.0.0/16"), ["10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32"], ["10.0.0.0/8"], id="In"),
        pytest.param(within("10.1.0.0/16", "Equal"), ["10.1.0.0/16"], ["10.1.0.0/17", "10.0.0.0/8"], id="Equal"),
        pytest.param(within("10.1.0.0/16", "NotEqual"), ["10.1.0.0/17", "10.0.0.0/8"], ["10.1.0.0/16"], id="NotEqual"),
        pytest.param(within("10.1.0.0/16", "NotIn"), ["10.0.0.0/8", "10.2.0.0/16"], ["10.1.2.0/24"], id="NotIn"),
        pytest.param(
            within("10.1.0.0/16", min=20, max=24),
            ["10.1.16.0/20", "10.1.2.0/24"],
            ["10.1.0.0/16", "10.1.2.0/25", "10.2.0.0/20"],
            id="In with lengths",
        ),
        pytest.param(within("10.1.0.0/16", min=8), ["10.1.0.0/16"], ["10.0.0.0/8"], id="never wider than the prefix"),
        pytest.param(within("10.1.0.0/16", max=16), ["10.1.0.0/16"], ["10.1.0.0/17"], id="only the longest"),
        pytest.param(
            within("10.1.0.0/16", "NotIn", min=24, max=24),
            ["10.1.0.0/16", "10.1.2.0/25", "10.2.0.0/24"],
            ["10.1.2.0/24"],
            id="NotIn with lengths",
        ),
        pytest.param(
            {"action": "Accept", "prefixLength": {"min": 24}}, ["10.0.0.0/8", "10.1.2.0/24"], [], id="lengths alone"
        ),
    ],
)
def test_matching_prefixes(rule: dict[str, Any], matching: list[str], others: list[str]) -> None:
    assert {text: verdict(route(text), rule) for text in matching} == dict.fromkeys(matching, True)
    assert {text: verdict(route(text), rule) for text in others} == dict.fromkeys(others, None)


@pytest.mark.parametrize(
    ("match", "matching", "other"),
    [
        pytest.param({"source": "RemotePeers"}, {"learnt": True}, {"learnt": False}, id="source"),
        pytest.param({"interface": "eth0"}, {"interface": "eth0"}, {"interface": "eth01"}, id="interface"),
        pytest.param({"interface": "*.calico"}, {"interface": "vxlan.calico"}, {"interface": ""}, id="any interface"),
        pytest.param(
            {"communities": {"values": ["65000:100"]}},
            {"communities": ((1, 1), (65000, 100))},
            {"large_communities": ((65000, 100, 0),)},
            id="community",
        ),
        pytest.param(
            {"communities": {"values": ["65000:100:999"]}},
            {"large_communities": ((65000, 100, 999),)},
            {"communities": ((65000, 100),)},
            id="large community",
        ),
        pytest.param(
            {"asPathPrefix": [65000, 65001]},
            {"as_path": sequence(65000, 65001, 65002)},
            {"as_path": sequence(65000)},
            id="beginning of the AS path",
        ),
        pytest.param(
            {"asPathPrefix": [65000, 65001]},
            {"as_path": (*sequence(65000), AsSegment("as-set", (1, 65001)))},
            {"as_path": sequence(65001, 65000)},
            id="AS path with a set",
        ),
        pytest.param({"priority": 100}, {"local_preference": P100}, {"local_preference": 100}, id="priority"),
    ],
)
def test_matching_what_a_route_carries(match: dict[str, Any], matching: dict[str, Any], other: dict[str, Any]) -> None:
    rule = {"action": "Accept", **match}
    assert verdict(route(**matching), rule) is True
    assert verdict(route(**other), rule) is None
    assert verdict(route(), rule) is None


def test_the_kind_of_peer() -> None:
    rules: tuple[dict[str, Any], ...] = (
        {"action": "Accept", "peerType": "eBGP"},
        {"action": "Reject", "peerType": "iBGP"},
    )
    assert verdict(route(), *rules, internal=False) is True
    assert verdict(route(), *rules, internal=True) is False


def test_all_matches_of_a_rule_have_to_hold_and_the_first_rule_that_matches_decides() -> None:
    rules: tuple[dict[str, Any], ...] = (
        within("10.1.0.0/16") | {"interface": "eth0", "priority": 100},
        {"action": "Reject", "cidr": "10.1.0.0/16", "matchOperator": "In"},
        {"action": "Accept"},
    )
    assert verdict(route(interface="eth0", local_preference=P100), *rules) is True
    assert verdict(route(interface="eth0"), *rules) is False
    assert verdict(route("192.0.2.0/24"), *rules) is True


def test_no_rule_that_matches_is_no_decision() -> None:
    assert verdict(route(), {"action": "Reject", "cidr": "192.0.2.0/24", "matchOperator": "Equal"}) is None
    assert verdict(route()) is None


def operated(asked: FilterRoute, *operations: dict[str, Any]) -> FilterRoute:
    made, problems = rule_set(["f"], filters({"action": "Accept", "operations": list(operations)}), "import", 4)
    assert problems == []
    found = made.judge(asked, True)
    assert found is not None
    assert found.rule == "BGPFilter/f importV4[0]"
    return found.route


@pytest.mark.parametrize(
    ("operations", "before", "after"),
    [
        pytest.param([{"setPriority": {"value": 100}}], {}, {"local_preference": P100}, id="priority"),
        pytest.param(
            [{"addCommunity": {"value": "65000:1"}}, {"addCommunity": {"value": "65000:1"}}],
            {"communities": ((1, 2),)},
            {"communities": ((1, 2), (65000, 1))},
            id="community",
        ),
        pytest.param(
            [{"addCommunity": {"value": "65000:300:400"}}],
            {},
            {"large_communities": ((65000, 300, 400),)},
            id="large community",
        ),
        pytest.param(
            [{"prependASPath": {"prefix": [65001, 65002]}}],
            {"as_path": sequence(3)},
            {"as_path": sequence(65001, 65002, 3)},
            id="AS path",
        ),
        pytest.param(
            [{"prependASPath": {"prefix": [1]}}, {"prependASPath": {"prefix": [2]}}],
            {"as_path": (AsSegment("as-set", (3,)),)},
            {"as_path": (*sequence(2, 1), AsSegment("as-set", (3,)))},
            id="AS path twice, before a set",
        ),
    ],
)
def test_operations(operations: list[dict[str, Any]], before: dict[str, Any], after: dict[str, Any]) -> None:
    assert operated(route(**before), *operations) == replace(route(**before), **after)


def test_filters_come_one_after_the_other_and_one_that_does_not_exist_has_no_rules() -> None:
    def one(name: str, action: str, cidr: str) -> BGPFilter:
        rule = BGPFilterRuleV4(action=action, cidr=ip_network(cidr), match_operator="Equal")  # type: ignore[arg-type]
        return BGPFilter(metadata=Metadata(name=name), spec=BGPFilterSpec(export_v4=(rule,)))

    known = {each.name: each for each in (one("a", "Reject", "10.1.2.0/24"), one("b", "Accept", "10.1.2.0/24"))}
    first, _ = rule_set(["x", "a", "b"], known, "export", 4)
    second, _ = rule_set(["b", "a"], known, "export", 4)
    assert [made.judge(route(), True).accepted for made in (first, second)] == [False, True]  # type: ignore[union-attr]
    for direction, version in (("import", 4), ("export", 6)):
        made, _ = rule_set(["a", "b"], known, direction, version)  # type: ignore[arg-type]
        assert not made


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        pytest.param({"action": "Reject", "cidr": "10.0.0.0/8"}, "matchOperator", id="no operator"),
        pytest.param({"action": "Reject", "communities": {"values": ["1:70000"]}}, "not a community", id="community"),
        pytest.param({"action": "Accept", "operations": [{}]}, "exactly one", id="empty operation"),
        pytest.param(
            {"action": "Reject", "operations": [{"setPriority": {"value": 1}}]}, "that accept", id="rejects and changes"
        ),
    ],
)
def test_a_rule_that_cannot_be_carried_out_is_named_and_matches_nothing(rule: dict[str, Any], text: str) -> None:
    made, (problem,) = rule_set(["f"], filters({"action": "Accept", "peerType": "iBGP"}, rule), "import", 4)
    assert problem.subject == "BGPFilter/f"
    assert problem.text.startswith("importV4[1] matches nothing")
    assert text in problem.text
    assert made.judge(route(), False) is None


@pytest.mark.parametrize("text", ["", "1", "1:2:3:4", "65536:1", "1:4294967296:1", "a:b", "1:-1", "1:²", " 1:1"])
def test_what_is_no_community(text: str) -> None:
    with pytest.raises(ValueError, match="is not a community"):
        parse_community(text)


@given(st.text(alphabet="e*?.1[", max_size=5), st.text(alphabet="e.1[", max_size=5))
def test_interface_patterns_have_two_wild_cards_and_no_others(pattern: str, name: str) -> None:
    def matches(pattern: str, name: str) -> bool:
        if not pattern:
            return not name
        if pattern[0] == "*":
            return any(matches(pattern[1:], name[start:]) for start in range(len(name) + 1))
        return bool(name) and pattern[0] in ("?", name[0]) and matches(pattern[1:], name[1:])

    assert bool(interface_pattern(pattern).fullmatch(name)) == matches(pattern, name)


numbers = st.lists(st.integers(1, 2**32 - 1), max_size=4)


@given(numbers, numbers)
def test_what_was_prepended_is_the_beginning_of_the_path(prefix: list[int], path: list[int]) -> None:
    made = rule_set(
        ["f"],
        filters({"action": "Accept", "asPathPrefix": prefix} if prefix else {"action": "Accept", "priority": 1}),
        "import",
        4,
    )[0]
    operation = filters({"action": "Accept", "operations": [{"prependASPath": {"prefix": prefix}}]})["f"]
    after = apply(operation.spec.import_v4[0].operations, route(as_path=sequence(*path) if path else ()))
    assert [number for segment in after.as_path for number in segment.numbers] == [*prefix, *path]
    if prefix:
        assert made.judge(after, True) is not None
