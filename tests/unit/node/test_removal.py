"""What goes with a node, what stays, and that a removal cut short anywhere can be done again."""

from ipaddress import ip_network
from typing import Any

import msgspec
import pytest

from tests.fakes.datastore import CrashedError, MemoryDatastore
from weft.ipam.client import IPAMClient
from weft.ipam.context import StoredContext
from weft.model import codec, keys
from weft.model.ipam import AffinityValue, Attribute, BlockValue, HandleValue, empty_block
from weft.model.keys import AffinityKey, BlockKey, HandleKey, Owner, ResourceKey
from weft.node.removal import remove_node

GONE, STAYS = "node-1", "node-2"
BLOCK = ip_network("10.65.0.0/26")


def put(store: MemoryDatastore, key: keys.Key, value: Any) -> None:
    store.put(keys.path(key), value if isinstance(value, bytes) else codec.encode_stored(value))


def resource(kind: str, name: str, namespace: str = "", **spec: Any) -> tuple[ResourceKey, bytes]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    document = {"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": metadata, "spec": spec}
    return ResourceKey(kind, name, namespace), msgspec.json.encode(document)


def endpoint(node: str, container: str, address: str) -> tuple[ResourceKey, bytes]:
    return resource(
        "WorkloadEndpoint",
        f"{node.replace('-', '--')}-cni-{container}-eth0",
        "default",
        node=node,
        orchestrator="cni",
        endpoint="eth0",
        containerID=container,
        ipNetworks=[f"{address}/32"],
        interfaceName=f"cali{container}",
    )


def cluster() -> MemoryDatastore:
    """Two nodes; the one that stays borrowed an address in the other's block."""
    store = MemoryDatastore()
    holders = (("one", GONE), ("two", STAYS), ("tunnel", GONE))
    attributes = tuple(Attribute(handle_id=f"net.{name}", secondary={"node": node}) for name, node in holders)
    allocations = (0, 1, 2, *(None,) * 61)
    block = msgspec.structs.replace(
        empty_block(BLOCK, Owner("host", GONE)),
        allocations=allocations,
        unallocated=tuple(range(3, 64)),
        attributes=attributes,
    )
    put(store, BlockKey(BLOCK), block)
    put(store, AffinityKey(Owner("host", GONE), BLOCK), AffinityValue(state="confirmed"))
    for name, _ in holders:
        put(store, HandleKey(f"net.{name}"), HandleValue(block={str(BLOCK): 1}))
    put(store, *resource("IPPool", "pool", cidr="10.65.0.0/16"))
    put(store, *endpoint(GONE, "one", "10.65.0.0"))
    put(store, *endpoint(STAYS, "two", "10.65.0.1"))
    for node in (GONE, STAYS):
        put(store, *resource("Node", node))
        put(store, *resource("HostEndpoint", f"{node}-eth0", node=node, interfaceName="eth0"))
        put(store, *resource("BGPPeer", f"{node}-peer", node=node, peerIP="10.0.0.9", asNumber=64512))
        put(store, *resource("FelixConfiguration", f"node.{node}"))
        put(store, *resource("BGPConfiguration", f"node.{node}"))
    put(store, *resource("BGPPeer", "everybody", peerIP="10.0.0.8", asNumber=64512))
    return store


async def remove(store: MemoryDatastore) -> None:
    await remove_node(store, IPAMClient(store, "weftctl", StoredContext(store, "weftctl")), GONE)


def check_removed(store: MemoryDatastore) -> None:
    left = {path for path in store.items() if GONE in path.replace("--", "-")}
    assert left == set()
    assert len([path for path in store.items() if STAYS in path.replace("--", "-")]) == 6
    assert store.value(keys.path(ResourceKey("BGPPeer", "everybody"))) is not None
    assert store.value(keys.path(HandleKey("net.two"))) is not None
    if store.transactional:  # otherwise a handle that holds nothing may be left, which IPAM passes over
        assert [path for path in store.items(keys.HANDLES) if not path.endswith("net.two")] == []
    raw = store.value(keys.path(BlockKey(BLOCK)))
    assert raw is not None
    block = codec.decode_stored(BlockKey(BLOCK), raw)
    assert isinstance(block, BlockValue)
    assert block.affinity is None
    assert [ordinal for ordinal, index in enumerate(block.allocations) if index is not None] == [1]


async def test_everything_of_the_node_goes_and_nothing_else() -> None:
    store = cluster()
    await remove(store)
    check_removed(store)


@pytest.mark.parametrize("transactional", [True, False], ids=["transactions", "in order"])
async def test_a_removal_cut_short_after_any_write_can_be_done_again(transactional: bool) -> None:
    for writes in range(1, 40):
        store = cluster()
        store.transactional = transactional
        store.crash_before_write(writes)
        try:
            await remove(store)
        except CrashedError:
            store.calls.clear()
            await remove(store)
            check_removed(store)
        else:
            assert writes > 8
            return
    pytest.fail("a removal of more than 40 writes")


async def test_removing_a_node_that_is_not_there_is_no_error() -> None:
    await remove(MemoryDatastore())


async def test_a_lost_race_is_tried_again() -> None:
    store = cluster()
    path = keys.path(ResourceKey("HostEndpoint", f"{GONE}-eth0"))
    value = store.value(path)
    assert value is not None
    store.lose_race(path, value)
    await remove(store)
    check_removed(store)
