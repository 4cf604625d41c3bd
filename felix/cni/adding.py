"""Attach a workload: address, endpoint, interface, policy and routes, all of it or nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from contextlib import AsyncExitStack
from functools import cache

from felix.cni import workload as workloads
from felix.cni.parts import Parts
from felix.cni.ports import Attachment, InterfaceExistsError
from felix.cni.protocol import CNIError, Code, Request
from felix.cni.teardown import Teardown
from felix.cni.workload import Workload, addresses_of
from weft.datastore.base import Create, Delete, Write
from weft.model import codec, keys
from weft.model.address import IPAddress
from weft.model.endpoint import WorkloadEndpoint
from weft.model.errors import (
    AddressInUseError,
    AlreadyExistsError,
    ConflictError,
    NoFreeAddressError,
    WeftError,
)
from weft.model.keys import ResourceKey

log = logging.getLogger(__name__)

PROFILE_TIMEOUT_S = 2.0


class Adder:
    """ADD on this node."""

    def __init__(self, parts: Parts, teardown: Teardown) -> None:
        self._parts = parts
        self._teardown = teardown

    async def add(self, request: Request, netns: int | None) -> WorkloadEndpoint:
        """The endpoint, in place. A repeated ADD that finds everything intact changes nothing."""
        if netns is None:
            raise CNIError(Code.INVALID_ENVIRONMENT, f"there is no network namespace {request.netns}")
        workload = workloads.workload_of(request, self._parts.view.node)
        workloads.require_storable(workload)
        async with self._parts.turns.turn(workload.turn):
            self._parts.adding.add(workload.container_id)
            try:
                return await self._add(workload, request, netns)
            finally:
                self._parts.adding.discard(workload.container_id)

    async def _add(self, workload: Workload, request: Request, netns: int) -> WorkloadEndpoint:
        existing = self._parts.view.endpoint(workload.key)
        if existing is not None and self._is_intact(workload, existing, netns):
            return existing
        if existing is not None:
            log.info("ADD %s: an earlier one was not finished or its interface is gone", workload.key.name)
            await self._teardown.take_down(workload, existing, netns)
        self._require_only_interface(workload)
        if not request.configuration.policy.type:
            await self._ensure_profile(workload)
        try:
            return await self._add_new(workload, request, netns)
        except ConflictError as conflict:
            # An endpoint that the watch has not told of yet: left by an agent that died.
            log.info("ADD %s: %s; starting afresh", workload.key.name, conflict)
            await self._teardown.take_down(workload, None, netns)
            return await self._add_new(workload, request, netns)

    async def _add_new(self, workload: Workload, request: Request, netns: int) -> WorkloadEndpoint:
        """Address and endpoint are committed while interface, policy and routes are made, in this order.

        Nothing is left when it fails. No route is announced before the commit: BGP goes by the datastore."""
        now = self._parts.now()
        wanted = workloads.addresses_wanted(workload, request, (await self._parts.view.context()).pools, now)
        mac = workloads.requested_mac(request) or random_mac()
        uid = str(uuid.uuid4())
        path = keys.path(workload.key)

        @cache
        def endpoint_with(addresses: tuple[IPAddress, ...]) -> WorkloadEndpoint:
            return workloads.endpoint_of(workload, request, addresses, mac, uid, now)

        def after(addresses: tuple[IPAddress, ...]) -> list[Write]:
            return [Create(path, codec.encode_stored(endpoint_with(addresses)))]

        async def put_in_place(addresses: tuple[IPAddress, ...], undo: AsyncExitStack) -> None:
            attachment = Attachment(
                netns=netns,
                interface=workload.interface,
                host_interface=workload.host_interface,
                addresses=addresses,
                mtu=request.configuration.mtu or self._parts.machine.mtu(),
                mac=mac,
            )
            self._attach(attachment)
            undo.callback(self._parts.wiring.detach, workload.host_interface, netns, workload.interface)
            undo.push_async_callback(self._parts.programmer.remove, workload.key)
            await self._parts.programmer.program(endpoint_with(addresses))

        try:
            endpoint = endpoint_with(await self._parts.ipam.assign(wanted, after, put_in_place))
            self._parts.view.wrote(workload.key, endpoint)
        except (ConflictError, NoFreeAddressError, AddressInUseError):
            raise  # the commit was refused: what it overlapped with is undone and nothing was stored
        except BaseException as error:
            await self._roll_back(workload, netns, unwire=not isinstance(error, InterfaceExistsError))
            raise
        return endpoint

    def _attach(self, attachment: Attachment) -> None:
        """Make the pair; a host end that no endpoint owns is a leftover and gives way."""
        try:
            self._parts.wiring.attach(attachment)
        except InterfaceExistsError as exists:
            if (
                exists.interface != attachment.host_interface
                or self._parts.view.by_interface(exists.interface) is not None
            ):
                raise
            log.info("%s is left from a workload that is gone", exists.interface)
            self._parts.wiring.detach(attachment.host_interface, attachment.netns, attachment.interface)
            self._parts.wiring.attach(attachment)

    async def _roll_back(self, workload: Workload, netns: int, unwire: bool) -> None:
        """Undo an ADD of which nobody knows how far it came. What cannot be undone now is left to the DEL that
        the runtime owes us, or to the next ADD of the same container."""
        try:
            await self._parts.programmer.remove(workload.key)
            if unwire:
                self._parts.wiring.detach(workload.host_interface, netns, workload.interface)
            await self._parts.ipam.release_by_handle(workload.handle_id, before=[Delete(keys.path(workload.key))])
            if self._parts.view.endpoint(workload.key) is not None:
                self._parts.view.wrote(workload.key, None)
        except (WeftError, OSError) as error:
            log.warning("ADD %s: cannot undo all of it: %s", workload.key.name, error)

    async def _ensure_profile(self, workload: Workload) -> None:
        """The network's profile, made if it is missing, and known to the policy calculation."""
        name = workload.network
        if self._parts.view.has_profile(name):
            return
        profile = workloads.network_profile(workload, str(uuid.uuid4()), self._parts.now())
        try:
            await self._parts.store.create(keys.path(ResourceKey("Profile", name)), codec.encode_stored(profile))
        except AlreadyExistsError:
            log.debug("profile %s: the watch has not told of it yet", name)
        seen = asyncio.Event()
        self._parts.view.when_profile(name, seen.set)
        try:
            async with asyncio.timeout(PROFILE_TIMEOUT_S):
                await seen.wait()
        except TimeoutError:
            raise CNIError(Code.TRY_AGAIN_LATER, f"profile {name} has not come back from the datastore yet") from None

    def _require_only_interface(self, workload: Workload) -> None:
        """The host's end is named after the container or the pod alone: there can be one."""
        other = self._parts.view.by_interface(workload.host_interface)
        if other is not None and not (workload.pod and other[1].spec.container_id != workload.container_id):
            raise CNIError(
                Code.INTERFACE_EXISTS,
                f"{workload.host_interface} belongs to {other[0].namespace}/{other[0].name}",
                "a container has one interface of this fabric",
            )

    def _is_intact(self, workload: Workload, endpoint: WorkloadEndpoint, netns: int) -> bool:
        """Whether a repeated ADD finds everything as the first one left it."""
        if endpoint.spec.container_id != workload.container_id:
            return False
        found = self._parts.wiring.inspect(endpoint.spec.interface_name, netns, workload.interface)
        return found.interface_up and found.host_interface_up and set(addresses_of(endpoint)) <= set(found.addresses)


def random_mac() -> str:
    """A unicast MAC of local administration. Ours is chosen before the interface exists: the endpoint names it."""
    octets = bytearray(os.urandom(6))
    octets[0] = octets[0] & 0xFC | 0x02
    return octets.hex(":")
