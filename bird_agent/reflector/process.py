"""weft-reflector: the composition root of a stand-alone reflector. It owns the loop, and decides nothing about routing.

What it should be comes from a `PlanSource`; here the Node of its own name says it, and other sources may follow. While
the datastore cannot be reached the last plan stays, over a restart too (keeping.py). On SIGTERM its sessions end so
that the peers keep its routes until it is back; to end for good, delete its Node."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from msgspec import Struct
from msgspec.structs import replace

from bird_agent.datastore_view import Concern, DatastoreView, watched_prefixes
from bird_agent.policy import Policies
from bird_agent.reflector.inspection import ReflectorInspection
from bird_agent.reflector.keeping import Keeping, path_of
from bird_agent.reflector.loop import Network
from bird_agent.reflector.plan import ReflectorPlan
from bird_agent.reflector.planning import reflector_plan
from bird_agent.reflector.recall import Whose
from bird_agent.reflector.reflector import Reflector
from bird_agent.reflector.registration import Identity, own_environ, register
from bird_agent.reflector.status import ReflectorStatus
from bird_agent.reflector.watching import Watching
from bird_agent.session_config import Needs, Problem, Surroundings
from bird_agent.surroundings import SecretFiles, look_around
from weft.admin.answering import Answerer
from weft.admin.server import AdminServer
from weft.admin.services.bgp import BgpServer
from weft.admin.services.status import StatusServer
from weft.config import AgentConfig, ConfigError
from weft.datastore.base import Datastore
from weft.datastore.etcd import EtcdDatastore
from weft.datastore.syncer import Syncer, SyncEvent
from weft.model.errors import WeftError
from weft.model.keys import Addressee
from weft.node.agent import begin, configuration

if TYPE_CHECKING:
    from bird_agent.reflector.metrics import ReflectorMetrics

log = logging.getLogger("weft-reflector")

TICK_S: Final = 1.0
GATHER_S: Final = 0.05
RETRY_REGISTRATION_S: Final = 5.0


class Wanted(NamedTuple):
    """What the reflector should be, and its sessions' filters."""

    plan: ReflectorPlan
    policies: Policies


class PlanSource(Protocol):
    """Datastore events and surroundings in, a plan out. Synchronous and without I/O."""

    @property
    def needs(self) -> Needs:
        """What the plan asks to be told of its surroundings."""
        ...

    def on_datastore(self, batch: Sequence[SyncEvent]) -> bool:
        """Whether the plan may be another one now."""
        ...

    def wanted(self, surroundings: Surroundings) -> Wanted | None:
        """None while it is not known: what there is goes on."""
        ...


class Control(Struct, frozen=True):
    """A running process, to its companion. `trouble` says why it does not listen; `recalling`: the datastore has not
    answered since the start, and what it said before that counts; `replan` asks the source again."""

    reflector: Reflector
    trouble: Callable[[], str]
    recalling: Callable[[], bool]
    replan: Callable[[], None]
    stop: Callable[[], None]


class Companion(Protocol):
    """What else a reflector of some kind has to do beside its sessions, as long as it runs."""

    async def run(self, control: Control) -> None: ...


class OwnNode:
    """The plan of a reflector that is a Node. One that is deleted has no sessions."""

    def __init__(self, config: AgentConfig) -> None:
        self._name = config.node_name
        self._view = DatastoreView(config.node_name, config.router_id)
        self._needs = Needs()
        self._last: ReflectorPlan | None = None

    @property
    def needs(self) -> Needs:
        return self._needs

    def on_datastore(self, batch: Sequence[SyncEvent]) -> bool:
        concern = self._view.on_events(batch)
        return self._view.in_sync and bool(concern & (Concern.SESSIONS | Concern.POLICY))

    def wanted(self, surroundings: Surroundings) -> Wanted | None:
        if not self._view.in_sync:
            return None
        planned = self._view.peering(surroundings)
        plan = reflector_plan(self._name, planned, self._view.nodes)
        if planned is None or plan is None:
            return None if self._last is None else Wanted(replace(self._last, sessions={}), Policies())
        self._needs, self._last = planned.needs, plan
        return Wanted(plan, self._view.policies(planned))


class ReflectorProcess(Struct):
    """One running reflector, with everything that is given to it."""

    config: AgentConfig
    source: PlanSource
    store: Datastore
    identity: Identity | None = None
    companion: Companion | None = None

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        await _Running(self).run()


class _Running:
    def __init__(self, given: ReflectorProcess) -> None:
        config = given.config
        self._given = given
        self._clock_began, self._wall_began = time.monotonic(), time.time()
        self._reflector = Reflector(self._clock_began, random.random)
        self._network = Network(self._reflector)
        self._watching = Watching(config.run_dir, config.node_name, self._network.lose)
        self._syncer = Syncer(given.store, watched_prefixes(config.node_name))
        kept = path_of(config.state_dir, config.node_name)
        whose = Whose(config.node_name, () if config.etcd is None else config.etcd.endpoints)
        self._keeping = Keeping(kept, whose, self._on_datastore)
        self._secrets = SecretFiles(config.bgp_secrets_dir, config.namespace)
        self._surroundings = Surroundings()
        self._wanted: Wanted | None = None
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._inspection = ReflectorInspection(self._reflector, self._wall_time, self._watching.state, self._problems)
        self._status = ReflectorStatus(
            config.node_name, self._wall_began, self._reflector, self._inspection, self._syncer, self._network
        )
        self._status.problems = self._problems
        self._status.keeping = self._keeping.notices
        self._metrics: ReflectorMetrics | None = None

    def _problems(self) -> list[Problem]:
        return self._reflector.problems(time.monotonic()) + self._watching.problems()

    def _wall_time(self, at: float) -> float:
        return time.time() - (time.monotonic() - at)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        config = self._given.config
        service = BgpServer(self._inspection)
        server = AdminServer(
            config.run_dir / f"reflector-{config.node_name}.sock",
            [StatusServer(self._status), service],
            ready=lambda: self._wanted is not None,
        )
        self._network.start()
        _keep_for_good()
        try:
            async with server, asyncio.TaskGroup() as group:
                works = [self._syncer.run(self._keeping.on_datastore), self._keeping.run(), self._watching.run()]
                works += [self._follow(), self._tick(), self._register(), self._answerer(service).run()]
                if self._given.companion is not None:
                    works.append(self._given.companion.run(self._control()))
                tasks = [group.create_task(work) for work in works]
                with self._serve_metrics():
                    await self._stopping.wait()
                for task in tasks:
                    task.cancel()
                self._network.stop()
        finally:
            self._network.close()
            self._keeping.close()
            await self._given.store.close()

    def _answerer(self, service: BgpServer) -> Answerer:
        addressee = Addressee("reflector", self._given.config.node_name)
        return Answerer(self._given.store, addressee, service.methods(), lambda: self._wanted is not None)

    def _control(self) -> Control:
        return Control(
            self._reflector,
            trouble=lambda: self._network.trouble,
            recalling=lambda: self._keeping.recalling,
            replan=self._changed.set,
            stop=self._end,
        )

    def _end(self) -> None:
        """For good: nobody follows."""
        self._watching.stop()
        self._keeping.forget()
        self._stopping.set()

    def _on_datastore(self, batch: Sequence[SyncEvent]) -> bool:
        concerned = self._given.source.on_datastore(batch)
        if concerned:
            self._changed.set()
        return concerned

    async def _follow(self) -> None:
        """Keep to the plan."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await asyncio.sleep(GATHER_S)  # resources come together
            self._plan()

    def _plan(self) -> None:
        source = self._given.source
        wanted = source.wanted(self._surroundings)
        if source.needs != Needs():
            self._surroundings = look_around(source.needs, self._secrets)
            wanted = source.wanted(self._surroundings)
        if wanted is None or wanted == self._wanted:
            return
        self._wanted = wanted
        for problem in wanted.plan.problems:
            log.warning("%s: %s", problem.subject, problem.text)
        self._network.configure(wanted.plan, wanted.policies)
        self._watching.follow(wanted.plan)
        self._network.wake()

    async def _tick(self) -> None:
        """Once a second: secrets and source addresses may have changed; the figures for the scraper."""
        while True:
            await asyncio.sleep(TICK_S)
            needs = self._given.source.needs
            if needs != Needs() and look_around(needs, self._secrets) != self._surroundings:
                self._changed.set()
            if self._metrics is not None:
                size, deferring = self._reflector.tables.size(), self._reflector.deferring
                self._metrics.take(self._inspection.peers(), size, deferring, self._syncer.status.in_sync)

    async def _register(self) -> None:
        identity = self._given.identity
        while identity is not None:
            try:
                await register(self._given.store, identity)
                return
            except WeftError as error:
                log.error("Node %s could not be written, trying again: %s", identity.name, error)
            await asyncio.sleep(RETRY_REGISTRATION_S)

    def _serve_metrics(self) -> contextlib.AbstractContextManager[object]:
        """Only a process that serves metrics loads what does it: 3 MB."""
        if self._given.config.bgp_metrics is None:
            return contextlib.nullcontext()
        from bird_agent.metrics import served
        from bird_agent.reflector.metrics import ReflectorMetrics

        self._metrics = ReflectorMetrics(self._given.config.node_name)
        return served(self._metrics, self._given.config.bgp_metrics)


def _keep_for_good() -> None:
    """What is here before the first peer, stays: searching it for garbage would take tens of milliseconds each time."""
    gc.collect()
    gc.freeze()


async def _run(config: AgentConfig, identity: Identity | None) -> None:
    assert config.etcd is not None
    await ReflectorProcess(config, OwnNode(config), EtcdDatastore(config.etcd), identity).run()


def _allow_descriptors() -> None:
    """As many sockets as the system lets us have: the usual 1,024 are fewer than there may be clients."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="weft-reflector", description="A BGP route reflector (RFC 4456).")
    parser.parse_args(argv)
    config = configuration(parser, own_environ(os.environ))
    try:
        identity = Identity.from_environ(config.node_name, os.environ)
    except ConfigError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    begin(parser, config, f"reflector-{config.node_name}")
    _allow_descriptors()
    asyncio.run(_run(config, identity))
    return 0


if __name__ == "__main__":
    sys.exit(main())
