"""Take workloads away: DEL, GC, and what an ADD finds in its way.

The kernel's part is done before the datastore's answer is looked at, so that nobody on this node gets an
address that still works somewhere. Everything here succeeds however little is left."""

from __future__ import annotations

from felix.cni import workload as workloads
from felix.cni.parts import Parts
from felix.cni.protocol import CNIError, Code, Request
from felix.cni.workload import NETWORK_ANNOTATION, Workload
from weft.datastore.base import Delete
from weft.ipam.client import launched
from weft.model import keys, names
from weft.model.endpoint import WorkloadEndpoint
from weft.model.errors import WeftError
from weft.model.keys import ResourceKey


class Teardown:
    """Deletes workloads of this node."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def delete(self, request: Request, netns: int | None) -> None:
        workload = workloads.workload_of(request, self._parts.view.node)
        async with self._parts.turns.turn(workload.turn):
            endpoint = self._parts.view.endpoint(workload.key)
            if endpoint is not None and endpoint.spec.container_id != workload.container_id:
                # The pod's next sandbox has taken over the name: only this one's addresses go.
                await self._parts.ipam.release_by_handle(workload.handle_id)
                return
            await self.take_down(workload, endpoint, netns)

    async def take_down(self, workload: Workload, endpoint: WorkloadEndpoint | None, netns: int | None) -> None:
        """Endpoint and address are released while the interface goes, and with it the route. Idempotent.

        Nobody here gets the address before that: it is done before the commit is heard of. The policy is not waited
        for, since nothing is left that it could be for."""
        host_interface = endpoint.spec.interface_name if endpoint else workload.host_interface
        container_id = endpoint.spec.container_id if endpoint else workload.container_id
        annotations = endpoint.metadata.annotations if endpoint else {}
        handle_id = names.cni_handle_id(annotations.get(NETWORK_ANNOTATION, workload.network), container_id)
        deletion = [Delete(keys.path(workload.key))]
        release = await launched(self._parts.ipam.release_by_handle(handle_id, before=deletion))
        try:
            if endpoint is not None:
                self._parts.programmer.retire(workload.key)
            if endpoint is not None or self._parts.view.by_interface(host_interface) is None:
                self._parts.wiring.detach(host_interface, netns, workload.interface)
        finally:
            await release
        if endpoint is not None:
            self._parts.view.wrote(workload.key, None)

    async def collect(self, request: Request) -> None:
        """Delete what of this network on this node is not attached any more. One failure stops none of the others."""
        configuration = request.configuration
        attachments = configuration.valid_attachments
        if attachments is None:
            attachments = configuration.attachments
        if attachments is None:
            raise CNIError(
                Code.INVALID_CONFIGURATION, "GC needs cni.dev/valid-attachments", "none is not an empty list"
            )
        valid = {(one.container_id, one.ifname) for one in attachments}
        failed: list[str] = []
        for key, endpoint in list(self._parts.view.endpoints()):
            spec = endpoint.spec
            network = endpoint.metadata.annotations.get(NETWORK_ANNOTATION)
            if network == configuration.name and (spec.container_id, spec.endpoint) not in valid:
                await self._collect_one(key, endpoint, failed)
        for handle_id in await self._parts.ipam.handles(f"{configuration.name}."):
            await self._collect_handle(handle_id, {container_id for container_id, _ in valid}, failed)
        if failed:
            raise CNIError(Code.IO_FAILURE, "GC could not remove everything", "; ".join(failed))

    async def _collect_one(self, key: ResourceKey, endpoint: WorkloadEndpoint, failed: list[str]) -> None:
        workload = _workload_behind(key, endpoint)
        async with self._parts.turns.turn(workload.turn):
            now = self._parts.view.endpoint(key)
            if now is None or now.metadata.uid != endpoint.metadata.uid:
                return  # deleted or replaced meanwhile
            try:
                await self.take_down(workload, endpoint, None)
            except (WeftError, OSError) as error:
                failed.append(f"{key.name}: {error}")

    async def _collect_handle(self, handle_id: str, valid: set[str], failed: list[str]) -> None:
        """Release addresses of this node that no endpoint stands for: an ADD or DEL was cut short.

        Names of networks and containers may hold dots, so a handle is left alone as soon as it may be that of
        a container in use."""
        alive = {endpoint.spec.container_id for _, endpoint in self._parts.view.endpoints()}
        if any(handle_id.endswith(f".{container_id}") for container_id in valid | alive | self._parts.adding):
            return
        try:
            holder = await self._parts.ipam.holder(handle_id)
            if holder is not None and holder.get("node") == self._parts.view.node:
                await self._parts.ipam.release_by_handle(handle_id)
        except WeftError as error:
            failed.append(f"{handle_id}: {error}")


def _workload_behind(key: ResourceKey, endpoint: WorkloadEndpoint) -> Workload:
    spec = endpoint.spec
    return Workload(
        node=spec.node,
        network=endpoint.metadata.annotations.get(NETWORK_ANNOTATION, ""),
        container_id=spec.container_id,
        interface=spec.endpoint,
        namespace=key.namespace,
        pod=spec.pod,
        name=spec.workload,
        labels=endpoint.metadata.labels,
    )
