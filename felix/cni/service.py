"""Answer the CNI commands: who does what, what must hold before, and what an error means to a runtime."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address

from felix.cni import workload as workloads
from felix.cni.adding import Adder
from felix.cni.parts import Parts
from felix.cni.ports import InterfaceExistsError
from felix.cni.protocol import (
    CNIError,
    Code,
    Interface,
    Request,
    format_result,
    format_versions,
    parse_request,
)
from felix.cni.teardown import Teardown
from felix.cni.workload import addresses_of
from weft.model.endpoint import WorkloadEndpoint
from weft.model.errors import (
    AddressInUseError,
    ConflictError,
    DatastoreUnavailableError,
    NoFreeAddressError,
    WeftError,
)
from weft.model.names import INTERFACE_MAC

_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
_CLONE_NEWNET = 0x40000000


class CNIService:
    """`felix.cni.server.Handler` for one node."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._teardown = Teardown(parts)
        self._adder = Adder(parts, self._teardown)

    async def handle(self, environment: dict[str, str], raw: bytes, netns: int | None) -> bytes:
        """Answer one call of the plugin. `netns`: the namespace, where the caller could open it."""
        request = parse_request(environment, raw)
        try:
            with opened(request, netns) as descriptor:
                return await self._dispatch(request, descriptor)
        except WeftError as error:
            raise as_cni_error(error) from error
        except OSError as error:
            raise CNIError(Code.IO_FAILURE, f"{request.command} failed", str(error)) from error

    async def _dispatch(self, request: Request, netns: int | None) -> bytes:
        match request.command:
            case "ADD":
                self._require_ready()
                return self._result(request, await self._adder.add(request, netns))
            case "DEL":
                self._require_ready()
                await self._teardown.delete(request, netns)
            case "CHECK":
                self._check(request, netns)
            case "GC":
                self._require_ready()
                await self._teardown.collect(request)
            case "STATUS":
                if not self._parts.view.datastore_ready:
                    raise CNIError(Code.NOT_AVAILABLE, "the node cannot take workloads now", self._why_not_ready())
            case "VERSION":
                return format_versions(request.version)
        return b""

    def _result(self, request: Request, endpoint: WorkloadEndpoint) -> bytes:
        mtu = request.configuration.mtu or self._parts.machine.mtu()
        interfaces = [
            Interface(endpoint.spec.interface_name, INTERFACE_MAC, mtu, ""),
            Interface(request.interface, endpoint.spec.mac, mtu, request.netns),
        ]
        return format_result(request, interfaces, addresses_of(endpoint), self._parts.machine.gateways)

    def _check(self, request: Request, netns: int | None) -> None:
        workload = workloads.workload_of(request, self._parts.view.node)
        endpoint = self._parts.view.endpoint(workload.key)
        if netns is None:
            raise CNIError(Code.UNKNOWN_CONTAINER, f"there is no network namespace {request.netns}")
        if endpoint is None or endpoint.spec.container_id != workload.container_id:
            raise CNIError(Code.UNKNOWN_CONTAINER, f"there is no endpoint {workload.key.name}")
        previous = request.configuration.prev_result
        if previous is None:
            raise CNIError(Code.INVALID_CONFIGURATION, "CHECK needs prevResult")
        wrong = _compare(request, endpoint, previous)
        found = self._parts.wiring.inspect(endpoint.spec.interface_name, netns, request.interface)
        if not found.host_interface_up:
            wrong.append(f"{endpoint.spec.interface_name} is not there or not up")
        if not found.interface_up:
            wrong.append(f"{request.interface} is not there or not up")
        elif missing := set(addresses_of(endpoint)) - set(found.addresses):
            wrong.append(f"{request.interface} lacks {', '.join(sorted(map(str, missing)))}")
        elif not found.has_default_route:
            wrong.append("there is no default route")
        if wrong:
            raise CNIError(Code.CHECK_FAILED, "the container's network is not as ADD left it", "; ".join(wrong))

    def _require_ready(self) -> None:
        if not self._parts.view.datastore_ready:
            raise CNIError(Code.TRY_AGAIN_LATER, "the node cannot change workloads now", self._why_not_ready())

    def _why_not_ready(self) -> str:
        if not self._parts.view.in_sync:
            return "the datastore has not been read completely yet"
        return "datastoreReady of ClusterInformation default is not true"


@contextmanager
def opened(request: Request, netns: int | None) -> Iterator[int | None]:
    """The namespace as a descriptor: the one that came along, else by its path as this process sees it.

    None if there is none: a name without a namespace behind it is what a restart of the machine leaves."""
    descriptor = None
    if netns is None and request.netns:
        try:
            netns = descriptor = os.open(request.netns, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            netns = None
    try:
        yield netns if netns is not None and _is_network_namespace(netns) else None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _is_network_namespace(descriptor: int) -> bool:
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False


def as_cni_error(error: WeftError) -> CNIError:
    """What an error means to a runtime."""
    match error:
        case CNIError():
            return error
        case DatastoreUnavailableError() | ConflictError():
            return CNIError(Code.TRY_AGAIN_LATER, "the datastore cannot be changed now", str(error))
        case NoFreeAddressError() | AddressInUseError():
            return CNIError(Code.NO_ADDRESS, "no address could be assigned", str(error))
        case InterfaceExistsError():
            return CNIError(Code.INTERFACE_EXISTS, str(error))
    return CNIError(Code.TRY_AGAIN_LATER, "the node is not ready", str(error))


def _compare(request: Request, endpoint: WorkloadEndpoint, previous: Mapping[str, object]) -> list[str]:
    """Where the previous result and the endpoint differ."""
    interfaces, ips = previous.get("interfaces"), previous.get("ips")
    named = [one for one in interfaces if isinstance(one, dict)] if isinstance(interfaces, list) else []
    wrong = []
    if not any(one.get("name") == request.interface and one.get("sandbox") for one in named):
        wrong.append(f"prevResult has no {request.interface} in a sandbox")
    expected = {
        ip_address(str(one.get("address", "")).partition("/")[0])
        for one in (ips if isinstance(ips, list) else [])
        if isinstance(one, dict)
    }
    missing = set(addresses_of(endpoint)) - expected
    if missing:
        wrong.append(f"prevResult lacks {', '.join(sorted(map(str, missing)))}")
    return wrong
