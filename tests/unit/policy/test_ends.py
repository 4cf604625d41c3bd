"""Whom somebody means by one end of a flow."""

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from weft.model.base import Metadata
from weft.model.endpoint import HostEndpoint, HostEndpointSpec, WorkloadEndpoint, WorkloadEndpointSpec
from weft.model.keys import ResourceKey
from weft.model.node import Node, NodeAddress, NodeSpec
from weft.policy.cluster import Cluster
from weft.policy.ends import Parties, UnknownEndError


def workload(name: str, address: str, namespace: str = "one", **spec: str) -> WorkloadEndpoint:
    networks = (ip_network(address),) if address else ()
    return WorkloadEndpoint(
        metadata=Metadata(name=name, namespace=namespace), spec=WorkloadEndpointSpec(ip_networks=networks, **spec)
    )


PARTIES = Parties(
    Cluster(
        [
            workload("n1-k8s-web--1-eth0", "10.0.0.1", pod="web-1"),
            workload("n1-k8s-web--1-eth1", "10.0.0.2", pod="web-2"),
            workload("n2-a-vm-eth0", "10.0.0.3", workload="vm"),
            workload("n2-a-vm-eth1", "10.0.0.4", workload="vm"),
            workload("vm", "10.0.0.5", namespace="two"),
            workload("n2-b-two-eth0", "10.0.0.6", namespace="two", workload="vm"),
            workload("twin", "10.0.0.3", namespace="two"),
            HostEndpoint(
                metadata=Metadata(name="n1-eth0"),
                spec=HostEndpointSpec(node="n1", expected_ips=(ip_address("192.0.2.1"), ip_address("10.0.0.1"))),
            ),
        ]
    )
)


def node(name: str, address: str) -> Node:
    spec = NodeSpec(addresses=(NodeAddress(address=ip_interface(address)),))
    return Node(metadata=Metadata(name=name), spec=spec)


def host(name: str, node: str, interface: str) -> HostEndpoint:
    return HostEndpoint(metadata=Metadata(name=name), spec=HostEndpointSpec(node=node, interface_name=interface))


def test_a_nodes_address_is_its_host_endpoint_for_all_interfaces_where_there_is_no_other() -> None:
    nodes = [node(f"n{number}", f"192.0.2.{number}/24") for number in (1, 2, 3)]
    both = [host("n2-all", "n2", "*"), host("n2-eth0", "n2", "eth0")]
    parties = Parties(Cluster([*nodes, host("n1-all", "n1", "*"), *both]))
    first, second, third = (parties.find(f"192.0.2.{number}") for number in (1, 2, 3))
    assert first.key == ResourceKey("HostEndpoint", "n1-all")
    assert (second.key, third.key) == (None, None)
    assert [one.node for one in (first, second, third)] == ["n1", "n2", "n3"]
    assert all(one.is_node for one in (first, second, third))
    assert not parties.find("192.0.2.4").is_node


def found(text: str) -> str | None:
    key = PARTIES.find(text).key
    return key.name if key else None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        pytest.param("one/web-1", "n1-k8s-web--1-eth0", id="a pod"),
        pytest.param("one/n1-k8s-web--1-eth1", "n1-k8s-web--1-eth1", id="a resource's name"),
        pytest.param("two/vm", "vm", id="a resource's name goes before another's workload name"),
        pytest.param("10.0.0.2", "n1-k8s-web--1-eth1", id="an address"),
        pytest.param("10.0.0.3", "n2-a-vm-eth0", id="an address of two: the first by namespace and name"),
        pytest.param("10.0.0.1", "n1-k8s-web--1-eth0", id="an address of a workload and a host endpoint"),
        pytest.param("192.0.2.1", "n1-eth0", id="a host endpoint's address"),
        pytest.param("n1-eth0", "n1-eth0", id="a host endpoint's name"),
        pytest.param("198.51.100.1", None, id="an address outside"),
        pytest.param("fd00::1", None, id="an IPv6 address outside"),
    ],
)
def test_who_is_meant(text: str, name: str | None) -> None:
    assert found(text) == name


def test_an_ambiguous_name_is_refused_with_those_who_have_it() -> None:
    with pytest.raises(UnknownEndError, match="more than one") as refused:
        PARTIES.find("one/vm")
    assert refused.value.candidates == ("one/n2-a-vm-eth0", "one/n2-a-vm-eth1")


@pytest.mark.parametrize("text", ["one/nobody", "three/web-1", "web-1", "", "/", "one/", "/vm", "a/b/c", "10.0.0.0/24"])
def test_who_is_nobody_is_refused(text: str) -> None:
    with pytest.raises(UnknownEndError):
        PARTIES.find(text)


def test_an_address_is_used_as_it_is_named() -> None:
    assert PARTIES.find("10.0.0.1").addresses == (ip_address("10.0.0.1"),)
