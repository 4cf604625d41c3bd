"""weft-node: a node's entry point.

It prepares the datastore, registers the node, and keeps the agents (and the private etcd, where no endpoints are
configured) running. It decides nothing about traffic: when it dies the agents go on, and the next one adopts them.
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from weft import singleton
from weft.admin.server import AdminServer
from weft.admin.services.datastore import datastore_services
from weft.admin.services.status import StatusServer
from weft.admin.status import AgentStatus, NodeStatus, Notice, Severity
from weft.config import AgentConfig, ConfigError
from weft.datastore.etcd import EtcdDatastore
from weft.model.errors import DatastoreUnavailableError, ValidationError, WeftError
from weft.node.bootstrap import prepare_datastore
from weft.node.interfaces import read_interfaces, source_address
from weft.node.private_etcd import EtcdMissingError, client_socket, etcd_environ, private_endpoint, private_etcd
from weft.node.registration import AddressConflictError, Registrar, Registration
from weft.node.settings import check_settings
from weft.node.supervisor import Supervisor, agent_program

log = logging.getLogger(__name__)

NAME = "weft-node"
# In the order of starting; they are stopped the other way round: first no new workloads, then no BGP.
AGENTS = (("weft-bird-agent", "bird-agent", "bird_agent.daemon"), ("weft-felix", "felix", "felix.daemon"))
REFLECTOR_NAME = "WEFT_REFLECTOR_NAME"
FIRST_REGISTRATION_S = 3.0
"""How long the agents wait for the datastore; without it they start all the same and keep what the kernel has."""
RETRY_S = 5.0
"""The pause after a check that failed or told no address."""


class NodeDaemon:
    """One node's weft-node."""

    def __init__(self, config: AgentConfig, env: Mapping[str, str], with_agents: bool = True) -> None:
        self._config = config
        self._with_agents = with_agents
        etcd = config.etcd or private_endpoint(config)
        self._store = EtcdDatastore(etcd)
        # The node's name and the endpoints are decided once, here.
        own = {"NODENAME": config.node_name, "ETCD_ENDPOINTS": ",".join(etcd.endpoints)}
        # A BGP agent that is told to end by us ends for good, so its speaker goes too; as a unit of its own it leaves
        # the speaker to its successor (docs/design/bgp.md).
        self._supervisor = Supervisor(config.run_dir, {"WEFT_SPEAKER_LIFETIME": "agent", **env, **own})
        self._env = env
        self._etcd_env = etcd_environ(env)
        self._registrar = Registrar(self._store, config, read_interfaces, source_address)
        self._registration: Registration | None = None
        self._problem: WeftError | None = None
        self._prepared = False
        self._started_at_s = time.time()
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Run until told to stop; the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            services = [StatusServer(self), *datastore_services(self._store)]
            async with AdminServer(
                self._config.run_dir / "node.sock", services, ready=lambda: self._registration is not None
            ):
                return await self._serve()
        finally:
            self._supervisor.leave()
            await self._store.close()

    async def _serve(self) -> int:
        if self._config.etcd is None:
            self._supervisor.keep(private_etcd(self._config), self._etcd_env)
            deadline = time.monotonic() + FIRST_REGISTRATION_S
            while not client_socket(self._config).exists() and time.monotonic() < deadline:
                await self._wait(0.02)
        if not await self._first_check():
            log.critical("%s", self._problem)
            return 1
        if self._with_agents and not self._stop.is_set():
            for agent in (*AGENTS, *reflectors(self._env)):
                self._supervisor.keep(agent_program(*agent))
        while not self._stop.is_set():
            healthy = self._problem is None and self._registration is not None and not self._registration.errors
            pause_s = self._config.address_check_interval_s
            await self._wait(pause_s if healthy else min(pause_s, RETRY_S))
            if not self._stop.is_set():
                await self._check()
        log.info("stopping")
        await self._supervisor.stop()
        return 0

    async def _first_check(self) -> bool:
        """Register before the agents start. False: this node must not run as it is."""
        deadline = time.monotonic() + FIRST_REGISTRATION_S
        pause_s = 0.1
        while not self._stop.is_set():
            await self._check()
            if isinstance(self._problem, AddressConflictError | ValidationError):
                return False
            if self._problem is None or time.monotonic() > deadline:
                break
            await self._wait(pause_s)
            pause_s = min(2 * pause_s, 1.0)
        return True

    async def _check(self) -> None:
        """Bring the datastore and the Node up to date; what went wrong is remembered, said once, and tried again."""
        problem: WeftError | None = None
        try:
            if not self._prepared:
                await prepare_datastore(self._store, self._config)
                self._prepared = True
            self._remember(await self._registrar.register())
        except WeftError as error:
            problem = error
        if problem is not None and str(problem) != str(self._problem):
            log.error("%s", problem)
        self._problem = problem

    def _remember(self, registration: Registration) -> None:
        said = (*self._registration.notices, *self._registration.errors) if self._registration else ()
        for text in (*registration.errors, *registration.notices):
            if text not in said:
                log.warning("%s", text)
        self._registration = registration

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return

    def node_status(self) -> NodeStatus:
        """What this daemon knows, for the admin socket."""
        unavailable = isinstance(self._problem, DatastoreUnavailableError)
        subject = f"Node/{self._config.node_name}"
        texts = [str(self._problem)] if self._problem is not None and not unavailable else []
        if self._registration is not None:
            texts += [*self._registration.errors, *self._registration.notices]
        notices = [Notice(Severity.WARNING, subject, text) for text in texts]
        for program in self._supervisor.status:
            if program.restarts:
                text = f"started again {program.restarts} times; the last one {program.last_end}"
                notices.append(Notice(Severity.WARNING, program.name, text))
        agent = AgentStatus(
            name="node",
            version=version("weft"),
            pid=os.getpid(),
            started_at_s=self._started_at_s,
            datastore_connected=self._registration is not None and not unavailable,
            in_sync=self._registration is not None and self._problem is None,
            datastore_error=str(self._problem) if unavailable else "",
        )
        return NodeStatus(self._config.node_name, agent, notices=tuple(notices))


def reflectors(env: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """The route reflector that runs beside the agents, where one has a name."""
    name = env.get(REFLECTOR_NAME, "").strip()
    return [("weft-reflector", f"reflector-{name}", "bird_agent.reflector.process")] if name else []


async def run(config: AgentConfig, env: Mapping[str, str], with_agents: bool = True) -> int:
    """Run one weft-node, if none runs on this node already."""
    config.run_dir.mkdir(parents=True, exist_ok=True)
    singleton.hold(singleton.lock_path(config.run_dir, NAME))
    return await NodeDaemon(config, env, with_agents).run()


def main(argv: Sequence[str] | None = None) -> None:
    """The console script."""
    parser = argparse.ArgumentParser(prog=NAME, description="Register this node, and run its agents.")
    parser.add_argument(
        "--without-agents", action="store_true", help="register the node only; the agents are units of their own"
    )
    options = parser.parse_args(argv)
    try:
        config = AgentConfig.from_environ(os.environ, socket.gethostname())
        check_settings(config)
        logging.basicConfig(
            level=config.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        status = asyncio.run(run(config, os.environ, with_agents=not options.without_agents))
    except singleton.AlreadyRunningError as error:
        print(f"{NAME}: already running: {error}", file=sys.stderr)
        status = singleton.EXIT_ALREADY_RUNNING
    except (ConfigError, EtcdMissingError, OSError) as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    main()
