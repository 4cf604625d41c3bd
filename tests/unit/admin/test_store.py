"""Writing resources against a store that refuses as etcd does: lost races, compaction, unreadable neighbours."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest

from tests.fakes.datastore import MemoryDatastore
from weft.admin import api
from weft.admin.assembly import datastore_api
from weft.admin.store import ResourceStore
from weft.datastore.base import Write
from weft.model.errors import AlreadyExistsError, ConflictError, DatastoreUnavailableError, NotFoundError

KEY = "/calico/resources/v3/projectcalico.org/globalnetworksets/s"


def manifest(version: str = "", nets: list[str] | None = None, **metadata: Any) -> api.Manifest:
    document = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkSet",
        "metadata": {"name": "s", "resourceVersion": version, **metadata},
        "spec": {"nets": nets or []},
    }
    return api.Manifest(json.dumps(document).encode())


@pytest.fixture
def store() -> MemoryDatastore:
    return MemoryDatastore()


@pytest.fixture
def resources(store: MemoryDatastore) -> api.ResourceAPI:
    return datastore_api(store).resources


def stored(store: MemoryDatastore) -> Any:
    raw = store.value(KEY)
    return None if raw is None else json.loads(raw)


async def test_apply_tries_again_after_a_lost_race_and_keeps_the_winners_identity(
    store: MemoryDatastore, resources: api.ResourceAPI
) -> None:
    await resources.write(api.Verb.APPLY, manifest())
    winner = stored(store)
    winner["spec"] = {"nets": ["192.0.2.0/24"], "theirs": 1}
    store.lose_race(KEY, json.dumps(winner).encode())
    await resources.write(api.Verb.APPLY, manifest(nets=["10.0.0.0/8"]))
    assert stored(store)["spec"] == {"nets": ["10.0.0.0/8"], "theirs": 1}
    assert stored(store)["metadata"]["uid"] == winner["metadata"]["uid"]


async def test_apply_creates_again_what_vanished_under_it(store: MemoryDatastore, resources: api.ResourceAPI) -> None:
    await resources.write(api.Verb.APPLY, manifest())
    store.lose_race(KEY, None)
    await resources.write(api.Verb.APPLY, manifest(nets=["10.0.0.0/8"]))
    assert stored(store)["spec"]["nets"] == ["10.0.0.0/8"]


async def test_apply_updates_what_appeared_under_it(store: MemoryDatastore, resources: api.ResourceAPI) -> None:
    await resources.write(api.Verb.APPLY, manifest(labels={"a": "b"}))
    raw = store.value(KEY)
    store.remove(KEY)
    store.lose_race(KEY, raw)
    await resources.write(api.Verb.APPLY, manifest(nets=["10.0.0.0/8"]))
    assert stored(store)["spec"]["nets"] == ["10.0.0.0/8"]
    assert stored(store)["metadata"]["uid"] == json.loads(raw or b"")["metadata"]["uid"]


async def test_with_a_resource_version_a_lost_race_is_a_conflict(
    store: MemoryDatastore, resources: api.ResourceAPI
) -> None:
    written = await resources.write(api.Verb.APPLY, manifest())
    store.lose_race(KEY, store.value(KEY))
    with pytest.raises(ConflictError, match=r"GlobalNetworkSet\(s\)"):
        await resources.write(api.Verb.REPLACE, manifest(str(written.resource.revision), nets=["10.0.0.0/8"]))
    assert "nets" not in stored(store)["spec"]


async def test_a_race_lost_again_and_again_ends_as_a_conflict(
    store: MemoryDatastore, resources: api.ResourceAPI
) -> None:
    await resources.write(api.Verb.APPLY, manifest())
    raw = store.value(KEY) or b""

    def touch(write: Write) -> None:
        store.put(KEY, raw)

    store.before_write = touch
    with pytest.raises(ConflictError):
        await resources.write(api.Verb.APPLY, manifest(nets=["10.0.0.0/8"]))


async def test_a_write_that_changes_nothing_is_not_made(store: MemoryDatastore, resources: api.ResourceAPI) -> None:
    first = await resources.write(api.Verb.APPLY, manifest(nets=["10.0.0.0/8"]))
    second = await resources.write(api.Verb.APPLY, manifest(nets=["10.0.0.0/8"]))
    assert second.resource == first.resource
    assert [op for op, _ in store.calls if op in ("create", "update")] == ["create"]


async def test_a_creator_that_loses_learns_that_it_exists(store: MemoryDatastore, resources: api.ResourceAPI) -> None:
    store.lose_race(KEY, b"{}")
    with pytest.raises(AlreadyExistsError):
        await resources.write(api.Verb.CREATE, manifest())


async def test_people_cannot_choose_identity(store: MemoryDatastore, resources: api.ResourceAPI) -> None:
    await resources.write(api.Verb.APPLY, manifest(uid="chosen", generation=9))
    assert stored(store)["metadata"]["uid"] != "chosen"
    uid = stored(store)["metadata"]["uid"]
    await resources.write(api.Verb.APPLY, manifest(uid="other", annotations={"a": "b"}))
    assert stored(store)["metadata"] | {"annotations": {"a": "b"}} == stored(store)["metadata"]
    assert stored(store)["metadata"]["uid"] == uid


async def test_one_unreadable_value_does_not_hide_its_neighbours(
    store: MemoryDatastore, resources: api.ResourceAPI
) -> None:
    await resources.write(api.Verb.CREATE, manifest())
    store.put(KEY + "2", b"garbage")
    assert [item.name for item in (await resources.list("GlobalNetworkSet")).items] == ["s"]


async def test_a_nodes_status_survives_an_administrators_update(
    store: MemoryDatastore, resources: api.ResourceAPI
) -> None:
    key = "/calico/resources/v3/projectcalico.org/nodes/n1"
    node = {"kind": "Node", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "n1"}}
    store.put(key, json.dumps({**node, "spec": {}, "status": {"wireguardPublicKey": "k"}}).encode())
    document = {**node, "spec": {"bgp": {"asNumber": 65001}}}
    await resources.write(api.Verb.APPLY, api.Manifest(json.dumps(document).encode()))
    after = json.loads(store.value(key) or b"")
    assert after["status"] == {"wireguardPublicKey": "k"}
    assert after["spec"]["bgp"]["asNumber"] == 65001


async def test_deleting_with_a_revision_deletes_only_that_one(
    store: MemoryDatastore, resources: api.ResourceAPI
) -> None:
    written = await resources.write(api.Verb.CREATE, manifest())
    await resources.write(api.Verb.APPLY, manifest(nets=["10.0.0.0/8"]))
    with pytest.raises(ConflictError):
        await resources.delete("GlobalNetworkSet", "", "s", revision=written.resource.revision)
    await resources.delete("GlobalNetworkSet", "", "s")
    with pytest.raises(NotFoundError):
        await resources.delete("GlobalNetworkSet", "", "s")


async def test_a_pool_is_disabled_before_its_blocks_are_given_back(store: MemoryDatastore) -> None:
    seen = []

    async def release_pool(cidr: object) -> None:
        pool = json.loads(store.value("/calico/resources/v3/projectcalico.org/ippools/p") or b"")
        seen.append((str(cidr), pool["spec"]["disabled"]))

    async def remove_node(name: str) -> None:
        raise AssertionError(name)

    resources = ResourceStore(store, remove_node, release_pool)
    document = b"{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: p}, spec: {cidr: 10.65.0.0/16}}"
    await resources.write(api.Verb.CREATE, api.Manifest(document))
    await resources.delete("IPPool", "", "p")
    assert seen == [("10.65.0.0/16", True)]
    assert store.items("/calico/resources") == {}


async def test_a_watch_goes_on_after_compaction_with_only_the_difference(
    store: MemoryDatastore, resources: api.ResourceAPI
) -> None:
    await resources.write(api.Verb.CREATE, manifest())
    store.put(KEY + "-gone", store.value(KEY) or b"")
    async with aclosing(resources.watch("GlobalNetworkSet")) as changes:
        first = [await asyncio.wait_for(anext(changes), 5) for _ in range(3)]
        assert [change.type.value for change in first] == ["ADDED", "ADDED", "IN_SYNC"]
        # The watch has not begun: what happens now is compacted before it does.
        store.remove(KEY + "-gone")
        await resources.write(api.Verb.APPLY, manifest(nets=["10.0.0.0/8"]))
        store.compact()
        later = [await asyncio.wait_for(anext(changes), 5) for _ in range(2)]
        assert [change.type.value for change in later] == ["DELETED", "MODIFIED"]


async def test_a_watch_ends_when_the_datastore_is_lost(store: MemoryDatastore, resources: api.ResourceAPI) -> None:
    async with aclosing(resources.watch("GlobalNetworkSet")) as changes:
        assert (await anext(changes)).type is api.ChangeType.IN_SYNC
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        store.disconnect()
        with pytest.raises(DatastoreUnavailableError):
            await asyncio.wait_for(waiting, 5)
