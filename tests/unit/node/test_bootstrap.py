"""What a first start creates, and that it changes nothing that is there."""

import asyncio
import json
from typing import Any

import pytest

from tests.fakes.datastore import MemoryDatastore
from weft.config import AgentConfig
from weft.model import keys
from weft.model.keys import ResourceKey
from weft.node.bootstrap import prepare_datastore


def config(**env: str) -> AgentConfig:
    return AgentConfig.from_environ({"NODENAME": "n1", **env})


def document(store: MemoryDatastore, kind: str, name: str) -> dict[str, Any]:
    raw = store.value(keys.path(ResourceKey(kind, name)))
    assert raw is not None
    parsed: dict[str, Any] = json.loads(raw)
    return parsed


async def test_a_first_start_creates_what_calico_creates() -> None:
    store = MemoryDatastore()
    await prepare_datastore(store, config())
    information = document(store, "ClusterInformation", "default")
    guid = information["spec"].pop("clusterGUID")
    assert len(bytes.fromhex(guid)) == 16
    assert information["spec"] == {"datastoreReady": True}
    assert information["metadata"]["uid"]
    assert information["metadata"]["creationTimestamp"].endswith("Z")
    tiers = {name: document(store, "Tier", name)["spec"] for name in ("default", "kube-admin", "kube-baseline")}
    assert tiers == {
        "default": {"order": 1000000, "defaultAction": "Deny"},
        "kube-admin": {"order": 1000, "defaultAction": "Pass"},
        "kube-baseline": {"order": 10000000, "defaultAction": "Pass"},
    }
    assert document(store, "FelixConfiguration", "node.n1")["spec"] == {"defaultEndpointToHostAction": "Return"}
    assert store.items(keys.prefix("IPPool")) == {}


async def test_pools_are_created_where_they_are_asked_for() -> None:
    store = MemoryDatastore()
    env = {"CALICO_IPV4POOL_CIDR": "10.65.0.0/16", "CALICO_IPV6POOL_CIDR": "fd65::/64"}
    extra = {"CALICO_IPV4POOL_IPIP": "CrossSubnet", "CALICO_IPV6POOL_BLOCK_SIZE": "120"}
    await prepare_datastore(store, config(**env, **extra))
    ipv4 = document(store, "IPPool", "default-ipv4-ippool")["spec"]
    assert {name: ipv4[name] for name in ("cidr", "blockSize", "ipipMode", "vxlanMode", "natOutgoing")} == {
        "cidr": "10.65.0.0/16",
        "blockSize": 26,
        "ipipMode": "CrossSubnet",
        "vxlanMode": "Never",
        "natOutgoing": True,
    }
    assert ipv4["nodeSelector"] == "all()"
    ipv6 = document(store, "IPPool", "default-ipv6-ippool")["spec"]
    assert (ipv6["cidr"], ipv6["blockSize"], ipv6.get("natOutgoing", False)) == ("fd65::/64", 120, False)


@pytest.mark.parametrize(
    ("existing", "created"),
    [("192.168.0.0/16", []), ("fd00::/64", ["default-ipv4-ippool"])],
    ids=["a pool of that version is there", "a pool of the other version is there"],
)
async def test_a_default_pool_is_for_a_version_that_has_none(existing: str, created: list[str]) -> None:
    store = MemoryDatastore()
    mine = {"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "mine"}}
    store.put(keys.prefix("IPPool") + "mine", json.dumps(mine | {"spec": {"cidr": existing}}).encode())
    await prepare_datastore(store, config(CALICO_IPV4POOL_CIDR="10.65.0.0/16"))
    assert [path.rsplit("/")[-1] for path in store.items(keys.prefix("IPPool"))] == [*created, "mine"]


async def test_a_second_start_writes_nothing() -> None:
    store = MemoryDatastore()
    await prepare_datastore(store, config(CALICO_IPV4POOL_CIDR="10.65.0.0/16"))
    revision = store.revision
    await prepare_datastore(store, config(CALICO_IPV4POOL_CIDR="10.66.0.0/16"))
    assert store.revision == revision


async def test_many_first_starts_at_once_agree() -> None:
    store = MemoryDatastore()
    await asyncio.gather(*(prepare_datastore(store, config(NODENAME=f"n{number}")) for number in range(8)))
    assert len(store.items(keys.prefix("Tier"))) == 3
    assert len(store.items(keys.prefix("FelixConfiguration"))) == 8


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"datastoreReady": False, "clusterGUID": "x"}, {"datastoreReady": False, "clusterGUID": "x"}),
        (
            {"clusterGUID": "x", "calicoVersion": "v3.32.1", "new": 1},
            {"clusterGUID": "x", "calicoVersion": "v3.32.1", "new": 1, "datastoreReady": True},
        ),
    ],
    ids=["not ready stays so", "what is missing is added and nothing else touched"],
)
async def test_an_existing_cluster_is_completed(before: dict[str, Any], after: dict[str, Any]) -> None:
    store = MemoryDatastore()
    key = ResourceKey("ClusterInformation", "default")
    head = {"kind": "ClusterInformation", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "default"}}
    store.put(keys.path(key), json.dumps(head | {"spec": before}).encode())
    await prepare_datastore(store, config())
    assert document(store, "ClusterInformation", "default")["spec"] == after
