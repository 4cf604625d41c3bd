"""Questions through a real etcd: nothing stays, whoever dies; large answers; and the rights that it takes."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import EtcdServer
from tests.functional.datastore.servers import Etcd
from weft.admin.answering import Answerer
from weft.admin.bgp import ConfigReport, PathReport, PathView, PeerReport, TraceReport
from weft.admin.mailbox import Mailbox
from weft.admin.server import AdminServer
from weft.admin.services.bgp import BgpClient, BgpServer
from weft.admin.services.datastore import datastore_services
from weft.config import EtcdConfig
from weft.datastore.etcd import EtcdDatastore
from weft.model import codec, keys
from weft.model.address import IPAddress, IPNetwork
from weft.model.errors import DatastoreUnavailableError, NotFoundError
from weft.model.keys import Addressee, QuestionKey, ResourceKey
from weft.model.questions import Question

AGENT = Addressee("agent", "n1")
NODE = b'{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"n1"},"spec":{}}'


class Table:
    """A provider with this many paths, no two of which are alike."""

    def __init__(self, size: int = 1) -> None:
        self._size = size

    def peers(self) -> list[PeerReport]:
        return []

    def not_enforced(self) -> list[str]:
        return ["BGPPeer/tor: no AS number"]

    def paths(self, view: PathView, peer: IPAddress | None) -> Iterator[list[PathReport]]:
        if peer == ip_address("192.0.2.1"):
            raise NotFoundError(f"BGP peer {peer}")
        return ([self.path(number)] for number in range(self._size))

    def path(self, number: int) -> PathReport:
        return PathReport(
            prefix=ip_network((0x14000000 + number * 256, 24)),
            peer=ip_address("10.1.0.254"),
            next_hop=ip_address("10.1.0.254"),
            standing="best",
            reason="the only path that can be used",
            as_path=f"65001 {number * 2_654_435_761 % 400_000} {number * 40_503 % 65_536}",
            communities=(f"65001:{number * 7919 % 65_536}",),
        )

    def trace(self, destination: IPNetwork) -> TraceReport:
        return TraceReport(None)

    def config(self) -> ConfigReport:
        return ConfigReport(64512, None, 179, (), None, "")


@asynccontextmanager
async def connected(endpoint: str, **settings: Any) -> AsyncIterator[EtcdDatastore]:
    store = EtcdDatastore(EtcdConfig((endpoint,), **settings))
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def agent(store: EtcdDatastore, size: int = 1) -> AsyncIterator[None]:
    task = asyncio.create_task(Answerer(store, AGENT, BgpServer(Table(size)).methods()).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def client(mailbox: Mailbox) -> BgpClient:
    async def exchange(method: str, request: bytes) -> bytes:
        return await mailbox.ask(AGENT, method, request, "root@here")

    return BgpClient(exchange)


async def left(store: EtcdDatastore) -> list[str]:
    return [item.key for item in (await store.list(keys.WEFT)).items]


async def eventually(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("size", [20_000, pytest.param(100_000, marks=pytest.mark.soak)])
async def test_a_large_table_comes_whole_in_parts_and_nothing_of_it_stays(etcd: EtcdServer, size: int) -> None:
    async with connected(etcd.endpoint) as store, connected(etcd.endpoint) as agents, agent(agents, size):
        await store.create(keys.path(ResourceKey("Node", "n1")), NODE)
        before = (await store.list(keys.WEFT)).revision
        found = await client(Mailbox(store)).paths(PathView.ALL)
        assert len(found) == size
        assert found[size - 1] == Table().path(size - 1)
        after = await store.list(keys.WEFT)
        assert after.items == ()
        # The question, that it is taken, parts, the ending, and the end of the lease.
        assert after.revision - before > 5


async def test_what_a_dead_weftctl_has_asked_goes_with_its_lease_answered_or_not(etcd: EtcdServer) -> None:
    async with connected(etcd.endpoint) as store, connected(etcd.endpoint) as agents:
        question = codec.encode_stored(Question(method=f"{BgpServer.name}/ListBgpPaths"))
        lease = await store.grant(2)
        await store.create(keys.path(QuestionKey(Addressee("agent", "gone"), "1")), question, lease)
        async with agent(agents):
            await store.create(keys.path(QuestionKey(AGENT, "2")), question, lease)

            async def answered() -> bool:
                return any(key.endswith("/ending") for key in await left(store))

            async def nothing() -> bool:
                return not await left(store)

            await eventually(answered)
            await eventually(nothing)


async def test_an_agents_socket_passes_questions_on(etcd: EtcdServer, tmp_path: Path) -> None:
    """What weftctl asks on a node that has no etcd endpoints of its own."""
    from weft.admin.client import AdminClient

    socket = tmp_path / "felix.sock"
    async with connected(etcd.endpoint) as store, connected(etcd.endpoint) as agents, agent(agents):
        await store.create(keys.path(ResourceKey("Node", "n1")), NODE)
        async with AdminServer(socket, datastore_services(store)), AdminClient(socket) as asked:

            async def exchange(method: str, request: bytes) -> bytes:
                return await asked.questions.ask(AGENT, method, request)

            assert await BgpClient(exchange).paths(PathView.ALL) == [Table().path(0)]
            with pytest.raises(NotFoundError):
                await BgpClient(exchange).paths(PathView.RECEIVED, "192.0.2.1")
            with pytest.raises(Exception, match="no Node named n7: there are n1"):
                await asked.questions.ask(Addressee("agent", "n7"), "", b"")


async def test_the_documented_rights_are_enough_and_others_are_not(tmp_path: Path) -> None:
    etcd = dataclasses.replace(Etcd(tmp_path)).start()
    try:
        rights = {
            "weftctl": [
                ("read", "/calico/resources/v3/projectcalico.org/nodes/"),
                ("read", keys.REFLECTORS),
                ("readwrite", keys.QUESTIONS),
                ("readwrite", keys.ANSWERS),
            ],
            "node": [
                ("readwrite", keys.questions_prefix(AGENT)),
                ("readwrite", f"{keys.ANSWERS}agent/n1/"),
            ],
            "reader": [("read", "/calico/")],
        }
        etcd.ctl("put", keys.path(ResourceKey("Node", "n1")), NODE.decode())
        etcd.ctl("user", "add", "root:secret")
        etcd.ctl("user", "grant-role", "root", "root")
        for user, granted in rights.items():
            etcd.ctl("role", "add", user)
            for right, prefix in granted:
                etcd.ctl("role", "grant-permission", "--prefix=true", user, right, prefix)
            etcd.ctl("user", "add", f"{user}:secret")
            etcd.ctl("user", "grant-role", user, user)
        etcd.ctl("auth", "enable")

        def of(user: str) -> Any:
            return connected(etcd.endpoint, username=user, password="secret")

        async with of("weftctl") as store, of("node") as agents, of("reader") as reader, agent(agents):
            assert await client(Mailbox(store)).paths(PathView.ALL) == [Table().path(0)]
            assert await left_of(store) == []
            with pytest.raises(DatastoreUnavailableError, match="permission denied"):
                await client(Mailbox(reader)).peers()
    finally:
        etcd.kill()


async def left_of(store: EtcdDatastore) -> list[str]:
    """Of one who may not read all that is ours."""
    prefixes = (keys.QUESTIONS, keys.ANSWERS)
    return [item.key for prefix in prefixes for item in (await store.list(prefix)).items]
