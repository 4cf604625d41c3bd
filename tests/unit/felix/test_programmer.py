"""The order in which changes reach the kernel, and what happens when notices come late or the kernel refuses."""

from __future__ import annotations

import errno
from ipaddress import ip_address, ip_network

import pytest

from felix.ahead import ECHO_TIMEOUT_S
from felix.calc.graph import Graph
from felix.dataplane.nft import NftDriver
from felix.programmer import (
    LOCAL_ROUTES,
    NodeProgrammer,
    NotProgrammedError,
    NotReadyError,
    key_of,
)
from felix.rules.render_chains import Where
from felix.rules.render_names import host_map
from tests.fakes.nft import FakeNft
from tests.fakes.routes import FakeRouteKernel
from weft.datastore.syncer import Deleted, InSync, Unreadable, Upserted
from weft.model.base import Metadata
from weft.model.endpoint import HostEndpoint, HostEndpointSpec, WorkloadEndpoint, WorkloadEndpointSpec
from weft.model.ipam import AffinityValue
from weft.model.keys import AffinityKey, Owner, ResourceKey
from weft.netlink.route import device, pack
from weft.netlink.routetable import RouteTable
from weft.policy.values import Direction

ADDRESS = "10.65.0.1/32"
INTERFACE = "cali0123456789a"


class FakeLinks:
    """Host interfaces by name."""

    def __init__(self) -> None:
        self.indexes: dict[str, int] = {}

    def index(self, name: str) -> int | None:
        return self.indexes.get(name)


class Node:
    """A programmer with fakes for everything below it, and a clock that stands still."""

    def __init__(self) -> None:
        self.nft = FakeNft()
        self.routes = FakeRouteKernel(LOCAL_ROUTES)
        self.links = FakeLinks()
        self.now_s = 1000.0
        self.programmer = NodeProgrammer(
            Graph("node1"),
            NftDriver(self.nft),
            RouteTable(self.routes, LOCAL_ROUTES),
            self.links,
            lambda: self.now_s,
        )

    def in_sync(self) -> Node:
        self.programmer.on_events([InSync()])
        return self

    def protected(self) -> set[str]:
        """The node's own interfaces that policy for the node itself has in the kernel."""
        return set(self.nft.read().maps.get(host_map(Direction.INGRESS, Where.HOST.value), {}))

    def entries(self) -> set[str]:
        return set(self.nft.read().maps["to_endpoints"])


def endpoint(address: str = ADDRESS, interface: str = INTERFACE, uid: str = "one") -> WorkloadEndpoint:
    return WorkloadEndpoint(
        metadata=Metadata(name=f"node1-cni-{interface.replace('_', '')}-eth0", namespace="default", uid=uid),
        spec=WorkloadEndpointSpec(
            orchestrator="cni",
            node="node1",
            container_id="abc",
            endpoint="eth0",
            ip_networks=(ip_network(address),),
            interface_name=interface,
        ),
    )


@pytest.fixture
def node() -> Node:
    made = Node()
    made.links.indexes[INTERFACE] = 7
    return made


def test_nothing_is_written_before_the_snapshot_is_complete(node: Node) -> None:
    node.programmer.on_events([Upserted(key_of(endpoint()), endpoint(), 1)])
    assert (node.nft.commits, node.routes.writes) == ([], [])
    node.in_sync()
    assert node.entries() == {INTERFACE}
    assert node.routes.ours() == {ADDRESS: device(7)}


def test_a_host_endpoint_follows_its_address_from_interface_to_interface(node: Node) -> None:
    one = HostEndpoint(
        metadata=Metadata(name="h"), spec=HostEndpointSpec(node="node1", expected_ips=(ip_address("192.0.2.1"),))
    )
    node.programmer.on_interfaces({"eth0": frozenset(one.spec.expected_ips)})
    node.programmer.on_events([Upserted(ResourceKey("HostEndpoint", "h"), one, 1), InSync()])
    assert node.programmer.host_endpoints.keys() == {"eth0"}
    node.programmer.on_interfaces({"eth1": frozenset(one.spec.expected_ips)})
    assert node.programmer.host_endpoints.keys() == {"eth1"}
    assert node.protected() == {"eth1"}
    node.programmer.on_interfaces({})
    assert node.protected() == set()


async def test_the_cni_server_is_told_to_wait_before_the_snapshot_is_complete(node: Node) -> None:
    with pytest.raises(NotReadyError):
        await node.programmer.program(endpoint())


async def test_policy_and_route_are_in_the_kernel_when_program_returns(node: Node) -> None:
    await node.in_sync().programmer.program(endpoint())
    assert node.entries() == {INTERFACE}
    assert node.routes.ours() == {ADDRESS: device(7)}


async def test_no_route_is_added_while_the_policy_is_refused(node: Node) -> None:
    node.in_sync()
    node.nft.always_refuse["to_endpoints"] = errno.ENOMEM
    with pytest.raises(NotProgrammedError, match="policy of"):
        await node.programmer.program(endpoint())
    assert node.routes.ours() == {}
    node.nft.always_refuse.clear()
    due_s = node.programmer.due_s()
    assert due_s is not None
    node.now_s = due_s
    node.programmer.on_tick()
    assert node.routes.ours() == {ADDRESS: device(7)}
    assert node.programmer.failures == {}


async def test_a_refused_chain_is_an_error_for_every_endpoint_that_shares_it(node: Node) -> None:
    node.links.indexes["cali_second"] = 8
    await node.in_sync().programmer.program(endpoint())
    (shared,) = [name for name in node.nft.read().chains if name.startswith("ingress/endpoint/")]
    await node.programmer.remove(key_of(endpoint()))
    node.nft.refuse[shared] = [errno.ENOMEM] * 3  # the change, and twice from a fresh read: then it is put aside
    second = endpoint("10.65.0.2/32", "cali_second", "two")
    for one in (endpoint(), second):
        with pytest.raises(NotProgrammedError, match=shared):
            await node.programmer.program(one)


async def test_a_refused_route_is_an_error_and_is_tried_again(node: Node) -> None:
    node.in_sync()
    prefix = pack(ip_network(ADDRESS))
    node.routes.refuse[prefix] = errno.EPERM
    with pytest.raises(NotProgrammedError, match=ADDRESS):
        await node.programmer.program(endpoint())
    node.routes.refuse.clear()
    node.now_s += 60
    node.programmer.on_tick()
    assert node.routes.ours() == {ADDRESS: device(7)}


async def test_an_endpoint_without_its_interface_is_an_error_until_the_interface_comes(node: Node) -> None:
    del node.links.indexes[INTERFACE]
    with pytest.raises(NotProgrammedError, match="no such interface"):
        await node.in_sync().programmer.program(endpoint())
    node.links.indexes[INTERFACE] = 9
    node.programmer.on_links({INTERFACE: 9})
    assert node.routes.ours() == {ADDRESS: device(9)}


async def test_an_interface_that_comes_back_with_another_index_gets_its_routes_again(node: Node) -> None:
    await node.in_sync().programmer.program(endpoint())
    node.routes.link_down(7)
    node.programmer.on_links({INTERFACE: None})
    assert node.routes.ours() == {}
    node.programmer.on_links({INTERFACE: 8})
    assert node.routes.ours() == {ADDRESS: device(8)}


async def test_removal_takes_the_route_before_the_policy(node: Node) -> None:
    await node.in_sync().programmer.program(endpoint())
    order: list[str] = []
    node.nft.commit = _noting(order, "policy", node.nft.commit)  # type: ignore[method-assign]
    node.routes.apply = _noting(order, "routes", node.routes.apply)  # type: ignore[method-assign]
    await node.programmer.remove(key_of(endpoint()))
    assert order[:2] == ["routes", "policy"]
    assert (node.entries(), node.routes.ours()) == (set(), {})


async def test_what_a_retired_endpoint_left_in_the_kernel_goes_with_the_next_notice(node: Node) -> None:
    await node.in_sync().programmer.program(endpoint())
    node.programmer.retire(key_of(endpoint()))
    node.programmer.on_events([Deleted(key_of(endpoint()))])
    assert (node.entries(), node.routes.ours()) == (set(), {})


async def test_what_a_retired_endpoint_left_in_the_kernel_goes_without_a_notice(node: Node) -> None:
    await node.in_sync().programmer.program(endpoint())
    node.programmer.retire(key_of(endpoint()))
    node.programmer.on_tick()
    assert (node.entries(), node.routes.ours()) == (set(), {})


async def test_a_successor_with_the_names_of_a_retired_endpoint_gets_its_own_route(node: Node) -> None:
    await node.in_sync().programmer.program(endpoint(uid="old"))
    node.programmer.retire(key_of(endpoint()))
    node.routes.link_down(7)
    node.links.indexes[INTERFACE] = 8
    await node.programmer.program(endpoint(uid="new"))
    assert node.routes.ours() == {ADDRESS: device(8)}


async def test_the_address_of_a_retired_endpoint_can_be_given_to_another_at_once(node: Node) -> None:
    await node.in_sync().programmer.program(endpoint())
    node.programmer.retire(key_of(endpoint()))
    node.links.indexes["cali_second"] = 8
    await node.programmer.program(endpoint(interface="cali_second", uid="two"))
    assert node.routes.ours() == {ADDRESS: device(8)}
    assert node.entries() == {"cali_second"}


def _noting(order, what, call):  # type: ignore[no-untyped-def]
    def wrapped(argument):  # type: ignore[no-untyped-def]
        order.append(what)
        return call(argument)

    return wrapped


async def test_a_late_notice_of_an_earlier_deletion_does_not_cut_off_the_new_endpoint(node: Node) -> None:
    node.in_sync()
    old, new = endpoint(uid="old"), endpoint(uid="new")
    await node.programmer.program(old)
    await node.programmer.remove(key_of(old))
    await node.programmer.program(new)
    node.programmer.on_events([Upserted(key_of(old), old, 1)])
    node.programmer.on_events([Deleted(key_of(old))])
    assert node.routes.ours() == {ADDRESS: device(7)}
    node.programmer.on_events([Upserted(key_of(new), new, 3)])
    node.programmer.on_events([Deleted(key_of(new))])
    assert node.routes.ours() == {}, "once the new endpoint's own notice came, the next deletion counts"


async def test_a_notice_that_never_comes_leads_to_a_question(node: Node) -> None:
    await node.in_sync().programmer.program(endpoint())
    assert node.programmer.overdue() == []
    node.now_s += ECHO_TIMEOUT_S
    assert node.programmer.overdue() == [key_of(endpoint())]
    node.programmer.settle(key_of(endpoint()), None)
    assert node.routes.ours() == {}
    assert node.programmer.overdue() == []


def test_a_block_of_this_node_is_a_blackhole_while_it_is_confirmed(node: Node) -> None:
    key = AffinityKey(Owner("host", "node1"), ip_network("10.65.0.0/26"))
    node.in_sync()
    node.programmer.on_events([Upserted(key, AffinityValue(state="confirmed"), 1)])
    assert set(node.routes.ours()) == {"10.65.0.0/26"}
    node.programmer.on_events([Deleted(key)])
    assert node.routes.ours() == {}


def test_an_endpoint_that_cannot_be_read_any_more_passes_nothing(node: Node) -> None:
    key = key_of(endpoint())
    node.programmer.on_events([Upserted(key, endpoint(), 1), InSync()])
    assert node.entries() == {INTERFACE}
    node.programmer.on_events([Unreadable(key, b"{", "no JSON")])
    assert node.entries() == set()
    assert node.routes.ours() == {}
    assert node.programmer.not_enforced[key][0].endswith("nothing passes")
    node.programmer.on_events([Upserted(key, endpoint(), 3)])
    assert node.entries() == {INTERFACE}
    assert node.programmer.not_enforced == {}
