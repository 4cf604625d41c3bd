"""The graph by example: what becomes of each input, and what is reported as not enforced."""

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest

from felix.calc.delta import NodeDelta
from felix.calc.graph import Graph
from felix.calc.ip_sets import SetKind
from weft.model import keys
from weft.model.base import Metadata, Resource
from weft.model.endpoint import IPNAT, HostEndpoint, HostEndpointSpec, WorkloadEndpoint, WorkloadEndpointSpec
from weft.model.felix_configuration import FelixConfiguration, FelixConfigurationSpec
from weft.model.ipam import AffinityValue
from weft.model.keys import AffinityKey, Owner, ResourceKey
from weft.model.policy import (
    EntityRule,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    GlobalNetworkSet,
    HttpMatch,
    NetworkSet,
    NetworkSetSpec,
    Profile,
    ProfileSpec,
    Rule,
)
from weft.model.pool import IPPool, IPPoolSpec
from weft.policy.values import Action, Direction


def workload(
    name: str, address: str = "10.0.0.1", node: str = "here", app: str = "web", **spec: Any
) -> WorkloadEndpoint:
    fields = {"interface_name": f"cali{name}", "profiles": ("p",)} | spec
    return WorkloadEndpoint(
        metadata=Metadata(name=name, namespace="one", labels={"app": app}),
        spec=WorkloadEndpointSpec(node=node, ip_networks=(ip_network(address),), **fields),
    )


def policy(name: str, *ingress: Rule, **spec: Any) -> GlobalNetworkPolicy:
    return GlobalNetworkPolicy(metadata=Metadata(name=name), spec=GlobalNetworkPolicySpec(ingress=ingress, **spec))


def from_app(app: str) -> Rule:
    return Rule(action="Allow", source=EntityRule(selector=f"app == '{app}'"))


class Node:
    def __init__(self, *resources: Resource, in_sync: bool = True) -> None:
        self.graph = Graph("here")
        if in_sync:
            self.graph.on_in_sync()
        self.first = self.put(*resources)

    def put(self, *resources: Resource) -> NodeDelta:
        for resource in resources:
            self.graph.on_update(keys.of(resource), resource)
        return self.graph.flush()

    def remove(self, *resources: Resource) -> NodeDelta:
        for resource in resources:
            self.graph.on_update(keys.of(resource), None)
        return self.graph.flush()


PROFILE = Profile(metadata=Metadata(name="p"), spec=ProfileSpec(ingress=(Rule(action="Allow"),)))


def test_nothing_is_reported_before_the_snapshot_is_complete() -> None:
    node = Node(workload("1"), PROFILE, in_sync=False)
    assert not node.first
    node.graph.on_in_sync()
    assert node.graph.flush().endpoints.keys() == {"cali1"}


def test_only_policies_that_a_local_endpoint_uses_are_active() -> None:
    used, unused = policy("used", selector="app == 'web'"), policy("unused", selector="app == 'db'")
    node = Node(workload("1"), used, unused, PROFILE)
    assert node.first.policies.keys() == {keys.of(used), keys.of(PROFILE)}
    delta = node.put(workload("1", app="db"))
    assert delta.policies.keys() == {keys.of(used), keys.of(unused)}
    assert delta.policies[keys.of(used)] is None


def test_a_set_is_shared_and_goes_with_its_last_user() -> None:
    one, two = policy("one", from_app("db")), policy("two", from_app("db"))
    node = Node(workload("1"), workload("far", "10.0.9.9", "there", "db"), PROFILE, one, two)
    assert len(node.first.sets) == 1
    assert not node.remove(one).sets
    (change,) = node.remove(two).sets.values()
    assert change.kind is None


def test_members_come_and_go_with_endpoints_anywhere() -> None:
    node = Node(workload("1"), PROFILE, policy("p", from_app("db")))
    far = workload("far", "10.0.9.9", "there", "db")
    (added,) = node.put(far).sets.values()
    assert (added.replaced, set(map(str, added.added))) == (True, {"10.0.9.9"})
    (more,) = node.put(workload("farther", "10.0.9.8", "there", "db")).sets.values()
    assert (more.replaced, set(map(str, more.added)), more.removed) == (False, {"10.0.9.8"}, frozenset())
    (less,) = node.remove(far).sets.values()
    assert set(map(str, less.removed)) == {"10.0.9.9"}


def test_an_address_that_two_endpoints_have_stays_until_both_are_gone() -> None:
    one, two = (workload(name, "10.0.9.9", "there", "db") for name in ("one", "two"))
    node = Node(workload("1"), PROFILE, policy("p", from_app("db")), one, two)
    assert not node.remove(one).sets
    assert node.remove(two).sets


def test_a_set_with_a_prefix_becomes_one_of_networks_and_back() -> None:
    nets = NetworkSetSpec(nets=(ip_network("192.0.2.0/24"),))
    prefixes = GlobalNetworkSet(metadata=Metadata(name="n", labels={"app": "db"}), spec=nets)
    node = Node(workload("1"), PROFILE, policy("p", from_app("db")), workload("far", "10.0.9.9", "there", "db"))
    (grown,) = node.put(prefixes).sets.values()
    assert (grown.kind, set(map(str, grown.added))) == (SetKind.NETWORKS, {"10.0.9.9/32", "192.0.2.0/24"})
    (shrunk,) = node.remove(prefixes).sets.values()
    assert (shrunk.kind, shrunk.replaced, set(map(str, shrunk.added))) == (SetKind.ADDRESSES, True, {"10.0.9.9"})


def test_a_network_set_has_the_labels_of_its_namespace() -> None:
    from_prod = Rule(action="Allow", source=EntityRule(selector="kind == 'office'", namespace_selector="env == 'prod'"))
    nets = NetworkSetSpec(nets=(ip_network("192.0.2.0/24"),))
    office = NetworkSet(metadata=Metadata(name="n", namespace="two", labels={"kind": "office"}), spec=nets)
    node = Node(workload("1"), PROFILE, policy("p", from_prod), office)
    namespace = ProfileSpec(labels_to_apply={"pcns.env": "prod"})
    delta = node.put(Profile(metadata=Metadata(name="kns.two"), spec=namespace))
    assert [set(map(str, one.added)) for one in delta.sets.values()] == [{"192.0.2.0/24"}]


def test_labels_of_profiles_choose_like_own_ones_but_give_way_to_them() -> None:
    labels = ProfileSpec(labels_to_apply={"app": "db", "env": "prod"})
    node = Node(workload("1"), policy("env", selector="env == 'prod'"), policy("app", selector="app == 'db'"))
    delta = node.put(Profile(metadata=Metadata(name="p"), spec=labels))
    assert [tier.ingress for tier in delta.endpoints["cali1"].policy.tiers] == [  # type: ignore[union-attr]
        (ResourceKey("GlobalNetworkPolicy", "env"),)
    ]


def test_policies_for_hosts_only_do_not_concern_workloads() -> None:
    node = Node(workload("1"), policy("raw", do_not_track=True), policy("nat", pre_dnat=True))
    assert node.first.endpoints["cali1"].policy.tiers == ()  # type: ignore[union-attr]


def test_the_default_allow_profile_exists_without_being_stored() -> None:
    node = Node(workload("1", profiles=("projectcalico-default-allow",)))
    (compiled,) = node.first.policies.values()
    assert compiled is not None
    assert [rule.effect for rule in compiled.rules(Direction.INGRESS) or ()] == [Action.ALLOW]
    assert not node.first.not_enforced


def test_a_profile_that_does_not_exist_denies_and_is_reported() -> None:
    node = Node(workload("1"))
    (compiled,) = node.first.policies.values()
    assert compiled is not None
    assert [rule.effect for rule in compiled.rules(Direction.EGRESS) or ()] == [Action.DENY]
    assert "does not exist" in node.first.not_enforced[ResourceKey("Profile", "p")][0]  # type: ignore[index]
    assert node.put(PROFILE).not_enforced[ResourceKey("Profile", "p")] is None


def test_routes_follow_addresses_and_a_block_of_one_address_is_no_blackhole() -> None:
    node = Node(workload("1"), PROFILE)
    address = ip_network("10.0.0.1/32")
    assert node.first.routes == {address: "cali1"}
    for cidr in (address, ip_network("10.0.0.0/26")):
        node.graph.on_update(AffinityKey(Owner("host", "here"), cidr), AffinityValue(state="confirmed"))
        node.graph.on_update(AffinityKey(Owner("host", "there"), cidr), AffinityValue(state="confirmed"))
    assert node.graph.flush().blackholes == {ip_network("10.0.0.0/26"): True}
    gone = node.remove(workload("1"))
    assert (gone.routes, gone.blackholes) == ({address: None}, {address: True})
    node.graph.on_update(AffinityKey(Owner("host", "here"), address), AffinityValue(state="pendingDeletion"))
    assert node.graph.flush().blackholes == {address: None}


def test_an_endpoint_that_moves_away_leaves_interface_and_routes() -> None:
    node = Node(workload("1"), PROFILE)
    delta = node.put(workload("1", node="there"))
    assert (delta.endpoints, delta.routes) == ({"cali1": None}, {ip_network("10.0.0.1/32"): None})


def test_two_endpoints_of_one_interface_are_told_apart_by_name() -> None:
    first, second = workload("a", interface_name="cali1"), workload("b", "10.0.0.2", interface_name="cali1")
    node = Node(second, first, PROFILE)
    assert node.first.endpoints["cali1"].key == keys.of(first)  # type: ignore[union-attr]
    assert node.first.not_enforced == {keys.of(second): ("interfaceName: cali1 belongs to one/a",)}
    after = node.remove(first)
    assert after.endpoints["cali1"].key == keys.of(second)  # type: ignore[union-attr]
    assert after.not_enforced == {keys.of(second): None}


def test_pools_say_whether_they_are_masqueraded() -> None:
    pool = IPPool(metadata=Metadata(name="a"), spec=IPPoolSpec(cidr=ip_network("10.0.0.0/16"), nat_outgoing=True))
    node = Node(pool)
    assert node.first.pools == {ip_network("10.0.0.0/16"): True}
    assert node.remove(pool).pools == {ip_network("10.0.0.0/16"): None}


def _first_reason(*resources: Resource) -> tuple[str, ...] | None:
    """What is reported about the last of these."""
    return Node(*resources).first.not_enforced.get(keys.of(resources[-1]))  # type: ignore[arg-type]


REASONS: dict[str, tuple[Callable[[], tuple[Resource, ...]], str]] = {
    "http": (
        lambda: (PROFILE, workload("1"), policy("h", Rule(action="Allow", http=HttpMatch(methods=("GET",))))),
        "ingress rule 0: http",
    ),
    "unreadable selector": (lambda: (PROFILE, policy("s", selector="a = b")), "selector that cannot be read"),
    "tier that does not exist": (
        lambda: (PROFILE, workload("1"), policy("t", tier="gone")),
        "tier gone does not exist",
    ),
    "no workload's interface": (lambda: (PROFILE, workload("1", interface_name="eth0")), "interfaceName: 'eth0' is no"),
    "no interface": (lambda: (PROFILE, workload("1", interface_name="")), "interfaceName: '' is no"),
    "impossible profile": (lambda: (PROFILE, workload("1", profiles=("p", "a/b"))), "profiles: 'a/b' cannot exist"),
    "NAT of addresses": (
        lambda: (
            PROFILE,
            workload("1", ip_nats=(IPNAT(internal_ip=A1, external_ip=A1),)),
        ),
        "ipNATs",
    ),
    "spoofing": (
        lambda: (PROFILE, workload("1", allow_spoofed_source_prefixes=(ip_network("10.9.0.0/16"),))),
        "allowSpoofedSourcePrefixes",
    ),
    "overlay": (
        lambda: (
            IPPool(metadata=Metadata(name="a"), spec=IPPoolSpec(cidr=ip_network("10.0.0.0/16"), ipip_mode="Always")),
        ),
        "ipipMode Always",
    ),
    "wrong setting": (
        lambda: (
            FelixConfiguration(
                metadata=Metadata(name="default"),
                spec=FelixConfigurationSpec(default_endpoint_to_host_action="maybe"),
            ),
        ),
        "defaultEndpointToHostAction: maybe",
    ),
}
A1 = ip_network("10.0.0.1/32").network_address


@pytest.mark.parametrize(("resources", "beginning"), REASONS.values(), ids=REASONS)
def test_what_is_not_enforced_is_reported(resources: Callable[[], tuple[Resource, ...]], beginning: str) -> None:
    reasons = _first_reason(*resources())
    assert reasons is not None
    assert reasons[0].startswith(beginning)


def test_what_is_not_used_here_is_not_reported() -> None:
    rule = Rule(action="Allow", http=HttpMatch(methods=("GET",)))
    assert _first_reason(workload("1"), policy("h", rule, selector="app == 'db'")) is None
    elsewhere = HostEndpoint(metadata=Metadata(name="h"), spec=HostEndpointSpec(node="there", interface_name="*"))
    assert _first_reason(elsewhere) is None
