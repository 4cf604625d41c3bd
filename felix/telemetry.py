"""What felix lets others see of policy at work: counters, flows and metrics, and the sockets and threads for them.

None of it can stop the agent: what cannot be opened is logged and told as a notice, and the rest goes on."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter as Tallies
from collections.abc import Callable, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry

from felix import counters
from felix.dataplane.counter_reader import CounterReader
from felix.dataplane.cutting import ConnectionCutter
from felix.dataplane.flow_socket import FlowSocket
from felix.dataplane.nft import NftDriver
from felix.flow_file import FlowFile
from felix.flows import FlowLog
from felix.metrics import FelixCollector, Snapshot
from felix.policy_admin import FelixPolicy
from felix.programmer import NodeProgrammer
from felix.rules.render_actions import FLOW_LOG_GROUP
from felix.rules.values import Count
from weft.admin.metrics import MetricsServer
from weft.admin.status import Notice, Severity
from weft.config import AgentConfig
from weft.datastore.syncer import SyncStatus
from weft.model import keys
from weft.policy.values import Direction

log = logging.getLogger(__name__)

SCRAPE_TIMEOUT_S = 10.0


class Telemetry:
    """Belongs to the loop's thread. `start` within the loop, `tick` once a second or so, `close` at the end."""

    def __init__(
        self,
        config: AgentConfig,
        programmer: NodeProgrammer,
        nft: NftDriver,
        cutter: ConnectionCutter,
        interface_name: Callable[[int], str],
        registry: CollectorRegistry,
    ) -> None:
        self._config = config
        self._programmer = programmer
        self._nft = nft
        self._cutter = cutter
        self._registry = registry
        self._reader = CounterReader()
        self._problems: dict[str, str] = {}
        self._flow_log = self._open_flow_log(interface_name)
        self._metrics: MetricsServer | None = None
        self._sync_status: Callable[[], SyncStatus] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.policy = FelixPolicy(programmer, self._reader, self._flow_log)

    def _open_flow_log(self, interface_name: Callable[[int], str]) -> FlowLog | None:
        wanted = self._config.flow_log
        if wanted.logged == "Disabled":
            return None
        try:
            source = FlowSocket(FLOW_LOG_GROUP)
        except OSError as error:
            self._fail("flow log", f"{error}; flows are not logged, policy is enforced")
            return None
        path = wanted.file
        file = FlowFile(None if path == Path("-") else path) if path is not None else None
        node = self._config.node_name
        return FlowLog(source, node, self._programmer, interface_name, self._programmer.holders, file)

    def start(self, sync_status: Callable[[], SyncStatus]) -> None:
        self._sync_status = sync_status
        self._loop = asyncio.get_running_loop()
        self._listen()
        wanted = self._config.metrics
        if not wanted.enabled:
            return
        self._registry.register(FelixCollector(self._scrape))
        try:
            self._metrics = MetricsServer(self._registry, wanted.port, wanted.host)
        except OSError as error:
            self._fail("metrics", f"cannot be served on {wanted.host} port {wanted.port}: {error}")

    def tick(self) -> None:
        if self._flow_log is not None:
            self._flow_log.tick()
            self._listen()

    async def close(self) -> None:
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.close)  # a scrape under way waits for this loop
        if self._flow_log is not None:
            self._forget()
            self._flow_log.close()
        self._reader.close()

    def notices(self) -> list[Notice]:
        return [Notice(Severity.WARNING, subject, text) for subject, text in self._problems.items()]

    def _fail(self, subject: str, text: str) -> None:
        log.error("%s: %s", subject, text)
        self._problems[subject] = text

    # --- flows --------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        if self._flow_log is not None and self._loop is not None:
            self._loop.add_reader(self._flow_log.fileno(), self._on_flow)

    def _forget(self) -> None:
        if self._flow_log is not None and self._loop is not None:
            self._loop.remove_reader(self._flow_log.fileno())

    def _on_flow(self) -> None:
        if self._flow_log is not None and not self._flow_log.on_readable():
            self._forget()

    # --- metrics ------------------------------------------------------------------------------------------------

    def _scrape(self) -> Snapshot:
        """On the metrics server's thread: the kernel is read here, everything else on the loop."""
        assert self._loop is not None
        held = self._reader.read_now()

        async def on_loop() -> Snapshot:
            return self._snapshot(held)

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(SCRAPE_TIMEOUT_S)

    def _snapshot(self, held: Mapping[str, Count]) -> Snapshot:
        programmer = self._programmer
        policies = programmer.policies
        tallies = [
            (key, direction, action, count)
            for key in counters.in_order(policies)
            for direction in Direction
            for action, count in counters.action_counts(policies[key], direction, held).items()
            if count
        ]
        sets, members = self._nft.sizes()
        flows = self._flow_log.flows() if self._flow_log is not None else None
        return Snapshot(
            in_kernel=programmer.ready,
            endpoints=len(programmer.endpoints),
            host_endpoints=len(programmer.host_endpoints),
            policies=len(policies),
            sets=sets,
            members=members,
            not_enforced=Tallies(key.kind for key in programmer.not_enforced),
            malformed=self._malformed(),
            failures=len(programmer.failures),
            tallies=tallies,
            ended=counters.ended(held),
            flows=flows.last if flows is not None else 0,
            flows_lost=flows.lost if flows is not None else 0,
            connections_cut=self._cutter.cut_total,
            connections_resumed=self._cutter.resumed_total,
        )

    def _malformed(self) -> dict[str, int]:
        assert self._sync_status is not None
        found = (keys.parse(path) for path in self._sync_status().undecodable)
        return Tallies(key.kind if isinstance(key, keys.ResourceKey) else "other" for key in found)
