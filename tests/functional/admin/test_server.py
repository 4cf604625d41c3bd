"""The admin server on a real unix socket."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest

from tests.fakes.datastore import MemoryDatastore
from weft.admin import api
from weft.admin import status as values
from weft.admin.client import AdminClient
from weft.admin.server import AdminServer, SocketInUseError
from weft.admin.services.datastore import datastore_services
from weft.admin.services.status import StatusServer
from weft.admin.v1 import health_pb2
from weft.model.errors import AlreadyExistsError, ConflictError, NotFoundError, ValidationError

STATUS = values.NodeStatus("n1", values.AgentStatus("felix", "0.1.0", 7, 1.0, True, True))


class Agent:
    def node_status(self) -> values.NodeStatus:
        return STATUS


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AdminClient]:
    path = tmp_path / "felix.sock"
    async with (
        AdminServer(path, [StatusServer(Agent()), *datastore_services(MemoryDatastore())]),
        AdminClient(path, timeout_s=5) as client,
    ):
        yield client


def pool(name: str = "p", version: str = "", **spec: object) -> api.Manifest:
    document = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": name, "resourceVersion": version},
        "spec": {"cidr": "10.65.0.0/16", **spec},
    }
    return api.Manifest(json.dumps(document).encode(), "pools.yaml", 3)


async def test_only_owner_and_group_may_ask_and_a_stopped_server_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run" / "felix.sock"
    server = AdminServer(path, [])
    await server.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    await server.stop()
    assert not path.exists()
    await server.stop()


async def test_a_socket_left_behind_is_taken_over_and_a_served_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "felix.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with AdminServer(path, []):
        with pytest.raises(SocketInUseError):
            await AdminServer(path, []).start()
    path.write_text("precious")
    with pytest.raises(OSError, match="not a socket"):
        await AdminServer(path, []).start()
    assert path.read_text() == "precious"


async def test_a_path_too_long_for_a_socket_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="longer than 107 bytes"):
        await AdminServer(tmp_path / ("x" * 120), []).start()


async def test_the_status_arrives_as_it_was_given(client: AdminClient) -> None:
    assert await client.node_status() == STATUS


async def test_an_absent_agent_is_an_error_that_names_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "bird-agent.sock"
    async with AdminClient(path) as client:
        with pytest.raises(api.AgentUnavailableError, match=r"bird-agent\.sock: No such file or directory"):
            await client.node_status()


@pytest.mark.parametrize(("ready", "expected"), [(True, "SERVING"), (False, "NOT_SERVING")])
async def test_health_is_what_the_agent_says_under_the_well_known_name(
    tmp_path: Path, ready: bool, expected: str
) -> None:
    path = tmp_path / "felix.sock"
    async with (
        AdminServer(path, [StatusServer(Agent())], ready=lambda: ready),
        grpc.aio.insecure_channel(f"unix:{path}") as channel,
    ):
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        for service in ("", "weft.admin.v1.StatusService"):
            answer = await check(health_pb2.HealthCheckRequest(service=service))
            assert health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) == expected
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await check(health_pb2.HealthCheckRequest(service="nope"))
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


async def test_refusals_keep_their_class_and_data_across_the_socket(client: AdminClient) -> None:
    resources = client.resources
    with pytest.raises(NotFoundError) as missing:
        await resources.get("IPPool", "", "p")
    assert missing.value.key == "IPPool(p)"
    written = await resources.write(api.Verb.CREATE, pool())
    with pytest.raises(AlreadyExistsError):
        await resources.write(api.Verb.CREATE, pool())
    with pytest.raises(ConflictError):
        await resources.write(api.Verb.APPLY, pool(version=str(written.resource.revision + 1)))
    with pytest.raises(ValidationError) as wrong:
        await resources.write(api.Verb.APPLY, pool(blockSize=28))
    error = wrong.value
    assert (error.source, error.document, error.field, error.value) == ("pools.yaml", 3, "spec.blockSize", "28")
    assert error.expected == "26: the block size of a pool cannot be modified"
    with pytest.raises(ValidationError, match="kind"):
        await resources.list("Nonsense")


async def test_a_dry_run_checks_everything_and_writes_nothing(client: AdminClient) -> None:
    answer = await client.resources.write(api.Verb.CREATE, pool(vxlanMode="Always"), dry_run=True)
    assert answer.resource.revision == 0
    assert len(answer.warnings) == 1
    assert (await client.resources.list("IPPool")).items == ()


async def test_a_watch_tells_what_is_there_then_every_change(client: AdminClient) -> None:
    await client.resources.write(api.Verb.CREATE, pool())
    changes = client.resources.watch("IPPool")
    first = [await asyncio.wait_for(anext(changes), 5) for _ in range(2)]
    assert [change.type for change in first] == [api.ChangeType.ADDED, api.ChangeType.IN_SYNC]
    await client.resources.write(api.Verb.APPLY, pool(disabled=True))
    await client.resources.delete("IPPool", "", "p")
    later = [await asyncio.wait_for(anext(changes), 5) for _ in range(2)]
    assert [change.type for change in later] == [api.ChangeType.MODIFIED, api.ChangeType.DELETED]
    assert later[1].resource is not None
    assert later[1].resource.name == "p"


async def test_a_configured_value_of_false_or_zero_travels(client: AdminClient) -> None:
    await client.ipam.configure(strict_affinity=True, max_blocks_per_host=3)
    settings = await client.ipam.configure(strict_affinity=False, max_blocks_per_host=0)
    assert settings == api.IPAMSettings(strict_affinity=False, auto_allocate_blocks=True, max_blocks_per_host=0)
    assert await client.ipam.look_up(ip_address("10.65.0.1")) == api.AddressInfo(api.AddressState.OUTSIDE_POOLS)


async def test_metrics_are_served_over_http_until_closed() -> None:
    import urllib.request
    from ipaddress import IPv4Address

    from prometheus_client import CollectorRegistry, Gauge

    from weft.admin.metrics import MetricsServer

    registry = CollectorRegistry()
    Gauge("weft_test", "A number.", registry=registry).set(3)
    with MetricsServer(registry, 0, IPv4Address("127.0.0.1")) as server:
        url = f"http://127.0.0.1:{server.port}/metrics"
        body = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read().decode())
    assert "weft_test 3.0" in body
