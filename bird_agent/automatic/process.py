"""The reflector of a node that has been chosen: weft-reflector, with its plan from what all nodes agree on.

The BGP agent starts it and is not needed afterwards. It allocates the reflector's addresses, has them on the loopback
interface, says to the datastore that it serves, gives signs of life, and when its last client has left takes all of
that back and ends. Ended by a signal it takes nothing back: another process goes on where it was."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from bird_agent.automatic import loopback
from bird_agent.automatic.runner import LOCK
from bird_agent.automatic.serving import Tenure, meshed
from bird_agent.automatic.source import ChosenNode
from bird_agent.automatic.stored import put
from bird_agent.reflector.process import Control, ReflectorProcess
from bird_agent.reflector.reflector import Reflector
from bird_agent.reflector.standing import Standing
from weft.config import AgentConfig
from weft.datastore.base import Datastore
from weft.datastore.etcd import EtcdDatastore
from weft.ipam.allocator import AssignRequest
from weft.ipam.block import Holder
from weft.ipam.client import IPAMClient
from weft.ipam.context import StoredContext
from weft.model import keys
from weft.model.address import IPAddress
from weft.model.errors import NoFreeAddressError, NotFoundError, WeftError
from weft.model.keys import ReflectorKey
from weft.model.reflectors import ReflectorBeat, ReflectorRecord
from weft.netlink.socket import DumpInterruptedError
from weft.node.agent import begin, configuration
from weft.reflectors.progress import LINGER_PART

log = logging.getLogger("weft-reflector")

TICK_S: Final = 0.5
RETRY_S: Final = 5.0
_BEATS_IN_THE_TIME: Final = 4
_YOUNG_S: Final = 60.0


def handle_of(node: str) -> str:
    """Under which the node holds its reflector's addresses."""
    return f"weft-reflector-{node}"


class Office:
    """The Companion: everything about being chosen that is not a session."""

    def __init__(self, store: Datastore, node: str, source: ChosenNode) -> None:
        self._store = store
        self._node = node
        self._source = source
        self._ipam = IPAMClient(store, node, StoredContext(store, node))
        self._tenure = Tenure()
        self._allocated = False
        self._said: ReflectorRecord | None = None
        self._beat_due = 0.0
        self._up_since: float | None = None

    async def run(self, control: Control) -> None:
        """Until the last client of a node that is no longer chosen has left."""
        while True:
            try:
                if self._source.in_sync and not await self._work(control):
                    log.info("no longer chosen, and the last client has left")
                    control.stop()
                    return
                pause_s = TICK_S
            except (WeftError, OSError, DumpInterruptedError) as error:
                log.warning("the reflector's place in the fabric is as it was, trying again: %s", error)
                pause_s = RETRY_S if isinstance(error, NoFreeAddressError) else TICK_S
            await asyncio.sleep(pause_s)

    async def _work(self, control: Control) -> bool:
        """One round; whether there is another."""
        now, clients = time.monotonic(), self._clients(control)
        holding = others_holding(control.reflector)
        if holding != self._source.holding:
            self._source.holding = holding
            control.replan()
        if control.recalling():
            self._resume(control)
            return True
        chosen = self._source.chosen or (self._said is None and self._source.record is not None)
        linger_s = LINGER_PART * self._source.settings.replace_after_seconds
        if not self._tenure.on_tick(now, chosen, len(clients), linger_s):
            await self._leave()
            return False
        if not self._allocated:
            if self._source.record is None:  # whoever is started after us knows that there is something to take back
                await put(self._store, ReflectorKey("serving", self._node), ReflectorRecord())
            addresses = await self._allocate()
            loopback.set_addresses(addresses)
            self._serve_at(addresses, control)
            self._allocated = True
            return True
        await self._say(control)
        await self._beat(now, clients)
        return True

    def _resume(self, control: Control) -> None:
        """The datastore does not answer: serve on at the addresses that an earlier process left on the node, or else,
        after a boot, at those that it said to serve at."""
        if not self._source.addresses:
            said = () if self._source.record is None else self._source.record.addresses
            addresses = tuple(sorted(loopback.read(), key=lambda each: each.version)) or said
            loopback.set_addresses(addresses)
            self._serve_at(addresses, control)

    def _serve_at(self, addresses: tuple[IPAddress, ...], control: Control) -> None:
        if frozenset(addresses) != frozenset(self._source.addresses):
            self._source.addresses = addresses
            control.replan()

    async def _allocate(self) -> tuple[IPAddress, ...]:
        configured = self._source.configured_addresses()
        if configured:
            return configured
        holder = Holder(handle_of(self._node), {"node": self._node, "type": "reflectorAddress"})
        found: list[IPAddress] = []
        for version in self._source.versions():
            request = AssignRequest(holder, {version: 1}, pools=self._source.pools(version), use="Tunnel")
            try:
                found += await self._ipam.assign(request)
            except NoFreeAddressError:
                if version == 4 or not found:
                    raise
                log.warning("no IPv6 address for the reflector: it reflects IPv4 only")
        return tuple(found)

    async def _say(self, control: Control) -> None:
        identity = self._source.identity
        listens = control.reflector.plan is not None and not control.trouble()
        settled = frozenset(peer for peer, one in control.reflector.peers.items() if _is_settled(one))
        record = ReflectorRecord(
            addresses=self._source.addresses,
            router_id=None if identity is None else identity.router_id,
            up=listens,
            meshed=() if identity is None else meshed(identity, self._source.others(), settled),
        )
        if record != self._said or self._source.record is None:
            await put(self._store, ReflectorKey("serving", self._node), record)
            self._said = record

    async def _beat(self, now: float, clients: Sequence[str]) -> None:
        """A reflector that nobody can reach must not look alive."""
        if self._said is None or not self._said.up:
            self._up_since = None
            return
        if self._up_since is None:
            self._up_since = now
        others = [name for name in clients if name != self._node]
        if now < self._beat_due or not (others or now - self._up_since < _YOUNG_S or not self._source.expects_others):
            return
        self._beat_due = now + self._source.settings.replace_after_seconds / _BEATS_IN_THE_TIME
        await put(self._store, ReflectorKey("beats", self._node), ReflectorBeat(clients=len(clients)))

    async def _leave(self) -> None:
        for section in ("serving", "beats"):
            try:
                await self._store.delete(keys.path(ReflectorKey(section, self._node)))
            except NotFoundError:
                continue
        loopback.set_addresses(())
        await self._ipam.release_by_handle(handle_of(self._node))

    @staticmethod
    def _clients(control: Control) -> list[str]:
        """The nodes whose sessions are up."""
        peers = control.reflector.peers.values()
        return [
            one.wanted.config.resource.removeprefix("Node/") for one in peers if one.wanted.client and one.established
        ]


def others_holding(reflector: Reflector) -> frozenset[IPAddress]:
    """The other reflectors whose sessions are up, and those that are away and have left routes behind."""
    rib = reflector.tables.rib
    peers = reflector.peers.items()
    return frozenset(peer for peer, one in peers if not one.wanted.client and (one.established or rib.stale(peer)))


def _is_settled(standing: Standing) -> bool:
    """Everything has been told, both ways."""
    return standing.established and not standing.learning.awaited and not standing.ends


async def _run(config: AgentConfig) -> None:
    assert config.etcd is not None
    store = EtcdDatastore(config.etcd)
    source = ChosenNode(config)
    office = Office(store, config.node_name, source)
    await ReflectorProcess(replace(config, bgp_metrics=None), source, store, companion=office).run()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="weft-reflector-chosen", description="The reflector of a node that is chosen."
    )
    parser.parse_args(argv)
    config = configuration(parser)
    begin(parser, config, LOCK)
    asyncio.run(_run(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
