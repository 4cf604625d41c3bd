"""Put the datastore's services together: what every agent with a datastore serves, and weftctl runs in process.

The only place that knows both the admin services and the parts of weft that clean up behind them."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from weft.admin import api
from weft.admin.addresses import AddressStore
from weft.admin.mailbox import Mailbox
from weft.admin.questions import QuestionAPI
from weft.admin.reflectors import ReflectorAPI, ReflectorStore
from weft.admin.store import ResourceStore
from weft.datastore.base import Datastore
from weft.ipam.client import IPAMClient
from weft.ipam.context import StoredContext
from weft.model import keys
from weft.model.address import IPNetwork
from weft.node.removal import remove_node

# An administrator owns no blocks; the name only says so.
NOBODY = "weftctl"
SETTLE_S = 0.5  # as Calico


class DatastoreAPI(Struct, frozen=True):
    """The admin API on a datastore."""

    resources: api.ResourceAPI
    ipam: api.IPAMAPI
    reflectors: ReflectorAPI
    questions: QuestionAPI


def datastore_api(store: Datastore) -> DatastoreAPI:
    ipam = IPAMClient(store, NOBODY, StoredContext(store, NOBODY))

    async def remove(name: str) -> None:
        await remove_node(store, ipam, name)

    async def release_pool(cidr: IPNetwork) -> None:
        await release_pool_affinities(store, ipam, cidr)

    resources = ResourceStore(store, remove_node=remove, release_pool=release_pool)
    addresses = AddressStore(store, ipam.release_addresses)
    return DatastoreAPI(resources, addresses, ReflectorStore(store), Mailbox(store))


async def release_pool_affinities(store: Datastore, ipam: IPAMClient, pool: IPNetwork) -> None:
    """Give up every block of a pool: empty ones go, addresses in use stay held.

    Waits before: an allocation that read the pool before it was disabled may still be under way."""
    await asyncio.sleep(SETTLE_S)
    for prefix in (keys.affinities_prefix("host"), keys.affinities_prefix("virtual")):
        for item in (await store.list(prefix)).items:
            key = keys.parse(item.key)
            if isinstance(key, keys.AffinityKey) and key.cidr.version == pool.version and key.cidr.overlaps(pool):
                await ipam.release_affinity(key.cidr, key.owner)
