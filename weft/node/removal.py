"""Clean up after a node that is gone for good, as Calico does when its Node is deleted.

The Node itself goes last, so that a removal cut short can simply be done again. An endpoint is deleted in the same
transaction that frees its addresses: done again later, it can never free an address that somebody else got meanwhile.
The node's agents must have been stopped; one that still runs registers the node again.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from weft.datastore.base import Datastore, Delete, KeyValue, Plan, Write
from weft.model import codec, keys
from weft.model.address import IPAddress
from weft.model.base import Resource
from weft.model.bgp import BGPPeer
from weft.model.endpoint import HostEndpoint, WorkloadEndpoint
from weft.model.errors import ConflictError, ValidationError
from weft.model.ipam import BlockValue
from weft.model.keys import BlockKey, ReflectorKey, ResourceKey

log = logging.getLogger(__name__)

ATTEMPTS = 5
# Under which name Calico and weft note the node in an allocation's attributes.
NODE_ATTRIBUTE = "node"
R = TypeVar("R", bound=Resource)


class AddressReleaser(Protocol):
    """What is needed of IPAM; `weft.ipam.client.IPAMClient` has it."""

    async def release_by_handle(
        self, handle_id: str, keep: Collection[IPAddress] = (), before: Sequence[Write] = ()
    ) -> object: ...

    async def release_node(self, name: str) -> None: ...


async def remove_node(store: Datastore, ipam: AddressReleaser, name: str) -> None:
    """Remove endpoints and their addresses, block affinities, the node's own configuration, then the Node.

    Idempotent. `ConflictError` when somebody keeps changing what is to be removed.
    """
    await _retry(lambda: _remove_addresses(store, ipam, name))
    await _retry(lambda: _remove_where(store, WorkloadEndpoint, lambda endpoint: endpoint.spec.node == name))
    await ipam.release_node(name)
    await _retry(lambda: _remove_where(store, HostEndpoint, lambda endpoint: endpoint.spec.node == name))
    await _retry(lambda: _remove_where(store, BGPPeer, lambda peer: peer.spec.node == name))
    own: list[keys.Key] = [ResourceKey(kind, f"node.{name}") for kind in ("FelixConfiguration", "BGPConfiguration")]
    own += [ReflectorKey("serving", name), ReflectorKey("attached", name), ReflectorKey("beats", name)]
    await store.commit(Plan.of(*(Delete(keys.path(key)) for key in (*own, ResourceKey("Node", name)))))


async def _retry(step: Callable[[], Awaitable[None]]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await step()
        except ConflictError:
            if attempt == ATTEMPTS:
                raise
        else:
            return


async def _remove_addresses(store: Datastore, ipam: AddressReleaser, node: str) -> None:
    """Free every handle that an endpoint of the node or the node itself holds, with the endpoints it belongs to."""
    holders = {
        address.network_address: (key, revision)
        for key, endpoint, revision in await _all(store, WorkloadEndpoint)
        if endpoint.spec.node == node
        for address in endpoint.spec.ip_networks
    }
    for handle, addresses in (await _handles(store, node, holders)).items():
        deletes = {Delete(*holders[address]) for address in addresses if address in holders}
        await ipam.release_by_handle(handle, before=sorted(deletes, key=lambda delete: delete.key))


async def _handles(
    store: Datastore, node: str, held: Mapping[IPAddress, tuple[str, int]]
) -> dict[str, list[IPAddress]]:
    """Handle -> addresses, of all allocations noted for the node, or for none and in `held`."""
    found: dict[str, list[IPAddress]] = {}
    for version in (4, 6):
        for item in (await store.list(keys.block_prefix(version))).items:
            key = keys.parse(item.key)
            block = _decode(key, item) if isinstance(key, BlockKey) else None
            if not isinstance(block, BlockValue):
                continue
            for ordinal, index in enumerate(block.allocations):
                if index is None:
                    continue
                attribute, address = block.attributes[index], block.cidr[ordinal]
                noted = attribute.secondary.get(NODE_ATTRIBUTE)
                theirs = noted == node or (noted is None and address in held)
                if theirs and attribute.handle_id:
                    found.setdefault(attribute.handle_id, []).append(address)
    return found


async def _remove_where(store: Datastore, cls: type[R], is_theirs: Callable[[R], bool]) -> None:
    deletes: Iterable[Write] = [
        Delete(path, revision) for path, resource, revision in await _all(store, cls) if is_theirs(resource)
    ]
    await store.commit(Plan.chunked(deletes))


async def _all(store: Datastore, cls: type[R]) -> list[tuple[str, R, int]]:
    found = []
    for item in (await store.list(keys.prefix(cls.kind))).items:
        value = _decode(keys.parse(item.key), item)
        if isinstance(value, cls):
            found.append((item.key, value, item.revision))
    return found


def _decode(key: keys.Key | None, item: KeyValue) -> codec.Value | None:
    if key is None:
        return None
    try:
        return codec.decode_stored(key, item.value)
    except ValidationError as error:
        log.warning("left alone, because it cannot be read: %s", error)
        return None
