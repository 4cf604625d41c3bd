"""weft-bird-agent: the composition root. It owns every loop, socket and clock, and takes no decision about routing.

Inputs (datastore, speaker, kernel) are handed to `Agent`, and after each of them one step is taken: commands go to the
speaker, routes to the kernel, lines to the log. On SIGTERM the agent leaves and the speaker stays, with its sessions,
for the agent that follows; with WEFT_SPEAKER_LIFETIME=agent, or by `weft-bird-agent stop-speaker`, it ends too."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from ipaddress import ip_address

from bird_agent import workload_view
from bird_agent.agent import Agent
from bird_agent.automatic.publisher import Publisher
from bird_agent.automatic.runner import stop_reflector
from bird_agent.bfd.client import BfdClient, stop_bfd
from bird_agent.bfd.wire import Report
from bird_agent.configurator import Configurator
from bird_agent.datastore_view import watched_prefixes
from bird_agent.exabgp import events, link
from bird_agent.exabgp.client import LinkClient
from bird_agent.exabgp.configuration import without_passwords
from bird_agent.exabgp.spool import DEFAULT_LIMIT_BYTES
from bird_agent.exabgp.supervisor import (
    SpeakerPaths,
    SpeakerRefusedError,
    SpeakerSupervisor,
    stop_speaker,
)
from bird_agent.fib import Fib, kernel_tables
from bird_agent.inspection import BgpInspection
from bird_agent.kernel import KernelView
from bird_agent.metrics import BgpMetrics, Convergence, Snapshot, served
from bird_agent.reporting import Reporter
from bird_agent.session_config import Needs, SessionKind
from bird_agent.status import BirdAgentStatus
from bird_agent.surroundings import SecretFiles, look_around
from bird_agent.virtual import VirtualAddresses
from bird_agent.waiting import is_set_within
from weft import singleton
from weft.admin.answering import Answerer
from weft.admin.server import AdminServer
from weft.admin.services.bgp import BgpServer
from weft.admin.services.status import StatusServer
from weft.config import AgentConfig
from weft.datastore.etcd import EtcdDatastore
from weft.datastore.syncer import Syncer, SyncEvent
from weft.model.keys import Addressee
from weft.netlink.socket import DumpInterruptedError, NetlinkSocket
from weft.node.agent import begin, configuration

log = logging.getLogger("weft-bird-agent")

TICK_S = 1.0
GATHER_S = 0.002  # inputs that come together are one step


class Daemon:
    """One running agent."""

    def __init__(self, config: AgentConfig, spool_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        assert config.etcd is not None
        started_at = time.time()
        self._config = config
        self._requests = NetlinkSocket()
        self._tables = kernel_tables(self._requests)
        self._fib = Fib(self._tables)
        if kept := len(self._tables.left_over):
            log.info("%d routes of an earlier run are kept until everything has been learnt again", kept)
        self._kernel = KernelView(silent_ports=[self._requests.port])
        self._secrets = SecretFiles(config.bgp_secrets_dir, config.namespace)
        self._store = EtcdDatastore(config.etcd)
        self._syncer = Syncer(self._store, watched_prefixes(config.node_name))
        self._workloads = Syncer(self._store, workload_view.watched_prefixes())
        self._virtual = VirtualAddresses(self._requests)
        self._paths = SpeakerPaths(config.run_dir, spool_bytes)
        fresh = singleton.holder(self._paths.lock) is None
        self._agent = Agent(config.node_name, started_at, config.router_id, fresh)
        self._supervisor = SpeakerSupervisor(self._paths, self._on_speaker_running, self._on_speaker_ended)
        self._client = LinkClient(self._paths.socket, self)
        self._status = BirdAgentStatus(
            config.node_name, started_at, self._agent, self._kernel, self._tables, self._syncer
        )
        self._bfd = BfdClient(config.run_dir, self._on_bfd, self._agent.paths.on_lost)
        self._inspection = BgpInspection(
            self._agent, self._kernel, self._tables, self._speaker_text, lambda: self._agent.problems(time.time())
        )
        self._service = BgpServer(self._inspection)
        addressee, inspection = Addressee("agent", config.node_name), self._inspection
        self._answerer = Answerer(self._store, addressee, self._service.methods(), lambda: inspection.caught_up)
        self._reporter = Reporter(self._store, config.node_name, self._agent, started_at)
        self._configurator = Configurator(
            self._paths, self._supervisor, self._client, self._status, self._on_written, self._on_taken
        )
        self._publisher = Publisher(self._store, config, self._agent.automatic)
        self._convergence = Convergence()
        self._metrics = BgpMetrics(self._convergence)
        self._metrics_due = 0.0
        self._needs = Needs()
        self._look_again_at = 0.0
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._workloads_wanted = asyncio.Event()

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_reader(self._kernel.fileno(), self._on_kernel)
        self._read_kernel()
        server = AdminServer(
            self._config.run_dir / "bird-agent.sock",
            [StatusServer(self._status), self._service],
            ready=lambda: self._agent.in_sync,
        )
        try:
            async with server, asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(work)
                    for work in (
                        self._syncer.run(self._on_datastore),
                        self._watch_workloads(),
                        self._step_forever(),
                        self._configurator.run(),
                        self._supervisor.run(),
                        self._bfd.run(),
                        self._reporter.run(),
                        self._reporter.run_node_statuses(),
                        self._publisher.run(),
                        self._answerer.run(),
                        self._attach(),
                    )
                ]
                with served(self._metrics, self._config.bgp_metrics):
                    await self._stopping.wait()
                for task in tasks:
                    task.cancel()
        finally:
            loop.remove_reader(self._kernel.fileno())
            self._kernel.close()
            self._requests.close()
            await self._store.close()

    def _speaker_text(self) -> str:
        try:
            return without_passwords(self._paths.configuration.read_text())
        except FileNotFoundError:
            return ""

    # Inputs.

    def _on_datastore(self, batch: Sequence[SyncEvent]) -> None:
        self._agent.on_datastore(batch)
        if self._agent.wants_workloads:
            self._workloads_wanted.set()
        self._wake.set()

    def _on_workload_endpoints(self, batch: Sequence[SyncEvent]) -> None:
        self._agent.on_workload_endpoints(batch)
        self._wake.set()

    def _on_kernel(self) -> None:
        changes = self._kernel.receive()
        self._tables.on_notifications(changes.own)
        if changes.resync:
            self._tables.resync()
        self._agent.on_workloads(changes.added, changes.removed)
        if changes.underlay:
            self._convergence.on_news(time.monotonic())
            self._read_kernel()
        for address in changes.silent:
            self._agent.on_silent(address)
        if changes:
            self._wake.set()

    def _read_kernel(self) -> None:
        try:
            state = self._kernel.read()
        except (OSError, DumpInterruptedError) as error:
            log.warning("the kernel's routes could not be read, trying again: %s", error)
            return
        self._agent.on_underlay(state.underlay)
        self._agent.on_workloads(state.added, state.removed)

    def on_attached(self, hello: link.Hello) -> None:
        self._agent.conversation.on_attached(hello)

    def on_replaying(self, peer: link.Replaying) -> None:
        self._agent.conversation.on_replaying(ip_address(peer.peer), peer.complete)

    def on_live(self) -> None:
        self._agent.conversation.on_live()

    def on_event(self, event: events.SpeakerEvent) -> None:
        if isinstance(event, events.ReloadReport):
            self._supervisor.on_report(event.digest, event.taken, event.error)
        elif isinstance(event, events.SyncEnd):
            self._supervisor.on_report(event.digest, True, "")
            self._configurator.on_speaker_synced()
        self._convergence.on_news(time.monotonic())
        self._agent.on_speaker(event)

    def on_batch_end(self) -> None:
        self._wake.set()

    def on_detached(self) -> None:
        self._agent.conversation.on_detached()
        self._wake.set()

    def _on_bfd(self, report: Report) -> None:
        self._agent.on_bfd(report)
        self._wake.set()

    def _on_written(self, at: float) -> None:
        self._reporter.configured_at = at

    def _on_taken(self) -> None:
        self._agent.conversation.on_configured()
        self._wake.set()

    def _on_speaker_running(self, before: bool) -> None:
        if before:
            self._agent.conversation.on_speaker_found()
        else:
            self._agent.conversation.on_speaker_started()

    def _on_speaker_ended(self, how: str) -> None:
        self._status.speaker_error = how
        self._agent.conversation.on_speaker_ended()
        self._wake.set()

    # Outputs.

    async def _step_forever(self) -> None:
        while True:
            if await is_set_within(self._wake, TICK_S):
                await asyncio.sleep(GATHER_S)
            self._wake.clear()
            if self._kernel.behind:
                self._read_kernel()
            self._step()

    def _step(self) -> None:
        self._look_around(time.monotonic())
        step = self._agent.step(time.time())
        self._take_snapshot(time.monotonic())
        self._reporter.wake()
        for note in step.notes:
            log.info("%s", note)
        if step.peering is not None:
            self._configurator.set_wanted(step.peering)
        self._keep_workload_peers()
        self._bfd.set_wanted(self._agent.bfd_wanted())
        self._status.bfd_trouble = self._bfd.trouble
        if step.commands:
            self._client.send(step.commands)
        if step.routes:
            self._fib.change(step.routes, step.metrics)
        if step.sweep:
            gone = self._fib.sweep()
            log.info("everything has been learnt; %d routes of an earlier run were left and go", gone)
        if not self._agent.in_sync:
            return
        try:
            for failure in self._fib.apply(time.monotonic()):
                log.warning("route to %s refused by the kernel: %s", failure.prefix, failure.text)
        except (OSError, DumpInterruptedError) as error:
            log.warning("the kernel's routes could not be read, trying again: %s", error)
        self._convergence.on_written(time.monotonic(), bool(step.routes))

    def _keep_workload_peers(self) -> None:
        """The addresses that workloads peer with, and the ways to those that do."""
        if not self._agent.in_sync:
            return
        planned = self._agent.peering
        self._virtual.keep(() if planned is None else planned.virtual)
        sessions = () if planned is None else planned.sessions.values()
        workloads = frozenset(one.peer for one in sessions if one.kind is SessionKind.WORKLOAD)
        if self._kernel.set_neighbors(workloads):
            self._read_kernel()

    def _look_around(self, now: float) -> None:
        """Once a second, and at once for what was not asked before."""
        needs = self._agent.needs
        if needs == self._needs and now < self._look_again_at:
            return
        self._needs, self._look_again_at = needs, now + TICK_S
        self._agent.on_surroundings(look_around(needs, self._secrets))

    def _take_snapshot(self, now: float) -> None:
        if self._config.bgp_metrics is None or now < self._metrics_due:
            return
        self._metrics_due = now + TICK_S
        self._metrics.snapshot = Snapshot(
            self._inspection.peers(),
            len(self._agent.rib.best),
            len(self._tables.failures),
            self._supervisor.restarts,
            self._agent.in_sync,
        )

    async def _watch_workloads(self) -> None:
        """Only where a BGPPeer asks for them: it means reading those of all nodes."""
        await self._workloads_wanted.wait()
        await self._workloads.run(self._on_workload_endpoints)

    async def _attach(self) -> None:
        """Sessions can be told apart only once it is known which there should be."""
        await self._configurator.configured.wait()
        await self._client.run()


async def _run(config: AgentConfig) -> None:
    # For tests, which cannot wait until 16 MB of history have come together.
    spool_bytes = int(os.environ.get("WEFT_SPEAKER_SPOOL_BYTES") or DEFAULT_LIMIT_BYTES)
    await Daemon(config, spool_bytes).run()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="weft-bird-agent", description="The BGP agent of a node.")
    parser.add_argument("command", nargs="?", choices=("run", "stop-speaker"), default="run")
    options = parser.parse_args(argv)
    config = configuration(parser)
    paths = SpeakerPaths(config.run_dir)
    if options.command == "stop-speaker":
        stop_speaker(paths)
        stop_bfd(config.run_dir)
        stop_reflector(config.run_dir, config.node_name)
        return 0
    begin(parser, config, "bird-agent")
    refused = False
    try:
        asyncio.run(_run(config))
    except* SpeakerRefusedError as errors:
        refused = True
        for refusal in errors.exceptions:
            log.critical("the speaker cannot be started: %s", refusal)
    if os.environ.get("WEFT_SPEAKER_LIFETIME", "") == "agent":
        stop_speaker(paths)
        stop_bfd(config.run_dir)
        stop_reflector(config.run_dir, config.node_name)
    return int(refused)


if __name__ == "__main__":
    sys.exit(main())
