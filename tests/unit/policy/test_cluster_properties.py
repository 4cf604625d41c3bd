"""The cluster as explain computes it is what felix's graph computes, whatever happened before."""

from ipaddress import ip_address
from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from felix.calc.graph import Graph
from tests.unit.calc.world import NODE, START, NodeState, Update, feed, final_state, histories
from weft.ctl.explain_online import KINDS as POLICY_KINDS
from weft.model.base import Resource
from weft.model.codec import decode_stored
from weft.model.errors import ValidationError
from weft.model.keys import ResourceKey
from weft.policy.cluster import Cluster
from weft.policy.ends import Parties
from weft.policy.explainer import Explainer, Packet, common_addresses
from weft.policy.matching import Flow
from weft.policy.remains import remains
from weft.policy.trace import visits
from weft.policy.values import Direction, PortSet, ServiceSet
from weft.policy.verdict import verdict

ADDRESSES = [
    ip_address(text) for text in ("10.0.0.1", "10.0.0.2", "10.0.0.200", "10.1.0.1", "fd00::1", "fd00::9", "::1")
]
PORTS = (22, 80, 443, 8080)


def cluster_of(history: list[Update]) -> Cluster:
    """What is stored at the end, with what is left of values that cannot be read."""
    found = []
    for key, value in final_state(history).items():
        if isinstance(value, bytes) and isinstance(key, ResourceKey):
            try:
                value = decode_stored(key, value)
            except ValidationError:
                value = remains(key, value).value if key.kind in POLICY_KINDS else None
        if isinstance(value, Resource):
            found.append(value)
    return Cluster(found)


class Node:
    """A graph with all that it has reported so far."""

    def __init__(self, name: str) -> None:
        self.graph, self.state = Graph(name), NodeState()
        self.graph.on_in_sync()

    def take(self, update: Update) -> None:
        feed(self.graph, *update)

    def agrees_with(self, cluster: Cluster) -> None:
        self.state.add(self.graph.flush())
        for key in cluster.endpoints:  # felix compiles the policies of endpoints that another has the interface of, too
            cluster.endpoint_policy(key) if key.kind == "WorkloadEndpoint" else cluster.host_policy(key)
        for local in self.state.endpoints.values():
            assert cluster.endpoint_policy(local.key) == local.policy
            for key in local.policy.asked():
                assert cluster.policies[key] == self.state.policies[key]
        for host in self.state.host_endpoints.values():
            assert cluster.host_policy(host.key) == host.policy
        # felix compiles what chooses an endpoint; in a stage without its direction such a policy is asked nothing.
        for key in self.state.policies.keys() & cluster.policies.keys():
            for one in cluster.policies[key].address_sets().values():
                for address in ADDRESSES:
                    if isinstance(one, PortSet) or (isinstance(one, ServiceSet) and one.with_ports):
                        for asked in product([one.id], [address], (6, 17), PORTS):
                            assert cluster.members.contains_port(*asked) == self.graph.members.contains_port(*asked)
                    else:
                        asked_for = (one.id, address)
                        assert cluster.members.contains(*asked_for) == self.graph.members.contains(*asked_for)


@given(history=histories, look_after=st.frozensets(st.integers(START - 1, 24)))
@settings(max_examples=60)
def test_every_endpoint_has_the_policy_and_the_sets_that_felix_computes(
    history: list[Update], look_after: frozenset[int]
) -> None:
    nodes = [Node(NODE), Node("elsewhere")]
    for number, update in enumerate(history):
        for node in nodes:
            node.take(update)
        if number in look_after or number == len(history) - 1:
            cluster = cluster_of(history[: number + 1])
            for node in nodes:
                node.agrees_with(cluster)


packets = st.one_of(
    st.builds(
        Packet,
        protocol=st.sampled_from([6, 17]),
        source_port=st.sampled_from([None, 1000]),
        destination_port=st.sampled_from([80, 85, 443]),
    ),
    st.builds(Packet, protocol=st.sampled_from([1, 58]), icmp_type=st.just(8), icmp_code=st.just(0)),
)


@given(history=histories, asked=st.lists(packets, min_size=1, max_size=6))
@settings(max_examples=60)
def test_what_is_remembered_changes_no_verdict_and_the_trace_ends_where_it_does(
    history: list[Update], asked: list[Packet]
) -> None:
    cluster = cluster_of(history)
    parties, explainer = Parties(cluster), Explainer(cluster)
    workloads = [parties.of(key) for key in cluster.endpoints if key.kind == "WorkloadEndpoint"]
    for source, destination, packet in product(workloads, [*workloads, parties.find("198.51.100.1")], asked):
        if not (source.addresses and destination.addresses) or source is destination:
            continue
        if {one.version for one in source.addresses}.isdisjoint(one.version for one in destination.addresses):
            continue
        answer = explainer.explain(source, destination, packet)
        flow = _flow(*common_addresses(source, destination), packet)
        for side, party, direction in (
            (answer.egress, source, Direction.EGRESS),
            (answer.ingress, destination, Direction.INGRESS),
        ):
            if party.key is not None:
                policy = cluster.endpoint_policy(party.key)
                assert side.verdict == verdict(policy, cluster.policies, cluster.members, flow, direction)
                seen = visits(cluster, party, side, flow, direction)
                acted = tuple(visit.step for visit in seen if not visit.passed_over)
                assert side.verdict is not None
                assert acted == (*side.verdict.before, side.verdict.decided)
                assert not seen[-1].passed_over


def _flow(source: Any, destination: Any, packet: Packet) -> Flow:
    return Flow(source=source, destination=destination, **packet._asdict())
