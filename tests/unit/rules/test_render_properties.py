"""The rendered table does what the evaluator says, and depends on the node's state alone."""

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from felix.calc.delta import NodeDelta
from felix.calc.graph import Graph
from felix.calc.ip_sets import SetChange
from felix.rules import values as v
from felix.rules.render import Renderer
from tests.fakes import computed_policies as computed
from tests.fakes.nft_packets import Chains, Packet, passes, passes_hook
from tests.unit.calc.world import NODE, START, NodeState, Update, feed, final_state, histories
from weft.model.keys import ResourceKey
from weft.policy.host import Interface, Path, host_verdict, is_failsafe
from weft.policy.values import Direction, EndpointPolicy, HostPolicy
from weft.policy.verdict import Flow, verdict


def render(updates: list[Update], flush_after: frozenset[int] = frozenset()) -> tuple[NodeState, v.Table]:
    graph, renderer, state, chains = Graph(NODE), Renderer(), NodeState(), Chains()
    graph.on_in_sync()
    for number, (key, value) in enumerate(updates):
        feed(graph, key, value)
        if number in flush_after or number == len(updates) - 1:
            delta = graph.flush()
            state.add(delta)
            chains.apply(renderer.render(delta))
    assert not renderer.render(graph.flush())
    return state, chains.table


@given(history=histories, flush_after=st.frozensets(st.integers(0, 24)), order=st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_table_depends_on_the_state_alone(history: list[Update], flush_after: frozenset[int], order: Any) -> None:
    shuffled = list(final_state(history).items())
    order.shuffle(shuffled)
    assert render(history, flush_after | {START - 1})[1] == render(shuffled)[1]


@given(desired=st.lists(computed.deltas(), min_size=1, max_size=2), flows=computed.flows)
@settings(max_examples=120)
def test_the_table_decides_as_the_evaluator(desired: list[NodeDelta], flows: list[Flow]) -> None:
    """The second delta finds the chains of the first: only what it changes is rendered again."""
    renderer, chains, state = Renderer(), Chains(), NodeState()
    for following in desired:
        delta = computed.difference(state, following)
        state.add(delta)
        chains.apply(renderer.render(delta))
    endpoint = state.endpoints["cali1"]
    for flow in flows:
        for direction, packet in (
            (Direction.EGRESS, Packet(flow, "cali1", "eth0")),
            (Direction.INGRESS, Packet(flow, "eth0", "cali1")),
        ):
            expected = verdict(endpoint.policy, state.policies, computed.Members(state), flow, direction)
            assert passes_hook(chains.table, "forward", packet) == expected.allowed, (packet, expected)


INTERFACES = ("eth0", "eth1", "cali1")


@given(desired=computed.host_deltas(), flows=computed.flows, data=st.data())
@settings(max_examples=25)
def test_host_endpoints_decide_as_the_evaluator(desired: NodeDelta, flows: list[Flow], data: st.DataObject) -> None:
    renderer, chains, state = Renderer(), Chains(), NodeState()
    state.add(desired)
    chains.apply(renderer.render(desired))
    assert desired.settings is not None
    at = _Interfaces(desired, state)
    for flow in flows:
        iif, oif = data.draw(st.sampled_from(INTERFACES)), data.draw(st.sampled_from(INTERFACES))
        to_host = iif == "cali1" or at.allows(iif, flow, Direction.INGRESS, Path.LOCAL)
        assert passes(chains.table, ("prerouting", "input"), Packet(flow, iif)) == (
            to_host and (iif != "cali1" or at.allows_before_dnat(flow))
        )
        from_host = oif == "cali1" or at.allows(oif, flow, Direction.EGRESS, Path.LOCAL)
        for translated in (False, True):
            packet = Packet(flow, "", oif, is_translated=translated)
            assert passes(chains.table, ("output", "postrouting"), packet) == from_host
        through = at.allows(iif, flow, Direction.INGRESS, Path.FORWARDED)
        through = through and at.allows(oif, flow, Direction.EGRESS, Path.FORWARDED)
        assert passes(chains.table, ("prerouting", "forward", "postrouting"), Packet(flow, iif, oif)) == through
    for hooks in (("prerouting", "input"), ("output", "postrouting")):
        assert passes(chains.table, hooks, Packet(flows[0], *(("lo", "") if "input" in hooks else ("", "lo"))))


class _Interfaces:
    """The evaluator's word on them: cali1 is a workload's, eth1 has no host endpoint but that for all."""

    def __init__(self, desired: NodeDelta, state: NodeState) -> None:
        assert desired.settings is not None
        self._hosts = desired.host_endpoints
        self._policies, self._members = state.policies, computed.Members(state)
        self._failsafes = {
            Direction.INGRESS: desired.settings.failsafe_inbound,
            Direction.EGRESS: desired.settings.failsafe_outbound,
        }

    def allows(self, interface: str, flow: Flow, direction: Direction, path: Path) -> bool:
        host = self._hosts.get(interface) or self._hosts.get("*")
        if host is None:
            return True
        policy = host.policy
        if interface not in self._hosts and interface.startswith("cali"):
            policy = HostPolicy(forward=policy.forward, pre_dnat=policy.pre_dnat)
        if self._is_answer(flow, direction):
            policy = replace(policy, untracked=EndpointPolicy())
        at = Interface(policy, self._failsafes[direction])
        return host_verdict(at, self._policies, self._members, flow, direction, path).allowed

    def _is_answer(self, flow: Flow, direction: Direction) -> bool:
        """From a failsafe port, of whatever connection: it must not become untracked."""
        other = Direction.EGRESS if direction is Direction.INGRESS else Direction.INGRESS
        asked = replace(
            flow,
            source=flow.destination,
            destination=flow.source,
            source_port=flow.destination_port,
            destination_port=flow.source_port,
        )
        return is_failsafe(self._failsafes[other], asked, other)

    def allows_before_dnat(self, flow: Flow) -> bool:
        """What all interfaces ask of a packet from a workload to the node."""
        host = self._hosts.get("*")
        if host is None:
            return True
        at = Interface(HostPolicy(pre_dnat=host.policy.pre_dnat), self._failsafes[Direction.INGRESS])
        return host_verdict(at, self._policies, self._members, flow, Direction.INGRESS, Path.FORWARDED).allowed


def test_without_host_endpoints_there_are_no_chains_for_them() -> None:
    _, table = render([(ResourceKey("Tier", "default"), None)])
    hooks = sorted((c.hook.hook, c.hook.priority) for c in table.chains.values() if c.hook)
    assert hooks == [("forward", 0), ("forward", 1), ("input", 0), ("output", 0), ("prerouting", -300)]
    assert not any("host" in name and name != "workload-to-host" for name in table.chains)


@given(desired=computed.host_deltas())
@settings(max_examples=15)
def test_nothing_is_left_of_host_endpoints_that_went(desired: NodeDelta) -> None:
    renderer, chains = Renderer(), Chains()
    chains.apply(renderer.render(NodeDelta(settings=desired.settings)))
    before = chains.table
    chains.apply(renderer.render(desired))
    gone = NodeDelta(
        host_endpoints=dict.fromkeys(desired.host_endpoints),
        endpoints=dict.fromkeys(desired.endpoints),
        policies=dict.fromkeys(desired.policies),
        sets={key: SetChange(None) for key in desired.sets},
    )
    chains.apply(renderer.render(gone))
    assert chains.table == before


@pytest.mark.parametrize(
    ("iif", "oif"),
    [("cali9", "eth0"), ("eth0", "cali9"), ("weftdel7", "eth0"), ("eth0", "weftdel7"), ("cali9", "cali8")],
)
def test_interfaces_of_ours_without_policy_pass_nothing(iif: str, oif: str) -> None:
    _, table = render([(ResourceKey("Tier", "default"), None)])
    flow = Flow(source=ip_address("10.0.0.1"), destination=ip_address("10.0.0.2"), protocol=17)
    assert not passes_hook(table, "forward", Packet(flow, iif, oif))
    assert passes_hook(table, "input", Packet(flow, iif, "")) == (iif == "eth0")
    assert passes_hook(table, "output", Packet(flow, "", oif)) == (oif == "eth0")


def test_interfaces_of_others_pass_everything() -> None:
    _, table = render([(ResourceKey("Tier", "default"), None)])
    flow = Flow(source=ip_address("10.0.0.1"), destination=ip_address("10.0.0.2"), protocol=17)
    for state in ("new", "established", "invalid"):
        assert passes_hook(table, "forward", Packet(flow, "eth0", "docker0", state))
