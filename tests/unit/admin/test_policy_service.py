"""Counters and flows travel as they are."""

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.admin.policy import Count, Counters, EndCount, Flow, Flows, Party, PolicyCount, RuleCount
from weft.admin.services.policy import PolicyServer, counters_message, counters_value, flows_value
from weft.admin.v1 import policy_pb2 as pb
from weft.model.errors import ValidationError
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction

TEXTS = st.sampled_from(["", "a", "kube-system"])
NUMBERS = st.integers(0, (1 << 64) - 1)
COUNTS = st.builds(Count, NUMBERS, NUMBERS)
KEYS = st.sampled_from([ResourceKey("NetworkPolicy", "db", "shop"), ResourceKey("Profile", "kns.shop")])
RULES = st.builds(
    RuleCount, st.sampled_from(Direction), st.integers(0, 9), st.just("3f"), st.sampled_from(Action), COUNTS
)
COUNTERS = st.builds(
    Counters,
    st.lists(st.builds(PolicyCount, KEYS, st.lists(RULES, max_size=3).map(tuple), COUNTS, COUNTS)).map(tuple),
    st.lists(st.builds(EndCount, st.sampled_from(Direction), TEXTS, COUNTS)).map(tuple),
)
PARTIES = st.builds(
    Party,
    st.sampled_from([ip_address("10.0.0.1"), ip_address("fd00::1")]),
    st.none() | st.integers(1, 65535),
    TEXTS,
    TEXTS,
)
FLOWS = st.builds(
    Flow,
    sequence=NUMBERS,
    first_s=st.floats(0, 2e9),
    last_s=st.floats(0, 2e9),
    packets=NUMBERS,
    action=st.sampled_from(Action),
    direction=st.sampled_from(Direction),
    interface=TEXTS,
    source=PARTIES,
    destination=PARTIES,
    protocol=st.integers(0, 255),
    icmp_type=st.none() | st.integers(0, 255),
    icmp_code=st.none() | st.integers(0, 255),
    tier=TEXTS,
    policy=st.none() | KEYS,
    rule=st.none() | st.integers(0, 5),
    rule_id=TEXTS,
)


class Provider:
    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[ResourceKey | None] = []

    async def counters(self, policy: ResourceKey | None = None) -> Counters:
        self.asked.append(policy)
        return self.answer  # type: ignore[no-any-return]

    def flows(self, after: int = 0) -> Flows:
        return Flows([one for one in self.answer if one.sequence > after], 7, 3)


@given(COUNTERS)
def test_counters_travel(counters: Counters) -> None:
    assert counters_value(pb.Counters.FromString(counters_message(counters).SerializeToString())) == counters


@given(flows=st.lists(FLOWS, max_size=3))
async def test_flows_travel(flows: list[Flow]) -> None:
    server = PolicyServer(Provider(flows))
    answer = await server.GetFlows(pb.GetFlowsRequest(after=2), None)
    after = tuple(one for one in flows if one.sequence > 2)
    assert flows_value(pb.Flows.FromString(answer.SerializeToString())) == Flows(after, 7, 3)


async def test_one_policy_is_asked_for_by_its_key_and_all_without() -> None:
    provider = Provider(Counters())
    server = PolicyServer(provider)
    await server.GetCounters(pb.GetCountersRequest(), None)
    key = pb.PolicyKey(kind="NetworkPolicy", namespace="shop", name="db")
    await server.GetCounters(pb.GetCountersRequest(policy=key), None)
    assert provider.asked == [None, ResourceKey("NetworkPolicy", "db", "shop")]


@pytest.mark.parametrize(
    ("key", "field"),
    [
        (pb.PolicyKey(kind="Node", name="here"), "policy.kind"),
        (pb.PolicyKey(kind="NetworkPolicy", name="here"), "policy.namespace"),
        (pb.PolicyKey(kind="Profile", name="a/b"), "policy.name"),
    ],
)
async def test_a_key_that_is_no_policy_s_is_refused_with_its_field(key: pb.PolicyKey, field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        await PolicyServer(Provider(Counters())).GetCounters(pb.GetCountersRequest(policy=key), None)
    assert caught.value.field == field
