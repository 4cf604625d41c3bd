"""The etcd adapter and the syncer when etcd dies, compacts, is secured or has been replaced."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port
from tests.fakes.datastore_contract import take
from tests.functional.datastore.servers import Etcd, make_certificates
from weft.config import EtcdConfig
from weft.datastore import etcd as adapter
from weft.datastore.base import Changed, Create, Plan, Progress
from weft.datastore.etcd import EtcdDatastore
from weft.datastore.syncer import Deleted, InSync, Syncer, SyncEvent, Upserted
from weft.model import keys
from weft.model.errors import CompactedError, ConflictError, DatastoreUnavailableError

POOLS = keys.prefix("IPPool")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., Etcd]]:
    started: list[Etcd] = []

    def start(**settings: Any) -> Etcd:
        directory = tmp_path / f"etcd{len(started)}"
        directory.mkdir()
        started.append(dataclasses.replace(Etcd(directory), **settings).start())
        return started[-1]

    yield start
    for one in started:
        one.kill()


@asynccontextmanager
async def connected(*endpoints: str, timeout_s: float = 5, **settings: Any) -> AsyncIterator[EtcdDatastore]:
    config = EtcdConfig(endpoints, timeout_s=timeout_s, **settings)
    store = EtcdDatastore(config)
    try:
        yield store
    finally:
        await store.close()


async def eventually(condition: Callable[[], bool], timeout_s: float = 8) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


def pool(cidr: str) -> bytes:
    return b'{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"p"},"spec":{"cidr":"%s"}}' % (
        cidr.encode()
    )


@asynccontextmanager
async def syncing(store: EtcdDatastore) -> AsyncIterator[tuple[Syncer, list[SyncEvent]]]:
    syncer, seen = Syncer(store, (POOLS,)), list[SyncEvent]()

    def sink(batch: Sequence[SyncEvent]) -> None:
        seen.extend(batch)

    task = asyncio.create_task(syncer.run(sink))
    try:
        await eventually(lambda: syncer.status.connected)
        yield syncer, seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_watch_goes_on_after_etcd_was_killed_and_only_the_difference_is_seen(
    server: Callable[..., Etcd],
) -> None:
    etcd = server()
    async with connected(etcd.endpoint) as store, connected(etcd.endpoint) as other, syncing(store) as (syncer, seen):
        revision = await other.create(POOLS + "kept", pool("10.1.0.0/16"))
        await other.create(POOLS + "removed", pool("10.2.0.0/16"))
        await eventually(lambda: len(seen) == 3)
        assert isinstance(seen[0], InSync)
        seen.clear()
        etcd.kill()
        await eventually(lambda: not syncer.status.connected)
        assert syncer.status.last_error is not None
        etcd.start()
        await other.delete(POOLS + "removed")
        await eventually(lambda: syncer.status.connected and len(seen) == 1)
        assert isinstance(seen[0], Deleted)
        kept = await other.get(POOLS + "kept")
        assert kept is not None
        assert kept.revision == revision


async def test_a_key_that_is_no_text_stops_nothing(server: Callable[..., Etcd]) -> None:
    etcd = server()
    stray = b"\xff".decode(errors="surrogateescape")
    etcd.ctl("put", f"{POOLS}before{stray}", "{}")
    async with connected(etcd.endpoint) as store, syncing(store) as (syncer, seen):
        etcd.ctl("put", f"{POOLS}after{stray}", "{}")
        etcd.ctl("del", f"{POOLS}after{stray}")
        await store.create(POOLS + "good", pool("10.1.0.0/16"))
        await eventually(lambda: "good" in str(seen))
        assert syncer.status.connected
        assert [kv.key for kv in (await store.list(POOLS)).items] == [POOLS + "before\\xff", POOLS + "good"]


async def test_a_watch_that_fell_behind_a_compaction_is_replaced_by_a_snapshot(server: Callable[..., Etcd]) -> None:
    etcd = server()
    async with connected(etcd.endpoint) as store:
        first = await store.create(POOLS + "a", pool("10.1.0.0/16"))
        async with syncing(store) as (syncer, seen):
            seen.clear()
            etcd.kill()
            await eventually(lambda: not syncer.status.connected)
            # The syncer must not come back before the history it needs is gone, so that happens on another port.
            known_port, etcd.client_port = etcd.client_port, free_port()
            etcd.start()
            async with connected(etcd.endpoint) as writer:
                revision = await writer.update(POOLS + "a", pool("10.9.0.0/16"), first)
                revision = await writer.create(POOLS + "b", pool("10.8.0.0/16"))
            etcd.ctl("compact", str(revision))
            etcd.kill()
            etcd.client_port = known_port
            etcd.start()
            await eventually(lambda: syncer.status.connected and len(seen) == 2)
            assert [type(event) for event in seen] == [Upserted, Upserted]


async def test_a_compacted_revision_is_refused_with_what_is_left(server: Callable[..., Etcd]) -> None:
    etcd = server()
    async with connected(etcd.endpoint) as store:
        revision = await store.create("/calico/a", b"1")
        revision = await store.update("/calico/a", b"2", revision)
        etcd.ctl("compact", str(revision))
        with pytest.raises(CompactedError) as refused:
            await take(store.watch("/calico/", 1), 1)
        assert refused.value.compacted == revision


async def test_an_etcd_that_lost_its_data_is_read_again_whole(server: Callable[..., Etcd], tmp_path: Path) -> None:
    etcd = server()
    async with connected(etcd.endpoint) as store, connected(etcd.endpoint) as other:
        for number in range(5):
            await other.create(f"{POOLS}p{number}", pool("10.1.0.0/16"))
        async with syncing(store) as (syncer, seen):
            seen.clear()
            etcd.kill()
            await eventually(lambda: not syncer.status.connected)
            etcd.directory = tmp_path / "fresh"
            etcd.directory.mkdir()
            etcd.start()
            await eventually(lambda: sum(isinstance(event, Deleted) for event in seen) == 5)


async def test_another_endpoint_serves_when_one_is_dead_from_the_start(server: Callable[..., Etcd]) -> None:
    etcd = server()
    async with connected(f"127.0.0.1:{free_port()}", etcd.endpoint) as store:
        await store.create("/calico/a", b"1")


async def test_another_endpoint_serves_when_the_one_in_use_dies(server: Callable[..., Etcd]) -> None:
    # Two single-member clusters stand for two members: what is asked of whom is what matters here.
    first, second = server(), server()
    async with connected(first.endpoint, second.endpoint) as store:
        await store.create("/calico/a", b"1")
        first.kill()
        assert await store.get("/calico/a") is None
        await store.create("/calico/a", b"1")


async def test_calls_while_nobody_answers_fail_with_the_reason_and_do_not_queue_up(server: Callable[..., Etcd]) -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    async with connected(endpoint) as store:
        results = await asyncio.gather(*(store.get("/calico/a") for _ in range(10)), return_exceptions=True)
        assert all(isinstance(result, DatastoreUnavailableError) for result in results)
        assert "refused" in str(results[0]).lower()


async def test_a_closed_store_refuses(server: Callable[..., Etcd]) -> None:
    etcd = server()
    async with connected(etcd.endpoint) as store:
        await store.get("/calico/a")
        await store.close()
        with pytest.raises(DatastoreUnavailableError):
            await store.get("/calico/a")


async def test_etcd_is_reached_over_its_unix_socket(server: Callable[..., Etcd]) -> None:
    etcd = server(also_listen="unix://client:0")
    async with connected(f"unix://{etcd.directory}/client:0") as store:
        await store.create("/calico/a", b"1")


async def test_a_user_logs_in_and_again_when_etcd_has_forgotten_the_token(server: Callable[..., Etcd]) -> None:
    etcd = server(extra=("--auth-token-ttl=1",))
    root = ("--user", "root:secret")
    etcd.ctl("user", "add", "root:secret")
    etcd.ctl("user", "grant-role", "root", "root")
    etcd.ctl("role", "add", "calico")
    etcd.ctl("role", "grant-permission", "--prefix=true", "calico", "readwrite", "/calico/")
    etcd.ctl("user", "add", "weft:weft")
    etcd.ctl("user", "grant-role", "weft", "calico")
    etcd.ctl("auth", "enable")
    login: dict[str, Any] = {"username": "weft", "password": "weft"}
    async with connected(etcd.endpoint, **login) as store, connected(etcd.endpoint, **login) as watcher:
        revision = await store.create("/calico/a", b"1")
        with pytest.raises(DatastoreUnavailableError, match="PERMISSION_DENIED"):
            await store.get("/elsewhere")
        assert await watcher.get("/calico/a") is not None
        await asyncio.sleep(2.5)
        revision = await store.update("/calico/a", b"2", revision)
        async with asyncio.timeout(5), aclosing(watcher.watch("/calico/", revision)) as watch:
            events = [event async for batch in _first_two(watch) for event in batch]
        assert isinstance(events[-1], Changed)
        # A change of any role makes all tokens old.
        etcd.ctl("role", "add", "another", flags=root)
        await store.update("/calico/a", b"3", revision)
        etcd.kill()
        etcd.start()
        assert (await store.list("/calico/")).items[0].value == b"3"
    async with connected(etcd.endpoint, username="weft", password="wrong") as store:
        with pytest.raises(DatastoreUnavailableError, match="invalid user ID or password"):
            await store.get("/calico/a")
    async with connected(etcd.endpoint) as store:
        with pytest.raises(DatastoreUnavailableError, match="user name is empty"):
            await store.get("/calico/a")


async def _first_two(watch: AsyncIterator[Sequence[object]]) -> AsyncIterator[Sequence[object]]:
    yield await anext(watch)
    yield await anext(watch)


async def test_tls_needs_the_right_ca_and_a_client_certificate(tmp_path: Path, server: Callable[..., Etcd]) -> None:
    make_certificates(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    make_certificates(other)
    etcd = server(
        scheme="https",
        extra=(
            f"--cert-file={tmp_path / 'server.pem'}",
            f"--key-file={tmp_path / 'server.key'}",
            f"--trusted-ca-file={tmp_path / 'ca.pem'}",
            "--client-cert-auth",
        ),
    )
    ours: dict[str, Any] = {"cert_file": tmp_path / "client.pem", "key_file": tmp_path / "client.key"}
    async with connected(etcd.endpoint, ca_cert_file=tmp_path / "ca.pem", **ours) as store:
        await store.create("/calico/a", b"1")
    async with connected(etcd.endpoint, ca_cert_file=other / "ca.pem", **ours) as store:
        with pytest.raises(DatastoreUnavailableError, match=r"(?i)certificate|tls|ssl"):
            await store.get("/calico/a")
    async with connected(etcd.endpoint, ca_cert_file=tmp_path / "ca.pem", timeout_s=2) as store:
        with pytest.raises(DatastoreUnavailableError):
            await store.get("/calico/a")
    # A certificate that was wrong and has been renewed is picked up without a restart.
    copy: dict[str, Any] = {name: tmp_path / f"copy-{name}" for name in ("ca_cert_file", "cert_file", "key_file")}
    for name, source in (("ca_cert_file", "ca.pem"), ("cert_file", "client.pem"), ("key_file", "client.key")):
        copy[name].write_bytes((other / source).read_bytes())
    async with connected(etcd.endpoint, timeout_s=2, **copy) as store:
        with pytest.raises(DatastoreUnavailableError):
            await store.get("/calico/a")
        for name, source in (("ca_cert_file", "ca.pem"), ("cert_file", "client.pem"), ("key_file", "client.key")):
            copy[name].write_bytes((tmp_path / source).read_bytes())
        assert await store.get("/calico/a") is not None


async def test_of_two_racing_plans_one_wins_and_the_other_hears_which_key_it_lost(server: Callable[..., Etcd]) -> None:
    etcd = server()
    async with connected(etcd.endpoint) as one, connected(etcd.endpoint) as two:
        plans = [Plan.of(Create("/calico/own" + name, b""), Create("/calico/shared", b"")) for name in "12"]
        results = await asyncio.gather(one.commit(plans[0]), two.commit(plans[1]), return_exceptions=True)
        lost = [result for result in results if isinstance(result, ConflictError)]
        assert [error.key for error in lost] == ["/calico/shared"]
        assert len((await one.list("/calico/")).items) == 2


async def test_pieces_whose_revision_is_compacted_meanwhile_say_so(
    server: Callable[..., Etcd], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "KEYS_IN_A_PIECE", 1)
    etcd = server()
    async with connected(etcd.endpoint) as store:
        for name in "ab":
            await store.create(f"/calico/{name}", b"1")
        async with aclosing(store.pieces("/calico/")) as pieces:
            assert [item.key for item in (await anext(pieces)).items] == ["/calico/a"]
            etcd.ctl("compact", str(await store.create("/calico/c", b"1")))
            with pytest.raises(CompactedError):
                await anext(pieces)


async def test_a_long_history_is_replayed_whole(server: Callable[..., Etcd]) -> None:
    etcd = server()
    async with connected(etcd.endpoint) as store:
        payload = b"x" * 50_000
        for number in range(2):
            await store.commit(Plan.of(*(Create(f"/calico/{number}/{n}", payload[:15_000]) for n in range(99))))
        for number in range(60):
            await store.create(f"/calico/big{number}", payload)
        seen = 0
        async with asyncio.timeout(10), aclosing(store.watch("/calico/", 2)) as watch:
            async for batch in watch:
                seen += sum(not isinstance(event, Progress) for event in batch)
                if seen == 2 * 99 + 60:
                    break


async def test_closing_ends_a_watch_with_an_error_and_not_with_a_cancellation(server: Callable[..., Etcd]) -> None:
    etcd = server()
    async with connected(etcd.endpoint) as store:
        watching = asyncio.create_task(take(store.watch("/calico/", 1), 1))
        await store.get("/calico/a")
        await asyncio.sleep(0.2)
        await store.close()
        with pytest.raises(DatastoreUnavailableError):
            await watching


async def test_a_cancelled_call_or_watch_is_cancelled(server: Callable[..., Etcd]) -> None:
    etcd = server()
    async with connected(etcd.endpoint) as store:
        watching = asyncio.create_task(take(store.watch("/calico/", 1), 1))
        await asyncio.sleep(0.2)
        reading = asyncio.create_task(store.get("/calico/a"))
        await asyncio.sleep(0)
        watching.cancel()
        reading.cancel()
        results = await asyncio.gather(watching, reading, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 2
        assert await store.get("/calico/a") is None
