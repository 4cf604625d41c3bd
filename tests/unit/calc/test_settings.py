"""FelixConfiguration: whose word holds, what is the default, and what cannot be meant."""

from datetime import UTC, datetime
from ipaddress import ip_network
from itertools import permutations
from typing import Any

import pytest

from felix.calc.delta import Failsafe, LogLimit, Settings
from felix.calc.settings import FelixSettings
from tests.unit.calc.test_graph import Node, workload
from weft.model import keys
from weft.model.base import Metadata, Resource
from weft.model.bgp import BGPConfiguration, BGPConfigurationSpec, ServiceBlock
from weft.model.felix_configuration import FelixConfiguration, FelixConfigurationSpec, ProtoPort
from weft.model.keys import ResourceKey
from weft.model.node import Node as NodeResource
from weft.model.values import Protocol

TCP, UDP, ICMP = (Protocol.parse(name) for name in ("TCP", "UDP", "ICMP"))


def configuration(name: str = "default", *, created: int = 0, **spec: Any) -> FelixConfiguration:
    time = datetime(2026, 1, created, tzinfo=UTC) if created else None
    metadata = Metadata(name=name, creation_timestamp=time)
    return FelixConfiguration(metadata=metadata, spec=FelixConfigurationSpec(**spec))


def node(**labels: str) -> NodeResource:
    return NodeResource(metadata=Metadata(name="here", labels=labels))


def settings_of(*resources: Resource) -> Settings:
    found = Node(*resources).first.settings
    assert found is not None
    return found


def reports(*resources: Resource) -> dict[str, tuple[str, ...] | None]:
    return {key.name: why for key, why in Node(*resources).first.not_enforced.items()}


def test_unset_everything_is_as_in_calico() -> None:
    both = [Failsafe(6, port) for port in (179, 2379, 2380, 5473, 6443, 6666, 6667)]
    assert settings_of() == Settings(
        endpoint_to_host="Drop",
        log_prefix="calico-packet",
        failsafe_inbound=(Failsafe(6, 22), Failsafe(17, 68), *both),
        failsafe_outbound=(Failsafe(17, 53), Failsafe(17, 67), *both),
        vxlan_port=4789,
        allow_vxlan_from_workloads=False,
        allow_ipip_from_workloads=False,
        drop_invalid=True,
        reject=False,
        service_loop_prevention="Drop",
    )


def test_the_nodes_own_goes_before_a_chosen_one_and_that_before_the_one_for_all() -> None:
    resources = (
        node(gpu="yes"),
        configuration(default_endpoint_to_host_action="Accept", log_prefix="all", vxlan_port=1),
        configuration("gpus", node_selector="has(gpu)", log_prefix="chosen", vxlan_port=2),
        configuration("node.here", vxlan_port=3),
        configuration("node.there", log_prefix="theirs"),
    )
    for order in permutations(resources):
        found = settings_of(*order)
        assert (found.endpoint_to_host, found.log_prefix, found.vxlan_port) == ("Accept", "chosen", 3)


def test_of_several_that_choose_the_node_the_oldest_has_it_and_the_others_are_reported() -> None:
    old, new, same = (
        configuration(name, created=created, node_selector="has(gpu)", log_prefix=name)
        for name, created in (("old", 1), ("new", 2), ("older", 1))
    )
    assert settings_of(node(gpu="yes"), new, same, old).log_prefix == "old"
    assert reports(node(gpu="yes"), new, same, old) == dict.fromkeys(
        ("new", "older"), ("nodeSelector: the older old chooses this node, too, and is used",)
    )


def test_labels_of_the_node_decide_whether_it_is_chosen() -> None:
    one = configuration("gpus", node_selector="has(gpu)", log_prefix="chosen")
    graph = Node(one)
    assert graph.first.settings is not None
    assert graph.first.settings.log_prefix == "calico-packet", "an unknown node is chosen by no selector"
    assert graph.put(node(gpu="yes")).settings.log_prefix == "chosen"  # type: ignore[union-attr]
    assert graph.put(node()).settings.log_prefix == "calico-packet"  # type: ignore[union-attr]
    other = NodeResource(metadata=Metadata(name="there", labels={"gpu": "yes"}))
    assert not graph.put(other)


@pytest.mark.parametrize(
    ("name", "spec", "report"),
    [
        ("gpus", {"node_selector": "a = b"}, "nodeSelector: selector that cannot be read"),
        ("default", {"node_selector": "has(gpu)"}, "nodeSelector: has no effect on this name"),
        (
            "default",
            {"default_endpoint_to_host_action": "maybe"},
            "defaultEndpointToHostAction: maybe is none of Drop,",
        ),
        ("default", {"service_loop_prevention": "Never"}, "serviceLoopPrevention: Never is none of"),
        ("default", {"vxlan_port": 0}, "vxlanPort: 0 is no port"),
        ("default", {"interface_prefix": "cali,tap"}, "interfacePrefix: cali,tap"),
        ("default", {"log_action_rate_limit": "10/week"}, "logActionRateLimit: 10/week is no rate"),
        ("default", {"log_action_rate_limit_burst": 10000}, "logActionRateLimitBurst: 10000 is not"),
        ("default", {"vxlan_enabled": True}, "vxlanEnabled: not supported yet"),
        (
            "node.here",
            {"failsafe_inbound_host_ports": (ProtoPort(port=22, protocol=TCP), ProtoPort(port=1, protocol=ICMP))},
            "failsafeInboundHostPorts[1]: needs protocol TCP",
        ),
        ("default", {"failsafe_outbound_host_ports": (ProtoPort(port=0),)}, "failsafeOutboundHostPorts[0]: needs"),
    ],
)
def test_what_cannot_be_meant_is_reported(name: str, spec: dict[str, Any], report: str) -> None:
    (why,) = reports(configuration(name, **spec)).values()
    assert why is not None
    assert why[0].startswith(report)


def test_what_is_for_other_nodes_is_not_reported_here() -> None:
    assert not reports(configuration("node.there", vxlan_enabled=True, vxlan_port=0))
    assert not reports(configuration("gpus", node_selector="has(gpu)", vxlan_enabled=True))


def test_a_word_that_is_none_closes_and_leaves_nothing_to_others() -> None:
    open_for_all = configuration(default_endpoint_to_host_action="Accept", workload_source_spoofing="Any")
    found = settings_of(open_for_all, configuration("node.here", default_endpoint_to_host_action="allow"))
    assert found.endpoint_to_host == "Drop"


def test_words_are_known_in_any_case() -> None:
    found = settings_of(configuration(default_endpoint_to_host_action="RETURN", service_loop_prevention="disabled"))
    assert (found.endpoint_to_host, found.service_loop_prevention) == ("Return", "Disabled")


def test_log_rules_may_have_a_limit() -> None:
    assert settings_of().log_limit is None
    assert settings_of(configuration(log_action_rate_limit="10/minute")).log_limit == LogLimit(10, 60, burst=5)
    found = settings_of(
        configuration(log_action_rate_limit_burst=7), configuration("node.here", log_action_rate_limit="1/day")
    )
    assert found.log_limit == LogLimit(1, 86400, burst=7)
    assert settings_of(configuration(log_action_rate_limit="0/second")).log_limit is None


def test_failsafe_ports_have_protocol_and_peers_and_an_empty_list_is_none() -> None:
    peers = ip_network("192.0.2.0/24")
    ports = (ProtoPort(port=2222), ProtoPort(port=53, protocol=UDP, net=peers), ProtoPort(port=2222, protocol=TCP))
    found = settings_of(configuration(failsafe_inbound_host_ports=ports, failsafe_outbound_host_ports=()))
    assert found.failsafe_inbound == (Failsafe(6, 2222), Failsafe(17, 53, peers))
    assert found.failsafe_outbound == ()


@pytest.mark.parametrize(
    ("spec", "rejects"),
    [
        ({"iptables_filter_deny_action": "Reject"}, True),
        ({"nftables_filter_deny_action": "Reject"}, True),
        ({"nftables_filter_deny_action": "Drop", "iptables_filter_deny_action": "Reject"}, False),
    ],
)
def test_deny_may_reject(spec: dict[str, Any], rejects: bool) -> None:
    assert settings_of(configuration(**spec)).reject is rejects


def test_who_may_send_as_somebody_else_follows_the_setting() -> None:
    prefixes = (ip_network("10.9.0.0/16"),)
    spoofer = workload("1", profiles=(), allow_spoofed_source_prefixes=prefixes)
    graph = Node(spoofer, workload("2", "10.0.0.2", profiles=()))
    assert graph.first.endpoints["cali1"].may_send_as == ()  # type: ignore[union-attr]
    assert graph.first.not_enforced[keys.of(spoofer)][0].startswith("allowSpoofedSourcePrefixes")  # type: ignore[index]
    delta = graph.put(configuration(workload_source_spoofing="Any"))
    assert {name: one.may_send_as for name, one in delta.endpoints.items() if one} == {"cali1": prefixes}
    assert delta.not_enforced == {keys.of(spoofer): None}
    assert graph.remove(configuration()).endpoints["cali1"].may_send_as == ()  # type: ignore[union-attr]


def test_service_ranges_are_those_of_the_default_bgp_configuration() -> None:
    first, second, third = (ip_network(text) for text in ("10.96.0.0/12", "192.0.2.0/24", "fd00:96::/112"))
    spec = BGPConfigurationSpec(
        service_cluster_ips=(ServiceBlock(cidr=first), ServiceBlock(cidr=third)),
        service_external_ips=(ServiceBlock(cidr=second),),
        service_load_balancer_ips=(ServiceBlock(cidr=second), ServiceBlock()),
    )
    graph = Node(BGPConfiguration(metadata=Metadata(name="default"), spec=spec))
    assert graph.first.service_ranges == {first: True, second: True, third: True}
    less = BGPConfigurationSpec(service_cluster_ips=(ServiceBlock(cidr=first),))
    assert graph.put(BGPConfiguration(metadata=Metadata(name="default"), spec=less)).service_ranges == {
        second: None,
        third: None,
    }
    assert not graph.put(BGPConfiguration(metadata=Metadata(name="node.here"), spec=spec))


def test_a_setting_that_comes_and_goes_is_no_change() -> None:
    settings = FelixSettings("here")
    assert settings.flush() == settings_of()
    key = ResourceKey("FelixConfiguration", "default")
    settings.set_configuration(key, configuration(log_prefix="x"))
    settings.set_configuration(key, None)
    assert settings.flush() is None
