"""A node agent that starts on a kernel full of leftovers writes what differs, and nothing else.

The whole programmer on a real kernel in a namespace: table `inet weft` and the routes of protocol 80. What it writes
is counted where it leaves for the kernel, and the kernel's own word is taken, too: rule handles and route
notifications."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_network
from typing import Self

import pytest

from felix.calc.graph import Graph
from felix.dataplane.interfaces import InterfaceMonitor
from felix.dataplane.nft import NftDriver
from felix.dataplane.nft_kernel import NftSocket
from felix.dataplane.nft_state import KernelTable, Refusal
from felix.programmer import LOCAL_ROUTES, NodeProgrammer
from felix.rules import operations as op
from lab.netns import NetNs, link
from weft.datastore.syncer import InSync, Upserted
from weft.model import keys
from weft.model.base import Metadata, Resource
from weft.model.endpoint import WorkloadEndpoint, WorkloadEndpointSpec
from weft.model.ipam import AffinityValue
from weft.model.keys import AffinityKey, Owner
from weft.model.policy import (
    EntityRule,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    GlobalNetworkSet,
    NetworkSetSpec,
    Profile,
    ProfileSpec,
    Rule,
)
from weft.model.pool import IPPool, IPPoolSpec
from weft.model.values import Port, Protocol
from weft.netlink.route import PackedPrefix, Target, pack
from weft.netlink.routetable import KernelRoutes, RouteChanges, RouteRefusal, RouteTable
from weft.netlink.socket import NetlinkSocket

pytestmark = pytest.mark.root

WORKLOADS = 12
BLOCKS = ("10.65.0.0/26", "fd00:65::/122")


class CountingNft:
    """The kernel's nft, and what was sent to it."""

    def __init__(self) -> None:
        self.socket = NftSocket()
        self.sent: list[op.Operation] = []

    def read(self) -> KernelTable:
        return self.socket.read()

    def commit(self, operations: Sequence[op.Operation]) -> list[Refusal]:
        self.sent += operations
        return self.socket.commit(operations)


class CountingRoutes:
    """The kernel's routes of ours, and what was sent to them."""

    def __init__(self) -> None:
        self.socket = NetlinkSocket()
        self.kernel = KernelRoutes(self.socket, LOCAL_ROUTES)
        self.written: list[PackedPrefix] = []
        self.deleted: list[PackedPrefix] = []

    def read(self) -> dict[PackedPrefix, Target]:
        return self.kernel.read()

    def look_up(self, prefixes: Sequence[PackedPrefix]) -> dict[PackedPrefix, Target]:
        return self.kernel.look_up(prefixes)

    def apply(self, changes: RouteChanges) -> list[RouteRefusal]:
        self.written += [*changes.create, *changes.replace]
        self.deleted += changes.delete
        return self.kernel.apply(changes)


class Agent:
    """One life of the node agent's programmer, from the snapshot on."""

    def __init__(self, resources: Sequence[Resource]) -> None:
        self.nft = CountingNft()
        self.routes = CountingRoutes()
        self.links = InterfaceMonitor()
        self.programmer = NodeProgrammer(
            Graph("node1"), NftDriver(self.nft), RouteTable(self.routes, LOCAL_ROUTES), self.links, time.monotonic
        )
        owner = Owner("host", "node1")
        blocks = [Upserted(AffinityKey(owner, ip_network(one)), AffinityValue(state="confirmed"), 1) for one in BLOCKS]
        upserts = [Upserted(keys.of(one), one, 1) for one in resources]
        self.programmer.on_events([*upserts, *blocks, InSync()])
        assert self.programmer.ready
        assert self.programmer.failures == {}
        assert self.programmer.waiting_for_interface == frozenset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """As by SIGKILL: its sockets are closed, and everything stays in the kernel."""
        self.nft.socket.close()
        self.routes.socket.close()
        self.links.close()


def policy(name: str, *ports: int) -> GlobalNetworkPolicy:
    source = EntityRule(selector="app == 'web' || role == 'outside'")
    rules = [
        Rule(
            action="Allow",
            protocol=Protocol.parse("TCP"),
            source=source,
            destination=EntityRule(ports=(Port(port, port),)),
        )
        for port in ports
    ]
    spec = GlobalNetworkPolicySpec(selector=f"{name} == 'yes'", ingress=tuple(rules), types=("Ingress", "Egress"))
    return GlobalNetworkPolicy(metadata=Metadata(name=name), spec=spec)


def workload(number: int) -> WorkloadEndpoint:
    labels = {"app": "web" if number % 2 else "db", f"p{number % 3}": "yes"}
    return WorkloadEndpoint(
        metadata=Metadata(name=f"w{number}", namespace="default", labels=labels),
        spec=WorkloadEndpointSpec(
            node="node1",
            orchestrator="cni",
            ip_networks=(ip_network(f"10.65.0.{number}"), ip_network(f"fd00:65::{number:x}")),
            interface_name=f"cali{number}",
            profiles=("net",),
        ),
    )


def cluster() -> list[Resource]:
    outside = NetworkSetSpec(
        nets=(ip_network("192.0.2.0/24"), ip_network("192.0.2.128/25"), ip_network("2001:db8::/32"))
    )
    return [
        *(workload(number) for number in range(1, WORKLOADS + 1)),
        *(policy(f"p{number}", 80, 443) for number in range(3)),
        Profile(metadata=Metadata(name="net"), spec=ProfileSpec(egress=(Rule(action="Allow"),))),
        GlobalNetworkSet(metadata=Metadata(name="out", labels={"role": "outside"}), spec=outside),
        IPPool(metadata=Metadata(name="v4"), spec=IPPoolSpec(cidr=ip_network("10.65.0.0/16"), nat_outgoing=True)),
    ]


@pytest.fixture
def host(netns: Callable[[str], NetNs]) -> Iterator[NetNs]:
    made = netns("takeover")
    for number in range(1, WORKLOADS + 1):
        link(made, f"cali{number}", made, f"peer{number}")
    with made.enter():
        yield made


def packed(*prefixes: str) -> set[PackedPrefix]:
    return {pack(ip_network(prefix)) for prefix in prefixes}


def rules_with_handles(host: NetNs) -> str:
    return host.run(["nft", "-a", "list", "ruleset"])


def chain_that_asks(host: NetNs, policy_name: str) -> str:
    """The chain in which the policy's rules of ingress are written."""
    tables = json.loads(host.run(["nft", "-j", "list", "ruleset"]))["nftables"]
    (found,) = {
        one["rule"]["chain"]
        for one in tables
        if any(f"ingress/gnp/{policy_name}/" in str(part) for part in one.get("rule", {}).get("expr", ()))
    }
    assert isinstance(found, str)
    return found


def test_a_start_on_what_is_right_writes_nothing(host: NetNs) -> None:
    with Agent(cluster()) as first:
        assert len(first.nft.sent) > 50
        assert len(first.routes.written) == 2 * WORKLOADS + len(BLOCKS)
    before = rules_with_handles(host)
    monitor = InterfaceMonitor()
    try:
        with Agent(list(reversed(cluster()))) as second:
            assert second.nft.sent == []
            assert second.routes.written == second.routes.deleted == []
        assert rules_with_handles(host) == before
        assert monitor.receive().routes == []
    finally:
        monitor.close()


def test_a_start_on_leftovers_writes_what_differs(host: NetNs) -> None:
    with Agent(cluster()):
        right = rules_with_handles(host)
    changed = chain_that_asks(host, "p0")
    # What somebody else changed, what an older life left behind, and what is none of our business.
    host.run(["nft", "add", "rule", "inet", "weft", changed, "accept"])
    host.run(["nft", "add", "chain", "inet", "weft", "ingress/gnp/leftover"])
    host.run(["nft", "delete", "element", "inet", "weft", "to_endpoints", '{ "cali3" }'])
    host.run(["nft", "add", "element", "inet", "weft", "known_endpoints", '{ "cali99" : return }'])
    host.run(["nft", "add", "table", "inet", "other"])
    host.ip("route", "delete", "10.65.0.1/32", "proto", "80")
    host.ip("route", "add", "10.65.0.77/32", "dev", "cali1", "proto", "80")
    host.ip("route", "replace", "10.65.0.2/32", "dev", "cali1", "proto", "80")
    host.ip("route", "add", "blackhole", "10.65.9.0/26", "proto", "80")
    host.ip("route", "add", "10.77.0.0/24", "dev", "cali1", "proto", "static")

    with Agent(cluster()) as again:
        touched = [getattr(one, "chain", getattr(one, "map", getattr(one, "name", ""))) for one in again.nft.sent]
        assert set(touched) == {changed, "ingress/gnp/leftover", "to_endpoints", "known_endpoints"}
        assert len(touched) <= 12
        assert set(again.routes.written) == packed("10.65.0.1/32", "10.65.0.2/32")
        assert set(again.routes.deleted) == packed("10.65.0.77/32", "10.65.9.0/26")
    assert "10.77.0.0/24 dev cali1" in host.ip("route", "show", "proto", "static")
    assert "table inet other" in rules_with_handles(host)
    host.run(["nft", "delete", "table", "inet", "other"])
    assert _without_handles(rules_with_handles(host)) == _without_handles(right)


def test_a_start_writes_what_changed_in_the_datastore_meanwhile(host: NetNs) -> None:
    with Agent(cluster()):
        changed = chain_that_asks(host, "p1")
    now = [one for one in cluster() if one.metadata.name not in ("p1", "w4")]
    with Agent([*now, policy("p1", 8080)]) as again:
        chains = {one.chain for one in again.nft.sent if isinstance(one, op.AddRule)}
        assert chains == {changed}
        gone = [one for one in again.nft.sent if isinstance(one, op.RemoveEntries)]
        assert {(one.map, *one.interfaces) for one in gone} == {
            (name, "cali4") for name in ("to_endpoints", "from_endpoints", "known_endpoints")
        }
        assert again.routes.written == []
        assert set(again.routes.deleted) == packed("10.65.0.4/32", "fd00:65::4/128")


def _without_handles(listing: str) -> list[str]:
    """Sorted, since what is written again comes last."""
    return sorted(line.partition(" # handle")[0].strip() for line in listing.splitlines())
