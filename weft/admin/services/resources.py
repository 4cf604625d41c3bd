"""ResourceService over gRPC; what a call means is decided by the ResourceAPI behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc

from weft.admin import api
from weft.admin.v1 import resources_pb2 as pb
from weft.admin.v1 import resources_pb2_grpc as pb_grpc

CHANGE_TYPES = {
    api.ChangeType.ADDED: pb.WatchEvent.ADDED,
    api.ChangeType.MODIFIED: pb.WatchEvent.MODIFIED,
    api.ChangeType.DELETED: pb.WatchEvent.DELETED,
    api.ChangeType.IN_SYNC: pb.WatchEvent.IN_SYNC,
}


def resource_message(resource: api.StoredResource) -> pb.Resource:
    return pb.Resource(
        kind=resource.kind,
        namespace=resource.namespace,
        name=resource.name,
        revision=resource.revision,
        json=resource.json,
    )


def written_message(written: api.Written) -> pb.WriteResponse:
    return pb.WriteResponse(resource=resource_message(written.resource), warnings=written.warnings)


class ResourceServer(pb_grpc.ResourceServiceServicer):
    """Serves `resources` to everybody who may open the socket."""

    name = "weft.admin.v1.ResourceService"

    def __init__(self, resources: api.ResourceAPI) -> None:
        self._resources = resources

    def register(self, server: grpc.aio.Server) -> None:
        pb_grpc.add_ResourceServiceServicer_to_server(self, server)

    async def Get(self, request: pb.GetRequest, context: object) -> pb.Resource:
        return resource_message(await self._resources.get(request.kind, request.namespace, request.name))

    async def List(self, request: pb.ListRequest, context: object) -> pb.ListResponse:
        listing = await self._resources.list(request.kind, request.namespace)
        return pb.ListResponse(items=map(resource_message, listing.items), revision=listing.revision)

    async def Create(self, request: pb.WriteRequest, context: object) -> pb.WriteResponse:
        return await self._write(api.Verb.CREATE, request)

    async def Apply(self, request: pb.WriteRequest, context: object) -> pb.WriteResponse:
        return await self._write(api.Verb.APPLY, request)

    async def Replace(self, request: pb.WriteRequest, context: object) -> pb.WriteResponse:
        return await self._write(api.Verb.REPLACE, request)

    async def _write(self, verb: api.Verb, request: pb.WriteRequest) -> pb.WriteResponse:
        manifest = api.Manifest(request.document, request.source, request.position, request.default_namespace)
        return written_message(await self._resources.write(verb, manifest, request.dry_run))

    async def Delete(self, request: pb.DeleteRequest, context: object) -> pb.DeleteResponse:
        written = await self._resources.delete(
            request.kind, request.namespace, request.name, request.revision, request.dry_run
        )
        return pb.DeleteResponse(resource=resource_message(written.resource), warnings=written.warnings)

    async def Watch(self, request: pb.WatchRequest, context: object) -> AsyncIterator[pb.WatchEvent]:
        async with aclosing(self._resources.watch(request.kind, request.namespace, request.name)) as changes:
            async for change in changes:
                resource = None if change.resource is None else resource_message(change.resource)
                yield pb.WatchEvent(type=CHANGE_TYPES[change.type], resource=resource)
