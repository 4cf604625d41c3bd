"""Pools, contexts and clients for IPAM tests."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

from tests.fakes.datastore import MemoryDatastore
from weft.datastore.base import Datastore
from weft.ipam.block import Block, Holder
from weft.ipam.client import IPAMClient
from weft.ipam.pools import IPAMContext
from weft.model import codec, keys
from weft.model.base import Metadata
from weft.model.ipam import DEFAULT_CONFIG, AffinityValue, BlockValue, HandleValue, IPAMConfigValue
from weft.model.keys import AffinityKey, BlockKey, HandleKey
from weft.model.pool import IPPool, IPPoolSpec

START = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)


class FixedContext:
    """A context source that a test may change; `node_labels` are the node's."""

    def __init__(
        self,
        node: str = "n1",
        pools: Sequence[IPPool] = (),
        config: IPAMConfigValue = DEFAULT_CONFIG,
        labels: Mapping[str, str] | None = None,
        reserved: Sequence[str] = (),
    ) -> None:
        self.value = IPAMContext(node, labels or {}, tuple(pools), tuple(map(ip_network, reserved)), config)

    async def context(self) -> IPAMContext:
        return self.value


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def pool(cidr: str, name: str = "pool", **spec: object) -> IPPool:
    return IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=ip_network(cidr), **spec))  # type: ignore[arg-type]


def holder(handle_id: str, node: str = "n1") -> Holder:
    return Holder(handle_id, {"node": node})


async def no_pause(seconds: float) -> None:
    """Losers of a race try again at once."""


def client(store: Datastore, source: FixedContext, clock: Clock | None = None) -> IPAMClient:
    return IPAMClient(store, source.value.node, source, clock or Clock(), no_pause)


def blocks(store: MemoryDatastore) -> dict[str, Block]:
    """Every stored block by its prefix, each one consistent in itself."""
    found = {}
    for path, raw in store.items(keys.IPAM).items():
        key = keys.parse(path)
        if isinstance(key, BlockKey):
            value = codec.decode_stored(key, raw)
            assert isinstance(value, BlockValue)
            found[str(key.cidr)] = Block(value)
            held = {ordinal for ordinal, index in enumerate(value.allocations) if index is not None}
            free = value.unallocated
            assert len(set(free)) == len(free), "an address is queued twice"
            assert held.isdisjoint(free), "an address is held and free"
            assert held | set(free) == set(range(key.cidr.num_addresses)), "an address is lost"
            assert held == value.sequence_number_for_allocation.keys()
            assert {index for index in value.allocations if index is not None} == set(range(len(value.attributes)))
    return found


def handles(store: MemoryDatastore) -> dict[str, HandleValue]:
    found = {}
    for path, raw in store.items(keys.HANDLES).items():
        key = keys.parse(path)
        assert isinstance(key, HandleKey)
        value = codec.decode_stored(key, raw)
        assert isinstance(value, HandleValue)
        found[key.handle_id] = value
    return found


def affinities(store: MemoryDatastore) -> dict[tuple[str, str], str]:
    """(owner, prefix) -> state."""
    found = {}
    for path, raw in store.items(keys.IPAM).items():
        key = keys.parse(path)
        if isinstance(key, AffinityKey):
            value = codec.decode_stored(key, raw)
            assert isinstance(value, AffinityValue)
            found[str(key.owner), str(key.cidr)] = value.state
    return found
