"""Random computed policies and flows, as Hypothesis strategies: few addresses and ports, so that rules meet flows.

10.0.0.1 and fd00::1 are meant to be behind cali1, 10.0.0.2 and fd00::2 behind cali2, the others elsewhere."""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import strategies as st

from felix.calc.delta import Failsafe, LocalEndpoint, LocalHostEndpoint, NodeDelta, Settings
from felix.calc.ip_sets import SetChange, SetKey, SetKind
from tests.unit.calc.world import NodeState
from weft.model.address import IPAddress
from weft.model.keys import ResourceKey
from weft.policy.values import (
    ANY,
    Action,
    AddressPort,
    EndpointPolicy,
    Entity,
    HostPolicy,
    Icmp,
    Policy,
    PortRange,
    PortSet,
    Rule,
    SelectorSet,
    ServiceSet,
    Stage,
    TierPolicies,
)
from weft.policy.verdict import Flow
from weft.selector import parse

ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.0.0.200", "10.9.9.9"], ["fd00::1", "fd00::2", "fd01::1"]
_networks = st.sampled_from(
    [
        ip_network(t)
        for t in ("10.0.0.1/32", "10.0.0.0/25", "10.0.0.0/24", "0.0.0.0/0", "fd00::1/128", "fd00::/64", "::/0")
    ]
)
_ports = st.sampled_from([PortRange(80, 80), PortRange(80, 90), PortRange(85, 443), PortRange(0, 65535)])
_service = ServiceSet("web", "shop", "web")
_sets = st.sampled_from(
    [
        SelectorSet("sa", parse("a == 'a'")),
        SelectorSet("sb", parse("b == 'b'")),
        ServiceSet("sb", "shop", "peers", with_ports=False),
    ]
)
_not_sets = st.sampled_from([SelectorSet("sa", parse("a == 'a'")), SelectorSet("sb", parse("b == 'b'"))])
_names = st.sampled_from([PortSet("http", parse("all()"), "http"), PortSet("dns", parse("all()"), "dns", 17)])


def _few(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.one_of(st.just(()), st.just(()), st.lists(strategy, min_size=1, max_size=2).map(tuple))


def _entities(with_ports: bool) -> st.SearchStrategy[Entity]:
    ports = _few(_ports) if with_ports else st.just(())
    return st.builds(
        Entity,
        nets=_few(_networks),
        not_nets=_few(_networks),
        ports=ports,
        not_ports=ports,
        sets=_few(_sets),
        not_sets=_few(_not_sets),
        named_ports=_few(_names),
        not_named_ports=_few(_names),
        service=st.sampled_from([None, None, None, _service]),
    )


def _rules(
    protocols: list[int | None], with_ports: bool, icmp: st.SearchStrategy[Icmp | None]
) -> st.SearchStrategy[Rule]:
    return st.builds(
        Rule,
        action=st.sampled_from(Action),
        ip_version=st.sampled_from([None, None, None, 4, 6]),
        protocol=st.sampled_from(protocols),
        not_protocol=st.sampled_from([None, None, 17]),
        icmp=icmp,
        not_icmp=icmp,
        source=st.one_of(st.just(ANY), _entities(with_ports)),
        destination=st.one_of(st.just(ANY), _entities(with_ports)),
        unenforced=st.sampled_from([(), (), (), ("something",)]),
    )


_icmp = st.one_of(st.none(), st.builds(Icmp, type=st.sampled_from([0, 8, 128]), code=st.sampled_from([None, 0, 1])))
_any_rule = st.one_of(
    _rules([None, 6], False, st.none()), _rules([6, 17, 17, 132], True, st.none()), _rules([1, 58], False, _icmp)
)
_rule_lists = st.lists(_any_rule, max_size=3).map(tuple)
_keys = [
    *(ResourceKey("GlobalNetworkPolicy", name) for name in "abcd"),
    ResourceKey("StagedGlobalNetworkPolicy", "a"),
    ResourceKey("StagedNetworkPolicy", "b", "shop"),
]
_profile_keys = [ResourceKey("Profile", name) for name in "pq"]


_services = st.frozensets(
    st.builds(
        AddressPort,
        address=st.sampled_from([ip_address(a) for a in (*ADDRESSES[0][:3], *ADDRESSES[1][:2])]),
        protocol=st.sampled_from([6, 17, 17, 132]),
        port=st.sampled_from([80, 85, 443]),
    ),
    max_size=6,
)


@st.composite
def deltas(draw: st.DrawFn) -> NodeDelta:
    """Endpoints behind cali1 (up to three tiers, two profiles) and cali2, and the sets that their rules look into."""
    policies = {
        key: Policy(key=key, ingress=draw(_rule_lists), egress=draw(_rule_lists)) for key in (*_keys, *_profile_keys)
    }
    order = draw(st.permutations(_keys))
    cuts = sorted(draw(st.lists(st.integers(0, len(_keys)), min_size=2, max_size=2)))
    tiers = [
        TierPolicies(
            f"t{number}", draw(st.sampled_from([Action.DENY, Action.PASS])), tuple(keys), tuple(reversed(keys))
        )
        for number, keys in enumerate((order[: cuts[0]], order[cuts[0] : cuts[1]], order[cuts[1] :]))
        if keys
    ]
    policies_of = {
        "cali1": EndpointPolicy(tuple(tiers), tuple(_profile_keys[: draw(st.integers(0, 2))])),
        "cali2": EndpointPolicy(tuple(tiers[:1]), tuple(_profile_keys)),
    }
    members = st.frozensets(st.sampled_from([ip_address(a) for a in (*ADDRESSES[0][:3], *ADDRESSES[1][:2])]))
    sets = {}
    for name in ("sa", "sb"):
        found = draw(members)
        for version in (4, 6):
            of_version = frozenset(a for a in found if a.version == version)
            if of_version:
                sets[SetKey(name, version)] = SetChange(SetKind.ADDRESSES, replaced=True, added=of_version)
    for name in ("http", "dns", "web"):
        ports = draw(_services)
        for version in (4, 6):
            ports_of = frozenset(one for one in ports if one.version == version)
            if ports_of:
                sets[SetKey(name, version)] = SetChange(SetKind.PORTS, replaced=True, added=ports_of)
    endpoints = {
        name: LocalEndpoint(ResourceKey("WorkloadEndpoint", name, "one"), name, (), "", policy)
        for name, policy in policies_of.items()
    }
    return NodeDelta(policies=policies, endpoints=endpoints, sets=sets)


_failsafes = st.lists(
    st.builds(
        Failsafe,
        protocol=st.sampled_from([6, 17]),
        port=st.sampled_from([80, 85]),
        net=st.sampled_from([None, None, ip_network("10.0.0.0/25"), ip_network("fd00::/64")]),
    ),
    max_size=3,
).map(tuple)
_stage_keys = {
    stage: [ResourceKey("GlobalNetworkPolicy", f"{stage.value}-{name}") for name in "ab"]
    for stage in (Stage.NORMAL, Stage.PRE_DNAT, Stage.UNTRACKED)
}


@st.composite
def host_deltas(draw: st.DrawFn) -> NodeDelta:
    """Host endpoints at eth0 and, perhaps, at all other interfaces, with policies of every stage, and an open workload
    behind cali1."""
    delta = draw(deltas())
    keys = [key for stage_keys in _stage_keys.values() for key in stage_keys]
    policies = {key: Policy(key=key, ingress=draw(_rule_lists), egress=draw(_rule_lists)) for key in keys}

    def stage(of: Stage) -> EndpointPolicy:
        found = draw(st.lists(st.sampled_from(_stage_keys[of]), unique=True).map(tuple))
        action = draw(st.sampled_from([Action.DENY, Action.PASS]))
        ingress = found if of is not Stage.NORMAL or draw(st.booleans()) else ()
        egress = () if of is Stage.PRE_DNAT else found
        return EndpointPolicy((TierPolicies("t", action, ingress, egress),) if found else ())

    def endpoint(interface: str) -> LocalHostEndpoint:
        normal = EndpointPolicy(stage(Stage.NORMAL).tiers, tuple(_profile_keys[: draw(st.integers(0, 1))]))
        policy = HostPolicy(normal, stage(Stage.NORMAL), stage(Stage.PRE_DNAT), stage(Stage.UNTRACKED))
        return LocalHostEndpoint(ResourceKey("HostEndpoint", interface), interface, policy)

    return NodeDelta(
        policies={**delta.policies, **policies, OPEN: Policy(key=OPEN, ingress=ALLOW, egress=ALLOW)},
        sets=delta.sets,
        host_endpoints={name: endpoint(name) for name in ("eth0", *draw(st.sampled_from([(), ("*",)])))},
        endpoints={
            "cali1": LocalEndpoint(
                ResourceKey("WorkloadEndpoint", "cali1", "one"), "cali1", (), "", EndpointPolicy(profiles=(OPEN,))
            )
        },
        settings=Settings(
            endpoint_to_host="Accept",
            failsafe_inbound=draw(_failsafes),
            failsafe_outbound=draw(_failsafes),
            reject=draw(st.booleans()),
        ),
    )


OPEN = ResourceKey("Profile", "open")
ALLOW = (Rule(action=Action.ALLOW),)


def _flows(texts: list[str]) -> st.SearchStrategy[Flow]:
    addresses = st.sampled_from([ip_address(text) for text in texts])
    ports = st.sampled_from([80, 85, 443, 1000])
    return st.one_of(
        st.builds(
            Flow,
            source=addresses,
            destination=addresses,
            protocol=st.sampled_from([6, 17, 132]),
            source_port=ports,
            destination_port=ports,
        ),
        st.builds(
            Flow,
            source=addresses,
            destination=addresses,
            protocol=st.sampled_from([1, 58]),
            icmp_type=st.sampled_from([0, 8, 128]),
            icmp_code=st.sampled_from([0, 1]),
        ),
    )


flows = st.lists(st.one_of(*map(_flows, ADDRESSES)), min_size=12, max_size=12)


class Members:
    def __init__(self, state: NodeState) -> None:
        self._sets = state.sets

    def contains(self, set_id: str, address: IPAddress) -> bool:
        _, members = self._sets.get(SetKey(set_id, address.version), (None, frozenset()))
        return any(address == m if isinstance(m, IPAddress) else address in m for m in members)

    def contains_port(self, set_id: str, address: IPAddress, protocol: int, port: int) -> bool:
        _, members = self._sets.get(SetKey(set_id, address.version), (None, frozenset()))
        return AddressPort(address, protocol, port) in members


def difference(state: NodeState, desired: NodeDelta) -> NodeDelta:
    """What leads from the state to another with nothing but these policies, endpoints and sets."""
    sets = {key: SetChange(None) for key in state.sets if key not in desired.sets}
    for key, change in desired.sets.items():
        _, before = state.sets.get(key, (None, frozenset()))
        if not before:
            sets[key] = change
        elif before != change.added:
            sets[key] = SetChange(change.kind, False, change.added - before, before - change.added)
    return NodeDelta(
        policies=_differing(desired.policies, state.policies),
        endpoints=_differing(desired.endpoints, state.endpoints),
        host_endpoints=_differing(desired.host_endpoints, state.host_endpoints, gone=True),
        sets=sets,
        settings=desired.settings,
    )


def _differing(desired: Mapping[Any, Any], present: Mapping[Any, Any], gone: bool = False) -> dict[Any, Any]:
    """With `gone`, what is not desired goes."""
    found = {key: value for key, value in desired.items() if present.get(key) != value}
    return {**(dict.fromkeys(present.keys() - desired.keys()) if gone else {}), **found}
