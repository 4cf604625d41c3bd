"""Whose connections a change concerns, and what policy says of a connection."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.calc.delta import ANY_INTERFACE, Failsafe, LocalEndpoint, LocalHostEndpoint, NodeDelta, Settings
from felix.calc.ip_sets import SetChange, SetKey, SetKind
from felix.dataplane.connections import MEMBERS_AT_MOST, Concern, Connections, OfHost, Sieve
from tests.fakes import computed_policies as computed
from tests.fakes.conntrack_entries import pack
from tests.unit.calc.world import NodeState
from weft.model.keys import ResourceKey
from weft.netlink.conntrack import Seen
from weft.policy.values import (
    ANY,
    Action,
    AddressPort,
    Direction,
    EndpointPolicy,
    Entity,
    HostPolicy,
    Policy,
    PortRange,
    PortSet,
    Rule,
    SelectorSet,
    TierPolicies,
)
from weft.policy.verdict import Flow, verdict
from weft.selector import parse

FRIENDS = SelectorSet("friends", parse("friend == 'yes'"))
WEB = PortSet("web", parse("all()"), "web")
OPEN, PICKY, NAMED = (ResourceKey("GlobalNetworkPolicy", name) for name in ("open", "picky", "named"))
POLICIES = {
    OPEN: Policy(key=OPEN, ingress=(Rule(action=Action.ALLOW),), egress=(Rule(action=Action.ALLOW),)),
    PICKY: Policy(key=PICKY, ingress=(Rule(action=Action.ALLOW, source=Entity(sets=(FRIENDS,))),), egress=None),
    NAMED: Policy(
        key=NAMED,
        ingress=(Rule(action=Action.ALLOW, protocol=17, destination=Entity(named_ports=(WEB,))),),
        egress=None,
    ),
}
ONE, TWO, FRIEND, STRANGER, HOST = "10.0.0.1", "10.0.0.2", "192.0.2.1", "192.0.2.2", "10.0.0.254"


class FakeMembers:
    def __init__(self) -> None:
        self.addresses = {pack(FRIEND)}
        self.ports = {(pack(TWO), 17, 80)}

    def contains(self, set_id: str, address: object) -> bool:
        return set_id == FRIENDS.id and ip_address(str(address)).packed in self.addresses

    def contains_port(self, set_id: str, address: object, protocol: int, port: int) -> bool:
        return set_id == WEB.id and (ip_address(str(address)).packed, protocol, port) in self.ports


def endpoint(interface: str, *keys: ResourceKey, may_send_as: tuple[str, ...] = ()) -> LocalEndpoint:
    tier = TierPolicies("default", Action.DENY, keys, keys)
    policy = EndpointPolicy((tier,) if keys else ())
    key = ResourceKey("WorkloadEndpoint", interface, "one")
    return LocalEndpoint(key, interface, (), "", policy, tuple(map(ip_network, may_send_as)))


def state(**more: object) -> NodeDelta:
    """cali1 (10.0.0.1) is open, cali2 (10.0.0.2) takes in friends alone and answers no question of its own."""
    values: dict[str, object] = {
        "policies": POLICIES,
        "endpoints": {"cali1": endpoint("cali1", OPEN), "cali2": endpoint("cali2", PICKY)},
        "routes": {ip_network(ONE): "cali1", ip_network(TWO): "cali2"},
    }
    return NodeDelta(**{**values, **more})  # type: ignore[arg-type]


@pytest.fixture
def members() -> FakeMembers:
    return FakeMembers()


@pytest.fixture
def connections(members: FakeMembers) -> Connections:
    made = Connections(members)
    made.on_delta(state())
    made.on_host_addresses({"eth0": [ip_address(HOST)]})
    return made


def seen(source: str, destination: str, port: int = 80, protocol: int = 17) -> Seen:
    return Seen(pack(source), pack(destination), protocol, 4000, port)


# --- verdicts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "destination", "allowed"),
    [
        pytest.param(ONE, STRANGER, True, id="what the sender's egress policy allows"),
        pytest.param(TWO, STRANGER, False, id="what it does not"),
        pytest.param(FRIEND, TWO, True, id="what the receiver's ingress policy allows"),
        pytest.param(STRANGER, TWO, False, id="what it does not, the other way"),
        pytest.param(ONE, TWO, False, id="between workloads both are asked"),
        pytest.param(FRIEND, STRANGER, None, id="nobody here"),
        pytest.param(HOST, TWO, True, id="the node speaks to its workload"),
        pytest.param(ONE, HOST, False, id="a workload speaks to its node"),
    ],
)
def test_a_connection_is_judged_at_its_local_ends(
    connections: Connections, source: str, destination: str, allowed: bool | None
) -> None:
    assert connections.allowed(seen(source, destination)) is allowed


@pytest.mark.parametrize(("action", "allowed"), [("Drop", False), ("Accept", True), ("Return", True)])
def test_the_administrator_says_whether_a_workload_reaches_its_node(
    connections: Connections, action: str, allowed: bool
) -> None:
    concern = connections.on_delta(NodeDelta(settings=Settings(endpoint_to_host=action)))  # type: ignore[arg-type]
    assert connections.allowed(seen(ONE, HOST)) is allowed
    assert connections.allowed(seen(TWO, HOST)) is False, "its egress policy is asked as well"
    assert concern.whole == ({"cali1", "cali2"} if action != "Drop" else set())


def test_a_tunnel_of_a_workloads_own_making_is_refused_unless_the_administrator_allows_it(
    connections: Connections,
) -> None:
    tunnels = [seen(ONE, STRANGER, port=4789), seen(ONE, STRANGER, port=0, protocol=4)]
    assert [connections.allowed(one) for one in tunnels] == [False, False]
    allowing = Settings(allow_vxlan_from_workloads=True, allow_ipip_from_workloads=True)
    assert connections.on_delta(NodeDelta(settings=allowing)).whole == {"cali1", "cali2"}
    assert [connections.allowed(one) for one in tunnels] == [True, True]


def test_what_ipv6_needs_of_a_router_is_never_refused(members: FakeMembers) -> None:
    made = Connections(members)
    made.on_delta(state(routes={ip_network("fd00::1"): "cali1"}))
    made.on_host_addresses({"eth0": [ip_address("fd00::ff")]})
    assert made.allowed(Seen(pack("fd00::1"), pack("fd00::ff"), 58, 135, 0)) is True
    assert made.allowed(Seen(pack("fd00::1"), pack("fd00::ff"), 58, 128, 0)) is False


def test_a_sender_is_known_by_the_prefixes_it_may_send_from(connections: Connections) -> None:
    spoofer = endpoint("cali2", PICKY, may_send_as=("172.16.0.0/12",))
    concern = connections.on_delta(NodeDelta(endpoints={"cali2": spoofer}))
    assert concern.whole == {"cali2"}
    assert connections.allowed(seen("172.16.3.4", STRANGER)) is False
    assert connections.allowed(seen("172.15.3.4", STRANGER)) is None
    sieve = connections.sieve(concern)
    assert sieve.anchors() is None
    assert sieve.wants()(pack("172.16.3.4"), pack(STRANGER))


def test_members_are_asked_anew_after_every_change(connections: Connections, members: FakeMembers) -> None:
    assert connections.allowed(seen(STRANGER, TWO)) is False
    members.addresses.add(pack(STRANGER))
    added = SetChange(SetKind.ADDRESSES, added=frozenset({ip_address(STRANGER)}))
    connections.on_delta(NodeDelta(sets={SetKey("friends", 4): added}))
    assert connections.allowed(seen(STRANGER, TWO)) is True


def test_a_named_port_is_asked_of_the_address_that_has_it(connections: Connections, members: FakeMembers) -> None:
    connections.on_delta(NodeDelta(endpoints={"cali1": endpoint("cali1", NAMED), "cali2": endpoint("cali2", NAMED)}))
    assert connections.allowed(seen(STRANGER, TWO)) is True
    assert connections.allowed(seen(STRANGER, ONE)) is False
    assert connections.allowed(seen(STRANGER, TWO, protocol=6)) is False


@given(desired=computed.deltas(), flows=computed.flows)
def test_a_connection_is_judged_as_explain_judges_its_first_packet(desired: NodeDelta, flows: list[Flow]) -> None:
    node = NodeState()
    node.add(desired)
    owners = {"cali1": ("10.0.0.1", "fd00::1"), "cali2": ("10.0.0.2", "fd00::2")}
    routes = {ip_network(address): name for name, addresses in owners.items() for address in addresses}
    members = computed.Members(node)
    made = Connections(members)
    made.on_delta(NodeDelta(policies=desired.policies, endpoints=desired.endpoints, sets=desired.sets, routes=routes))
    for flow in flows:
        of = {name: node.endpoints.get(routes.get(ip_network(end), "")) for name, end in _ends(flow).items()}
        expected: bool | None = None
        for name, direction in (("source", Direction.EGRESS), ("destination", Direction.INGRESS)):
            at = of[name]
            if at is not None:
                passes = verdict(at.policy, node.policies, members, flow, direction).allowed
                expected = passes if expected is None else expected and passes
        assert made.allowed(_seen_of(flow)) is expected


def _ends(flow: Flow) -> dict[str, object]:
    return {"source": flow.source, "destination": flow.destination}


def _seen_of(flow: Flow) -> Seen:
    numbers = (flow.source_port, flow.destination_port)
    if flow.icmp_type is not None:
        numbers = (flow.icmp_type, flow.icmp_code)
    return Seen(flow.source.packed, flow.destination.packed, flow.protocol, numbers[0] or 0, numbers[1] or 0)


# --- concerns -------------------------------------------------------------------------------------------------------


def test_at_the_start_everybody_is_concerned(members: FakeMembers) -> None:
    assert Connections(members).on_delta(state()).whole == {"cali1", "cali2"}


def test_another_policy_of_an_endpoint_concerns_that_endpoint(connections: Connections) -> None:
    assert connections.on_delta(NodeDelta(endpoints={"cali1": endpoint("cali1")})) == Concern(frozenset({"cali1"}))


def test_an_endpoint_with_the_same_policy_as_before_is_not_concerned(connections: Connections) -> None:
    assert not connections.on_delta(NodeDelta(endpoints={"cali1": endpoint("cali1", OPEN)}))


def test_an_endpoint_that_is_gone_concerns_nobody(connections: Connections) -> None:
    gone = NodeDelta(endpoints={"cali1": None}, routes={ip_network(ONE): None})
    assert not connections.on_delta(gone)
    assert connections.allowed(seen(ONE, STRANGER)) is None
    assert not connections.sieve(Concern(frozenset({"cali1"})))


def test_an_address_that_changes_hands_concerns_its_new_owner(connections: Connections) -> None:
    assert connections.on_delta(NodeDelta(routes={ip_network(ONE): "cali2"})).whole == {"cali2"}
    assert connections.allowed(seen(ONE, STRANGER)) is False


def test_a_changed_policy_concerns_the_endpoints_that_use_it(connections: Connections) -> None:
    changed = Policy(key=PICKY, ingress=(), egress=())
    assert connections.on_delta(NodeDelta(policies={PICKY: changed})).whole == {"cali2"}
    unused = Policy(key=NAMED, ingress=(), egress=())
    assert not connections.on_delta(NodeDelta(policies={NAMED: unused}))


def _change(*members: object, removed: bool = False, kind: SetKind = SetKind.ADDRESSES) -> SetChange:
    frozen = frozenset(members)
    return SetChange(kind, removed=frozen) if removed else SetChange(kind, added=frozen)  # type: ignore[arg-type]


@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize(
    ("member", "kind"),
    [
        (ip_address(STRANGER), SetKind.ADDRESSES),
        (ip_network(STRANGER), SetKind.NETWORKS),
        (AddressPort(ip_address(STRANGER), 6, 80), SetKind.PORTS),
    ],
    ids=["address", "address among prefixes", "address with a port"],
)
def test_a_changed_member_concerns_connections_with_it_of_those_who_look_into_the_set(
    connections: Connections, removed: bool, member: object, kind: SetKind
) -> None:
    concern = connections.on_delta(NodeDelta(sets={SetKey("friends", 4): _change(member, removed=removed, kind=kind)}))
    assert concern == Concern(partly={"cali2": frozenset({pack(STRANGER)})})
    wants = connections.sieve(concern).wants()
    assert wants(pack(STRANGER), pack(TWO))
    assert wants(pack(TWO), pack(STRANGER))
    assert not wants(pack(FRIEND), pack(TWO))
    assert not wants(pack(STRANGER), pack(ONE))


@pytest.mark.parametrize(
    "change",
    [
        SetChange(None),
        SetChange(SetKind.ADDRESSES, replaced=True, added=frozenset({ip_address(STRANGER)})),
        _change(ip_network("192.0.2.0/28"), kind=SetKind.NETWORKS),
        _change(*(ip_address(0x0A000000 + number) for number in range(MEMBERS_AT_MOST + 1))),
    ],
    ids=["empty", "of another kind", "a prefix", "many members"],
)
def test_where_the_changed_members_cannot_be_told_apart_all_connections_are_looked_at(
    connections: Connections, change: SetChange
) -> None:
    assert connections.on_delta(NodeDelta(sets={SetKey("friends", 4): change})).whole == {"cali2"}


def test_a_set_that_nobody_looks_into_concerns_nobody(connections: Connections) -> None:
    assert not connections.on_delta(NodeDelta(sets={SetKey("others", 4): _change(ip_address(STRANGER))}))


addresses = st.binary(min_size=1, max_size=1)
sets_of_addresses = st.frozensets(addresses, max_size=4)


@given(
    whole=sets_of_addresses,
    partly=st.dictionaries(addresses, sets_of_addresses, max_size=4),
    source=addresses,
    destination=addresses,
)
def test_what_a_sieve_wants_has_an_anchor_as_one_of_its_ends(
    whole: frozenset[bytes], partly: dict[bytes, frozenset[bytes]], source: bytes, destination: bytes
) -> None:
    sieve = Sieve(whole, partly)
    anchors = sieve.anchors()
    assert anchors is not None
    expected = {source, destination} & whole or any(
        end in partly and {source, destination} & partly[end] for end in (source, destination)
    )
    assert sieve.wants()(source, destination) == bool(expected)
    if expected:
        assert {source, destination} & anchors


@given(st.lists(st.tuples(sets_of_addresses, st.dictionaries(st.sampled_from("abc"), sets_of_addresses)), max_size=4))
def test_merged_concerns_forget_nobody(parts: list[tuple[frozenset[bytes], dict[str, frozenset[bytes]]]]) -> None:
    merged = Concern()
    for whole, partly in parts:
        merged = merged.merged(Concern(frozenset(one.decode("latin1") for one in whole), partly))
    for whole, partly in parts:
        assert {one.decode("latin1") for one in whole} <= merged.whole
        for name, others in partly.items():
            assert name in merged.whole or others <= merged.partly[name]


def test_rules_that_ask_for_source_ports_tell_connections_apart_by_them(members: FakeMembers) -> None:
    low = Rule(action=Action.DENY, protocol=17, source=Entity(ports=(PortRange(0, 1023),)))
    made = Connections(members)
    policy = Policy(key=OPEN, ingress=(low, Rule(action=Action.ALLOW, source=ANY)), egress=())
    made.on_delta(state(policies={**POLICIES, OPEN: policy}))
    ends = pack(STRANGER), pack(ONE)
    assert [made.allowed(Seen(*ends, 17, port, 80)) for port in (1023, 1024, 1023)] == [False, True, False]


def test_what_passes_a_tier_is_asked_in_the_next_whatever_the_rest_of_the_tier_says(members: FakeMembers) -> None:
    friends = Entity(sets=(FRIENDS,))
    first = Policy(key=PICKY, ingress=(Rule(action=Action.PASS, source=friends), Rule(action=Action.DENY)), egress=None)
    tiers = (TierPolicies("one", Action.DENY, (PICKY,)), TierPolicies("two", Action.DENY, (OPEN,)))
    made = Connections(members)
    at = LocalEndpoint(ResourceKey("WorkloadEndpoint", "a", "one"), "cali2", (), "", EndpointPolicy(tiers))
    made.on_delta(state(policies={**POLICIES, PICKY: first}, endpoints={"cali2": at}))
    assert made.allowed(seen(FRIEND, TWO)) is True
    assert made.allowed(seen(STRANGER, TWO)) is False


# --- the node's own connections -------------------------------------------------------------------------------------


def host_endpoint(interface: str, *keys: ResourceKey, pre_dnat: EndpointPolicy | None = None) -> LocalHostEndpoint:
    policy = HostPolicy(endpoint("x", *keys).policy, pre_dnat=pre_dnat or EndpointPolicy())
    return LocalHostEndpoint(ResourceKey("HostEndpoint", interface.replace("*", "all")), interface, policy)


def test_without_host_endpoints_the_nodes_own_connections_are_nobodys_business(connections: Connections) -> None:
    assert connections.allowed(seen(STRANGER, HOST)) is None


@pytest.mark.parametrize("interface", ["eth0", ANY_INTERFACE])
def test_a_host_endpoint_judges_connections_of_the_node(connections: Connections, interface: str) -> None:
    failsafe = Settings(
        failsafe_inbound=(Failsafe(6, 22),), failsafe_outbound=(Failsafe(17, 53, ip_network(f"{FRIEND}/32")),)
    )
    concern = connections.on_delta(
        NodeDelta(host_endpoints={interface: host_endpoint(interface, PICKY)}, settings=failsafe)
    )
    assert OfHost(interface) in concern.whole
    assert pack(HOST) in connections.sieve(concern).whole
    assert connections.allowed(seen(FRIEND, HOST)) is True
    assert connections.allowed(seen(STRANGER, HOST)) is False
    assert connections.allowed(seen(STRANGER, HOST, port=22, protocol=6)) is True
    assert connections.allowed(seen(HOST, STRANGER, port=53)) is False
    assert connections.allowed(seen(HOST, FRIEND, port=53)) is True
    assert connections.allowed(seen(HOST, TWO)) is True, "what the node says to its workload passes"
    assert connections.allowed(seen(HOST, HOST)) is None
    changed = SetChange(SetKind.ADDRESSES, added=frozenset({ip_address(STRANGER)}))
    partly = connections.on_delta(NodeDelta(sets={SetKey("friends", 4): changed})).partly
    assert partly[OfHost(interface)] == {pack(STRANGER)}


def test_a_connection_of_the_node_that_another_interface_would_allow_is_not_refused(connections: Connections) -> None:
    both = {"eth0": host_endpoint("eth0", PICKY), "eth1": host_endpoint("eth1", OPEN)}
    connections.on_delta(NodeDelta(host_endpoints=both))
    assert connections.allowed(seen(STRANGER, HOST)) is True
    connections.on_delta(NodeDelta(host_endpoints={"eth1": None}))
    assert connections.allowed(seen(STRANGER, HOST)) is False


def test_where_policy_before_dnat_may_have_allowed_it_nothing_is_refused(connections: Connections) -> None:
    early = host_endpoint("eth0", PICKY, pre_dnat=endpoint("x", OPEN).policy)
    connections.on_delta(NodeDelta(host_endpoints={"eth0": early}))
    assert connections.allowed(seen(STRANGER, HOST)) is None


def test_an_interface_without_host_endpoint_is_not_judged(connections: Connections) -> None:
    connections.on_delta(NodeDelta(host_endpoints={"eth1": host_endpoint("eth1", PICKY)}))
    assert connections.allowed(seen(STRANGER, HOST)) is None
