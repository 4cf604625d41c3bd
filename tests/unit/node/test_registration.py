"""What is registered, kept, refused and said."""

import json
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from tests.fakes.datastore import MemoryDatastore
from weft.config import AgentConfig
from weft.model import codec, keys
from weft.model.errors import ConflictError, ValidationError
from weft.model.keys import ResourceKey
from weft.model.node import Node
from weft.node.autodetect import HostInterface
from weft.node.registration import AddressConflictError, Registrar

ETH0 = HostInterface(2, "eth0", (ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64")))
ETH1 = HostInterface(3, "eth1", (ip_interface("10.1.0.1/24"),))
PATH = keys.path(ResourceKey("Node", "node-1"))


def registrar(store: MemoryDatastore, *interfaces: HostInterface, **env: str) -> Registrar:
    config = AgentConfig.from_environ({"NODENAME": "node-1", **env})
    return Registrar(store, config, lambda: interfaces or (ETH0,), lambda destination, version: ip_address("10.0.0.1"))


def stored(store: MemoryDatastore, name: str = "node-1") -> Node:
    key = ResourceKey("Node", name)
    raw = store.value(keys.path(key))
    assert raw is not None
    node = codec.decode_stored(key, raw)
    assert isinstance(node, Node)
    return node


def put_node(store: MemoryDatastore, name: str, **spec: Any) -> int:
    document = {
        "kind": "Node",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name, "labels": {"rack": "a"}},
        "spec": spec,
    }
    return store.put(keys.path(ResourceKey("Node", name)), json.dumps(document).encode())


def addresses(node: Node) -> tuple[str | None, str | None]:
    bgp = node.spec.bgp
    assert bgp is not None
    return tuple(None if one is None else str(one) for one in (bgp.ipv4_address, bgp.ipv6_address))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("env", "before", "after"),
    [
        ({}, None, ("10.0.0.1/24", None)),
        ({"IP": "autodetect", "IP6": "autodetect"}, None, ("10.0.0.1/24", "fd00::1/64")),
        ({"IP": "none", "IP6": "autodetect"}, None, (None, "fd00::1/64")),
        ({"IP": "10.0.0.1"}, None, ("10.0.0.1/24", None)),
        ({"IP": "10.0.0.1/16"}, None, ("10.0.0.1/16", None)),
        ({"IP": "10.9.9.9"}, None, ("10.9.9.9/32", None)),
        ({}, "10.7.7.7/24", ("10.7.7.7/24", None)),
        ({"IP": "autodetect"}, "10.7.7.7/24", ("10.0.0.1/24", None)),
        ({"IP": "none"}, "10.7.7.7/24", ("10.7.7.7/24", None)),
        ({"IP": "autodetect", "IP_AUTODETECTION_METHOD": "interface=wlan0"}, "10.7.7.7/24", ("10.7.7.7/24", None)),
    ],
    ids=[
        "IPv4 is detected when nothing is known",
        "both when asked",
        "IPv6 alone",
        "given without a prefix",
        "given with a prefix",
        "given and on no interface",
        "a stored address is kept",
        "a stored address is replaced by a detected one when asked",
        "none keeps what is stored",
        "a failed detection keeps what is stored",
    ],
)
async def test_addresses_are_decided_as_calico_does(
    env: dict[str, str], before: str | None, after: tuple[str | None, str | None]
) -> None:
    store = MemoryDatastore()
    if before:
        put_node(store, "node-1", bgp={"ipv4Address": before})
    await registrar(store, **env).register()
    assert addresses(stored(store)) == after


async def test_what_others_wrote_into_the_node_is_kept() -> None:
    store = MemoryDatastore()
    put_node(
        store,
        "node-1",
        bgp={"ipv4Address": "10.7.7.7/24", "routeReflectorClusterID": "1.0.0.1", "ofTomorrow": 1},
        ipv4VXLANTunnelAddr="10.65.0.9",
        futureField={"a": [1]},
    )
    await registrar(store, IP="autodetect", AS="64999").register()
    raw = json.loads(store.value(PATH) or b"")
    assert raw["spec"]["bgp"] == {
        "ipv4Address": "10.0.0.1/24",
        "asNumber": 64999,
        "routeReflectorClusterID": "1.0.0.1",
        "ofTomorrow": 1,
    }
    assert raw["spec"]["ipv4VXLANTunnelAddr"] == "10.65.0.9"
    assert raw["spec"]["futureField"] == {"a": [1]}
    assert raw["metadata"]["labels"] == {"rack": "a"}


async def test_an_as_number_that_nobody_gave_is_left_as_it_is() -> None:
    store = MemoryDatastore()
    put_node(store, "node-1", bgp={"asNumber": 65001})
    await registrar(store).register()
    bgp = stored(store).spec.bgp
    assert bgp is not None
    assert bgp.as_number == 65001


async def test_registering_again_writes_nothing() -> None:
    store = MemoryDatastore()
    one = registrar(store)
    await one.register()
    revision = store.revision
    await one.register()
    assert store.revision == revision


async def test_a_changed_address_is_registered_at_the_next_check() -> None:
    store = MemoryDatastore()
    await registrar(store, IP="autodetect").register()
    moved = HostInterface(2, "eth0", (ip_interface("10.0.0.77/24"),))
    await registrar(store, moved, IP="autodetect").register()
    assert addresses(stored(store))[0] == "10.0.0.77/24"


@pytest.mark.parametrize(
    ("theirs", "taken"),
    [({"ipv4Address": "10.0.0.1/16"}, "10.0.0.1"), ({"ipv6Address": "fd00::1/128"}, "fd00::1")],
    ids=["IPv4", "IPv6"],
)
async def test_an_address_of_another_node_is_refused_with_its_name(theirs: dict[str, str], taken: str) -> None:
    store = MemoryDatastore()
    put_node(store, "node-2", bgp=theirs)
    with pytest.raises(AddressConflictError) as refused:
        await registrar(store, IP="autodetect", IP6="autodetect").register()
    assert (refused.value.other, str(refused.value.address)) == ("node-2", taken)
    assert f"{taken} is already in use by node node-2" in str(refused.value)
    assert store.value(PATH) is None


async def test_the_check_for_conflicts_can_be_turned_off() -> None:
    store = MemoryDatastore()
    put_node(store, "node-2", bgp={"ipv4Address": "10.0.0.1/16"})
    await registrar(store, DISABLE_NODE_IP_CHECK="true").register()
    assert addresses(stored(store))[0] == "10.0.0.1/24"


async def test_of_two_nodes_that_register_one_address_at_once_the_later_yields() -> None:
    store = MemoryDatastore()

    def other_comes_first(_: object) -> None:
        store.before_write = None
        put_node(store, "node-2", bgp={"ipv4Address": "10.0.0.1/24"})

    store.before_write = other_comes_first
    with pytest.raises(AddressConflictError):
        await registrar(store, IP="autodetect", IP6="autodetect").register()
    assert addresses(stored(store)) == (None, "fd00::1/64")


async def test_of_two_nodes_that_register_one_address_at_once_the_earlier_stays() -> None:
    store = MemoryDatastore()
    await registrar(store).register()
    put_node(store, "node-2", bgp={"ipv4Address": "10.0.0.1/24"})
    await registrar(store).register()
    assert addresses(stored(store))[0] == "10.0.0.1/24"


async def test_a_write_by_somebody_else_between_reading_and_writing_is_kept() -> None:
    store = MemoryDatastore()
    put_node(store, "node-1")
    theirs = json.loads(store.value(PATH) or b"")
    theirs["metadata"]["labels"] = {"rack": "b"}
    store.lose_race(PATH, json.dumps(theirs).encode())
    await registrar(store).register()
    node = stored(store)
    assert node.metadata.labels == {"rack": "b"}
    assert addresses(node)[0] == "10.0.0.1/24"


async def test_a_node_that_changes_all_the_time_is_given_up_on() -> None:
    store = MemoryDatastore()
    put_node(store, "node-1")

    def touch(_: object) -> None:
        store.put(PATH, store.value(PATH) or b"")

    store.before_write = touch
    with pytest.raises(ConflictError):
        await registrar(store).register()


async def test_ambiguity_and_failures_are_told() -> None:
    store = MemoryDatastore()
    registration = await registrar(
        store, ETH0, ETH1, IP6="autodetect", IP6_AUTODETECTION_METHOD="interface=x"
    ).register()
    assert "10.1.0.1/24 on eth1" in registration.notices[0]
    assert "no IPv6 address fits" in registration.errors[0]
    registration = await registrar(store, IP="10.8.8.8").register()
    assert "no interface of this host has the address 10.8.8.8/32 (given by IP)" in registration.notices[0]


async def test_kubernetes_internal_ip_comes_from_the_node_or_the_environment() -> None:
    store = MemoryDatastore()
    env = {"IP": "autodetect", "IP_AUTODETECTION_METHOD": "kubernetes-internal-ip"}
    await registrar(store, ETH0, ETH1, WEFT_INTERNAL_IP="10.0.0.1,fd00::1", **env).register()
    assert addresses(stored(store))[0] == "10.0.0.1/24"
    put_node(store, "node-1", addresses=[{"address": "10.1.0.1", "type": "InternalIP"}])
    await registrar(store, ETH0, ETH1, **env).register()
    assert addresses(stored(store))[0] == "10.1.0.1/24"


async def test_a_stored_node_that_cannot_be_read_is_not_written_over() -> None:
    store = MemoryDatastore()
    store.put(PATH, b"{")
    with pytest.raises(ValidationError):
        await registrar(store).register()
    assert store.value(PATH) == b"{"
