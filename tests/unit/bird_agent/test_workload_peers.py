"""The workloads of this node, as far as BGP may peer with them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bird_agent.workload_peers import LocalWorkload
from bird_agent.workload_view import LocalWorkloads
from weft.datastore.syncer import Deleted, InSync, Upserted
from weft.model import keys
from weft.model.base import Metadata
from weft.model.endpoint import WorkloadEndpoint, WorkloadEndpointSpec
from weft.model.policy import Profile, ProfileSpec


def endpoint(number: int, node: str = "n1", **labels: str) -> WorkloadEndpoint:
    networks = (ip_network(f"10.65.0.{number}"), ip_network(f"10.65.1.{number}"), ip_network(f"fd65::{number}"))
    spec = WorkloadEndpointSpec(
        orchestrator="k8s", node=node, pod=f"p{number}", endpoint="eth0", ip_networks=networks, profiles=("kns.x",)
    )
    metadata = Metadata(name=f"{node}-k8s-p{number}-eth0", namespace="x", labels=labels)
    return WorkloadEndpoint(metadata=metadata, spec=spec)


def put(resource: Any) -> Upserted:
    return Upserted(keys.of(resource), resource, 1)


PROFILE = Profile(metadata=Metadata(name="kns.x"), spec=ProfileSpec(labels_to_apply={"zone": "a", "role": "none"}))


def test_this_nodes_workloads_are_known_with_their_first_addresses_and_all_labels() -> None:
    known = LocalWorkloads("n1")
    assert known.on_events([put(endpoint(1, role="router")), put(endpoint(2, node="n2")), put(PROFILE), InSync()])
    (found,) = known.workloads()
    assert found == LocalWorkload(
        "x/n1-k8s-p1-eth0",
        {
            "zone": "a",
            "role": "router",
            "projectcalico.org/namespace": "x",
            "projectcalico.org/orchestrator": "k8s",
        },
        (ip_address("10.65.0.1"), ip_address("fd65::1")),
    )
    assert known.in_sync
    assert not known.on_events([put(endpoint(2, node="n2"))])
    assert not known.on_events([Deleted(keys.of(endpoint(2, node="n2")))])
    assert known.on_events([Deleted(keys.of(endpoint(1)))])
    assert known.workloads() == ()


@given(st.permutations([put(endpoint(1)), put(endpoint(2)), put(endpoint(3, role="router")), put(PROFILE), InSync()]))
def test_what_is_known_does_not_depend_on_the_order(events: list[Any]) -> None:
    known = LocalWorkloads("n1")
    for event in events:
        known.on_events([event])
    ordered = LocalWorkloads("n1")
    ordered.on_events([put(PROFILE), *(put(endpoint(number)) for number in (1, 2)), put(endpoint(3, role="router"))])
    assert known.workloads() == ordered.workloads()
