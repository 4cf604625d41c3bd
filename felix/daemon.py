"""weft-felix: the composition root of the node agent. It owns the loop, the sockets and the clock, and decides nothing.

Datastore events go to the programmer, which follows them into the kernel; so do the kernel's own notifications, and
what the CNI server asks. On SIGTERM the agent leaves everything in the kernel as it is."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence

import uvloop
from prometheus_client import CollectorRegistry

from felix.calc.graph import Graph
from felix.cni.parts import Machine, Parts
from felix.cni.server import CNIServer
from felix.cni.service import CNIService
from felix.cni.view import NodeView
from felix.dataplane import sysctl
from felix.dataplane.conntrack import ConntrackSocket
from felix.dataplane.cutting import ConnectionCutter
from felix.dataplane.interfaces import InterfaceMonitor
from felix.dataplane.nft import NftDriver
from felix.dataplane.nft_kernel import NftSocket, NftWatch
from felix.dataplane.reaper import Reaper
from felix.dataplane.sender_checks import KernelSenderChecks, SenderChecks
from felix.dataplane.wiring import GATEWAY_IPV4, GATEWAY_IPV6, KernelWiring
from felix.metrics import MeasuredKernel
from felix.programmer import LOCAL_ROUTES, NodeProgrammer
from felix.status import FelixStatus
from felix.telemetry import Telemetry
from weft.admin.server import AdminServer, AdminService
from weft.admin.services.datastore import datastore_services
from weft.admin.services.policy import PolicyServer
from weft.admin.services.status import StatusServer
from weft.admin.status import Notice, Severity
from weft.config import AgentConfig
from weft.datastore.etcd import EtcdDatastore
from weft.datastore.syncer import InSync, Syncer, SyncEvent, Upserted
from weft.ipam.client import IPAMClient
from weft.model import codec, keys
from weft.model.endpoint import WorkloadEndpoint
from weft.model.errors import DatastoreUnavailableError, ValidationError
from weft.model.keys import Key, Owner, ResourceKey
from weft.model.node import Node
from weft.netlink.routetable import KernelRoutes, RouteTable
from weft.netlink.socket import DumpInterruptedError, NetlinkSocket
from weft.node.agent import begin, configuration

log = logging.getLogger("weft-felix")

WATCHED_KINDS = (
    "WorkloadEndpoint",
    "HostEndpoint",
    "NetworkPolicy",
    "GlobalNetworkPolicy",
    "StagedNetworkPolicy",
    "StagedGlobalNetworkPolicy",
    "StagedKubernetesNetworkPolicy",
    "NetworkSet",
    "GlobalNetworkSet",
    "KubernetesEndpointSlice",
    "Profile",
    "Tier",
    "IPPool",
    "IPReservation",
    "Node",
    "FelixConfiguration",
    "BGPConfiguration",
    "ClusterInformation",
)
LONGEST_WAIT_S = 1.0
DEFAULT_MTU = 1500
ANSWER_FIRST_S = 0.01
"""What the kernel and the datastore tell while a CNI call is under way waits this long: mostly they tell of the call,
which is answered sooner if nobody listens."""


def watched_prefixes(node: str) -> list[str]:
    """What of the datastore concerns this agent: of the IPAM blocks, only who owns those of this node."""
    owner = Owner("host", node)
    affinities = [keys.affinity_prefix(owner, version) for version in (4, 6)]
    return [*(keys.prefix(kind) for kind in WATCHED_KINDS), *affinities, keys.IPAM_CONFIG]


class Daemon:
    """One running agent, in the network namespace of its process."""

    def __init__(self, config: AgentConfig) -> None:
        assert config.etcd is not None
        self._config = config
        self._store = EtcdDatastore(config.etcd)
        self._syncer = Syncer(self._store, watched_prefixes(config.node_name), self._let_calls_finish)
        self._route_socket = NetlinkSocket()
        self._interfaces = InterfaceMonitor(silent_ports=[self._route_socket.port])
        self._nft_socket = NftSocket()
        self._nft_watch = NftWatch([self._nft_socket.port])
        self._reaper = Reaper()
        self._wiring = KernelWiring(self._reaper)
        self._conntrack = ConntrackSocket()
        self._connections_concerned = asyncio.Event()
        graph = Graph(config.node_name, config.flow_log.logged)
        registry = CollectorRegistry()
        nft = NftDriver(MeasuredKernel(self._nft_socket, registry))
        cutter = ConnectionCutter(
            self._conntrack, graph.members, self._interfaces.addresses, self._connections_concerned.set
        )
        self._programmer = NodeProgrammer(
            graph,
            nft,
            RouteTable(KernelRoutes(self._route_socket, LOCAL_ROUTES), LOCAL_ROUTES),
            self._interfaces,
            time.monotonic,
            cutter,
        )
        self._telemetry = Telemetry(config, self._programmer, nft, cutter, self._interfaces.name, registry)
        self._programmer.sender_checks = SenderChecks(KernelSenderChecks(self._route_socket), self._interfaces.index)
        self._programmer.on_interfaces(self._interfaces.own_addresses())
        self._view = NodeView(config.node_name)
        self._node_key = ResourceKey("Node", config.node_name)
        self._node: Node | None = None
        self._status = FelixStatus(
            config.node_name,
            time.time(),
            self._programmer,
            self._workload_name,
            lambda: self._syncer.status,
            self._notices,
        )
        parts = Parts(
            store=self._store,
            ipam=IPAMClient(self._store, config.node_name, self._view),
            view=self._view,
            wiring=self._wiring,
            programmer=self._programmer,
            machine=Machine(self._workload_mtu, {4: str(GATEWAY_IPV4), 6: str(GATEWAY_IPV6)}),
        )
        self._cni = CNIServer(config.run_dir / "cni.sock", CNIService(parts).handle)
        self._stopping = asyncio.Event()
        self._listen_until_s = 0.0

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        gc.disable()  # while the datastore is read, next to nothing is garbage
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._make_router()
        for name in self._reaper.adopt_leftovers():
            log.info("leftover interface %s is deleted", name)
        readers: dict[int, Callable[[], None]] = {
            self._interfaces.fileno(): self._on_interfaces_readable,
            self._nft_watch.fileno(): self._on_nft,
        }
        for descriptor, reader in readers.items():
            loop.add_reader(descriptor, reader)
        try:
            self._telemetry.start(lambda: self._syncer.status)
            async with self._admin_server(), asyncio.TaskGroup() as group:
                await self._cni.start()
                tasks = [
                    group.create_task(self._syncer.run(self._on_datastore)),
                    group.create_task(self._tick_forever()),
                    group.create_task(self._cut_connections_forever()),
                ]
                await self._stopping.wait()
                for task in tasks:
                    task.cancel()
        finally:
            for descriptor in readers:
                loop.remove_reader(descriptor)
            await self._close()

    def _make_router(self) -> None:
        try:
            for change in sysctl.enable_routing(sysctl.ProcSettings()):
                log.info("kernel setting %s: %s, was %s", change.name, change.now, change.was)
        except OSError as error:
            log.error("this node does not forward packets: %s; run privileged, or set it before the start", error)

    def _admin_server(self) -> AdminServer:
        services: list[AdminService] = [
            StatusServer(self._status),
            PolicyServer(self._telemetry.policy),
            *datastore_services(self._store),
        ]
        return AdminServer(self._config.run_dir / "felix.sock", services, ready=lambda: self._programmer.ready)

    def _notices(self) -> list[Notice]:
        problems = sysctl.problems(sysctl.ProcSettings())
        found = [Notice(Severity.WARNING, f"{one.name}={one.value}", one.consequence) for one in problems]
        return found + self._telemetry.notices()

    async def _close(self) -> None:
        await self._cni.close()
        await self._telemetry.close()
        self._reaper.close()
        self._wiring.close()
        self._interfaces.close()
        self._nft_watch.close()
        self._nft_socket.close()
        self._conntrack.close()
        self._route_socket.close()
        await self._store.close()

    def _workload_name(self, key: ResourceKey) -> str:
        endpoint = self._view.endpoint(key)
        return endpoint.spec.workload or endpoint.spec.pod if endpoint is not None else ""

    def _workload_mtu(self) -> int:
        """That of the link which has the node's address: a workload's packets leave through it as they are."""
        bgp = self._node.spec.bgp if self._node is not None else None
        for interface in (bgp.ipv4_address, bgp.ipv6_address) if bgp is not None else ():
            if interface is not None and (uplink := self._interfaces.uplink(interface.ip)) is not None:
                return uplink.mtu
        return DEFAULT_MTU

    # --- inputs -------------------------------------------------------------------------------------------------

    def _on_datastore(self, events: Sequence[SyncEvent]) -> None:
        in_sync = False
        for event in events:
            match event:
                case Upserted(key, Node() as node, _) if key == self._node_key:
                    self._node = node
                case InSync():
                    in_sync = True
                    log.info("the datastore has been read completely")
                case _:
                    pass
        self._view.on_events(events)
        self._programmer.on_events(events)
        if in_sync:
            _keep_for_good()

    async def _let_calls_finish(self) -> None:
        loop = asyncio.get_running_loop()
        if self._cni.is_busy and loop.time() >= self._listen_until_s:
            await asyncio.sleep(ANSWER_FIRST_S)
            self._listen_until_s = loop.time() + ANSWER_FIRST_S

    def _on_interfaces_readable(self) -> None:
        if not self._cni.is_busy:
            self._on_interfaces()
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._interfaces.fileno())
        loop.call_later(ANSWER_FIRST_S, self._on_interfaces_later)

    def _on_interfaces_later(self) -> None:
        if not self._stopping.is_set():
            self._on_interfaces()
            asyncio.get_running_loop().add_reader(self._interfaces.fileno(), self._on_interfaces_readable)

    def _on_interfaces(self) -> None:
        try:
            changes = self._interfaces.receive()
        except (OSError, DumpInterruptedError) as error:
            log.warning("the host's interfaces cannot be read, trying again: %s", error)
            return
        if changes.own_addresses:
            self._programmer.on_interfaces(self._interfaces.own_addresses())
        if changes.links:
            self._programmer.on_links(changes.links)
        if changes.lost:
            self._programmer.resync_routes()
        if changes.routes:
            self._programmer.on_route_notifications(changes.routes)

    def _on_nft(self) -> None:
        if self._nft_watch.touched():
            self._programmer.on_foreign_table_change()

    async def _tick_forever(self) -> None:
        while True:
            due_s = self._programmer.due_s()
            now_s = time.monotonic()
            await asyncio.sleep(LONGEST_WAIT_S if due_s is None else min(max(due_s - now_s, 0.01), LONGEST_WAIT_S))
            self._on_interfaces()  # once more, if they could not be read when they changed
            self._programmer.on_tick()
            self._telemetry.tick()
            self._connections_concerned.set()  # what waited for the policy to be in the kernel, or for a retry
            for key in self._programmer.overdue():
                await self._ask(key)

    async def _cut_connections_forever(self) -> None:
        """A little later than the change, so that a burst of changes is one pass, and in small pieces."""
        while True:
            await self._connections_concerned.wait()
            self._connections_concerned.clear()
            await asyncio.sleep(ANSWER_FIRST_S)
            more = True
            while more:
                more = self._programmer.cut_connections()
                await asyncio.sleep(0)

    async def _ask(self, key: Key) -> None:
        """The datastore's notice of what was programmed ahead of it did not come: what does it hold?"""
        try:
            stored = await self._store.get(keys.path(key))
        except DatastoreUnavailableError:
            return  # asked again at the next tick
        value = None
        if stored is not None:
            try:
                value = codec.decode_stored(key, stored.value)
            except ValidationError as error:
                log.warning("%s is not usable and treated as absent: %s", stored.key, error)
        self._programmer.settle(key, value if isinstance(value, WorkloadEndpoint) else None)


def _keep_for_good() -> None:
    """Most of what is here now stays: searching it for garbage would take 30 ms each time."""
    gc.enable()
    gc.collect()
    gc.freeze()


async def _run(config: AgentConfig) -> None:
    await Daemon(config).run()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="weft-felix", description="The node agent: policy, routes and CNI.")
    parser.parse_args(argv)
    config = configuration(parser)
    begin(parser, config, "felix")
    uvloop.run(_run(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
