"""The admin API over a unix socket: the same ports as the datastore offers, so callers do not care.

A refusal comes back as the WeftError that was raised on the other side; a socket nobody serves is an
AgentUnavailableError, which says which."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Self, TypeVar

import grpc

from weft.admin import api
from weft.admin.api import AgentUnavailableError
from weft.admin.errors import from_rpc_error
from weft.admin.policy import Counters, Flows
from weft.admin.questions import LIFETIME_S, QuestionAPI
from weft.admin.reflectors import ReflectorAPI
from weft.admin.services.bgp import BgpClient
from weft.admin.services.ipam import STATES
from weft.admin.services.policy import counters_value, flows_value, key_message
from weft.admin.services.reflectors import encode, report_value, settings_value
from weft.admin.services.resources import CHANGE_TYPES
from weft.admin.services.status import from_message
from weft.admin.status import NodeStatus
from weft.admin.v1 import (
    health_pb2,
    ipam_pb2,
    ipam_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    questions_pb2,
    questions_pb2_grpc,
    reflectors_pb2,
    reflectors_pb2_grpc,
    resources_pb2,
    resources_pb2_grpc,
    status_pb2,
    status_pb2_grpc,
)
from weft.model.address import IPAddress
from weft.model.errors import WeftError
from weft.model.keys import Addressee, ResourceKey
from weft.model.reflectors import ReflectorSettings
from weft.reflectors.report import ReflectorReport

T = TypeVar("T")
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0))


class AdminClient:
    """One agent's admin API. `async with AdminClient(path) as client: await client.resources.get(...)`"""

    def __init__(self, socket_path: Path, timeout_s: float = 30.0) -> None:
        self.socket_path = socket_path
        self.timeout_s = timeout_s
        self._channel = grpc.aio.insecure_channel(f"unix:{socket_path}", options=OPTIONS)
        self.resources: api.ResourceAPI = RemoteResources(self, resources_pb2_grpc.ResourceServiceStub(self._channel))
        self.ipam: api.IPAMAPI = RemoteIPAM(self, ipam_pb2_grpc.IPAMServiceStub(self._channel))
        self.reflectors: ReflectorAPI = RemoteReflectors(self, reflectors_pb2_grpc.ReflectorServiceStub(self._channel))
        self.questions: QuestionAPI = RemoteQuestions(self, questions_pb2_grpc.QuestionServiceStub(self._channel))
        self.bgp = BgpClient(self.exchange)
        self._policy = policy_pb2_grpc.PolicyServiceStub(self._channel)
        self._status = status_pb2_grpc.StatusServiceStub(self._channel)

    async def node_status(self) -> NodeStatus:
        request = status_pb2.GetNodeStatusRequest()
        return from_message(await self.call(self._status.GetNodeStatus(request, timeout=self.timeout_s)))

    async def counters(self, policy: ResourceKey | None = None) -> Counters:
        """Of one policy or profile, or of all on the node. Only felix answers."""
        request = policy_pb2.GetCountersRequest(policy=key_message(policy) if policy is not None else None)
        return counters_value(await self.call(self._policy.GetCounters(request, timeout=self.timeout_s)))

    async def flows(self, after: int = 0) -> Flows:
        """The flows in felix's memory with a higher sequence."""
        request = policy_pb2.GetFlowsRequest(after=after)
        return flows_value(await self.call(self._policy.GetFlows(request, timeout=self.timeout_s)))

    async def exchange(self, method: str, request: bytes) -> bytes:
        """Call a method by its full name, with its message. A large table may take as long as from another node."""
        call: Callable[..., Awaitable[bytes]] = self._channel.unary_unary(f"/{method}")
        return await self.call(call(request, timeout=self.timeout_s + LIFETIME_S))

    async def offers(self, service: str) -> bool:
        """Whether the agent serves it (full name), ready or not. Raises AgentUnavailableError."""
        check = self._channel.unary_unary(
            HEALTH_CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            await check(health_pb2.HealthCheckRequest(service=service), timeout=self.timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return False
            raise self.refusal(error) from error
        return True

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def call(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except grpc.aio.AioRpcError as error:
            raise self.refusal(error) from error

    def refusal(self, error: grpc.aio.AioRpcError) -> WeftError:
        if error.code() == grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata():
            return AgentUnavailableError(self.socket_path, _connect_failure(error))
        return from_rpc_error(error)


def _connect_failure(error: grpc.aio.AioRpcError) -> str:
    """gRPC wraps the cause in a chain of its own words; the last part is the operating system's."""
    return (error.details() or "unavailable").rsplit(": ", 1)[-1]


class RemoteResources:
    def __init__(self, client: AdminClient, stub: resources_pb2_grpc.ResourceServiceAsyncStub) -> None:
        self._client = client
        self._stub = stub

    async def get(self, kind: str, namespace: str, name: str) -> api.StoredResource:
        request = resources_pb2.GetRequest(kind=kind, namespace=namespace, name=name)
        return _resource(await self._client.call(self._stub.Get(request, timeout=self._client.timeout_s)))

    async def list(self, kind: str, namespace: str = "") -> api.Listing:
        request = resources_pb2.ListRequest(kind=kind, namespace=namespace)
        answer = await self._client.call(self._stub.List(request, timeout=self._client.timeout_s))
        return api.Listing(tuple(map(_resource, answer.items)), answer.revision)

    async def write(self, verb: api.Verb, manifest: api.Manifest, dry_run: bool = False) -> api.Written:
        request = resources_pb2.WriteRequest(
            document=manifest.document,
            default_namespace=manifest.default_namespace,
            dry_run=dry_run,
            source=manifest.source,
            position=manifest.position,
        )
        method = {
            api.Verb.CREATE: self._stub.Create,
            api.Verb.APPLY: self._stub.Apply,
            api.Verb.REPLACE: self._stub.Replace,
        }[verb]
        answer = await self._client.call(method(request, timeout=self._client.timeout_s))
        return api.Written(_resource(answer.resource), tuple(answer.warnings))

    async def delete(
        self, kind: str, namespace: str, name: str, revision: int = 0, dry_run: bool = False
    ) -> api.Written:
        request = resources_pb2.DeleteRequest(
            kind=kind, namespace=namespace, name=name, revision=revision, dry_run=dry_run
        )
        answer = await self._client.call(self._stub.Delete(request, timeout=self._client.timeout_s))
        return api.Written(_resource(answer.resource), tuple(answer.warnings))

    async def watch(self, kind: str, namespace: str = "", name: str = "") -> AsyncGenerator[api.Change, None]:
        types = {code: type_ for type_, code in CHANGE_TYPES.items()}
        try:
            async for event in self._stub.Watch(resources_pb2.WatchRequest(kind=kind, namespace=namespace, name=name)):
                yield api.Change(types[event.type], _resource(event.resource) if event.HasField("resource") else None)
        except grpc.aio.AioRpcError as error:
            raise self._client.refusal(error) from error


def _resource(message: resources_pb2.Resource) -> api.StoredResource:
    return api.StoredResource(message.kind, message.namespace, message.name, message.revision, message.json)


class RemoteIPAM:
    def __init__(self, client: AdminClient, stub: ipam_pb2_grpc.IPAMServiceAsyncStub) -> None:
        self._client = client
        self._stub = stub

    async def utilization(self) -> api.Utilization:
        request = ipam_pb2.GetUtilizationRequest()
        answer = await self._client.call(self._stub.GetUtilization(request, timeout=self._client.timeout_s))
        pools = tuple(
            api.PoolUsage(
                name=pool.name,
                cidr=ip_network(pool.cidr),
                total=int(pool.total),
                used=int(pool.used),
                reserved=int(pool.reserved),
                blocks=tuple(map(_block, pool.blocks)),
            )
            for pool in answer.pools
        )
        return api.Utilization(pools, tuple(map(_block, answer.orphans)))

    async def borrowed(self) -> tuple[api.BorrowedAddress, ...]:
        request = ipam_pb2.GetBorrowedRequest()
        answer = await self._client.call(self._stub.GetBorrowed(request, timeout=self._client.timeout_s))
        return tuple(
            api.BorrowedAddress(
                address=ip_address(one.address),
                borrower=one.borrower,
                block=ip_network(one.block),
                owner=one.owner,
                holder_type=one.holder_type,
                holder=one.holder,
            )
            for one in answer.addresses
        )

    async def look_up(self, address: IPAddress) -> api.AddressInfo:
        request = ipam_pb2.LookUpRequest(address=str(address))
        answer = await self._client.call(self._stub.LookUp(request, timeout=self._client.timeout_s))
        state = next(state for state, code in STATES.items() if code == answer.state)
        return api.AddressInfo(
            state=state,
            pool=answer.pool,
            block=answer.block,
            affinity=answer.affinity,
            handle_id=answer.handle_id,
            attributes=tuple(sorted(answer.attributes.items())),
        )

    async def settings(self) -> api.IPAMSettings:
        request = ipam_pb2.GetConfigurationRequest()
        return _settings(await self._client.call(self._stub.GetConfiguration(request, timeout=self._client.timeout_s)))

    async def configure(
        self,
        strict_affinity: bool | None = None,
        auto_allocate_blocks: bool | None = None,
        max_blocks_per_host: int | None = None,
    ) -> api.IPAMSettings:
        request = ipam_pb2.ConfigureRequest(
            strict_affinity=strict_affinity,
            auto_allocate_blocks=auto_allocate_blocks,
            max_blocks_per_host=max_blocks_per_host,
        )
        return _settings(await self._client.call(self._stub.Configure(request, timeout=self._client.timeout_s)))

    async def release(self, addresses: Sequence[IPAddress]) -> api.Released:
        request = ipam_pb2.ReleaseRequest(addresses=map(str, addresses))
        answer = await self._client.call(self._stub.Release(request, timeout=self._client.timeout_s))
        return api.Released(tuple(map(ip_address, answer.released)), tuple(map(ip_address, answer.not_held)))


class RemoteReflectors:
    def __init__(self, client: AdminClient, stub: reflectors_pb2_grpc.ReflectorServiceAsyncStub) -> None:
        self._client = client
        self._stub = stub

    async def report(self, changes: Mapping[str, object] | None = None) -> ReflectorReport:
        tried = None if changes is None else reflectors_pb2.ReflectorChanges(json=encode(changes))
        request = reflectors_pb2.GetReflectorsRequest(changes=tried)
        return report_value(await self._client.call(self._stub.GetReflectors(request, timeout=self._client.timeout_s)))

    async def configure(self, changes: Mapping[str, object]) -> ReflectorSettings:
        request = reflectors_pb2.ReflectorChanges(json=encode(changes))
        call = self._stub.ConfigureReflectors(request, timeout=self._client.timeout_s)
        return settings_value(await self._client.call(call))


class RemoteQuestions:
    def __init__(self, client: AdminClient, stub: questions_pb2_grpc.QuestionServiceAsyncStub) -> None:
        self._client = client
        self._stub = stub

    async def ask(self, addressee: Addressee, method: str, request: bytes, asker: str = "") -> bytes:
        message = questions_pb2.AskRequest(
            role=addressee.role, node=addressee.node, method=method, request=request, asker=asker
        )
        # Longer than the other side takes, so that it is the one to say what is missing.
        timeout_s = self._client.timeout_s + LIFETIME_S
        found: bytes = (await self._client.call(self._stub.Ask(message, timeout=timeout_s))).answer
        return found


def _block(message: ipam_pb2.BlockUsage) -> api.BlockUsage:
    return api.BlockUsage(ip_network(message.cidr), message.affinity, message.total, message.used, message.reserved)


def _settings(message: ipam_pb2.IPAMSettings) -> api.IPAMSettings:
    return api.IPAMSettings(message.strict_affinity, message.auto_allocate_blocks, message.max_blocks_per_host)
