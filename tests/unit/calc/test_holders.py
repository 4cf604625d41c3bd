"""Who has an address: endpoints of the whole cluster, not the network sets that contain it."""

from ipaddress import ip_address, ip_network

from felix.calc.graph import Graph
from weft.model import keys
from weft.model.base import Metadata
from weft.model.endpoint import WorkloadEndpoint, WorkloadEndpointSpec
from weft.model.policy import GlobalNetworkSet, NetworkSetSpec


def _endpoint(name: str, node: str, address: str) -> WorkloadEndpoint:
    spec = WorkloadEndpointSpec(
        node=node,
        orchestrator="k8s",
        pod=name,
        endpoint="eth0",
        interface_name=f"cali{name}",
        ip_networks=(ip_network(address),),
    )
    return WorkloadEndpoint(metadata=Metadata(name=f"{node}-k8s-{name}-eth0", namespace="shop"), spec=spec)


def test_an_address_leads_to_the_endpoint_that_has_it_wherever_it_is() -> None:
    graph = Graph("here")
    here, there = _endpoint("a", "here", "10.0.0.1/32"), _endpoint("b", "there", "fd00::2/128")
    networks = GlobalNetworkSet(metadata=Metadata(name="all"), spec=NetworkSetSpec(nets=(ip_network("10.0.0.3/32"),)))
    for one in (here, there, networks):
        graph.on_update(keys.of(one), one)
    asked = {ip_address(text) for text in ("10.0.0.1", "fd00::2", "10.0.0.3", "10.0.0.9")}
    assert graph.holders(asked) == {ip_address("10.0.0.1"): keys.of(here), ip_address("fd00::2"): keys.of(there)}
    graph.on_update(keys.of(here), None)
    assert graph.holders({ip_address("10.0.0.1")}) == {}
