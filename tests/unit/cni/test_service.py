"""What each command does, in which order, and what is left when something fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from felix.cni.protocol import CNIError, Code
from tests.unit.cni.node import FakeNode, namespace
from weft.model import keys
from weft.model.base import Metadata
from weft.model.errors import DatastoreUnavailableError
from weft.model.keys import ResourceKey
from weft.model.node import ClusterInformation, ClusterInformationSpec

CONTAINER = "c0ffee0123456789"
POD = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_INFRA_CONTAINER_ID=c0ffee0123456789"
ENDPOINT = "default/n1-cni-c0ffee0123456789-eth0"
POD_ENDPOINT = "shop/n1-k8s-web--1-eth0"


@pytest.fixture(params=[True, False], ids=["transactions", "ordered"])
def node(request: pytest.FixtureRequest) -> FakeNode:
    return FakeNode(transactional=request.param)


@pytest.fixture
def netns() -> Iterator[int]:
    with namespace() as descriptor:
        yield descriptor


async def refused(call: Any) -> CNIError:
    with pytest.raises(CNIError) as error:
        await call
    return error.value


async def test_add_puts_everything_in_place(node: FakeNode, netns: int) -> None:
    result = await node.call("ADD", netns=netns)
    endpoint = node.endpoints()[ENDPOINT]
    (address,) = node.held()
    assert endpoint["spec"]["ipNetworks"] == [f"{address}/32"]
    assert endpoint["spec"]["profiles"] == ["net"]
    assert endpoint["spec"]["interfaceName"] == "calic0ffee01234"
    assert endpoint["metadata"]["labels"]["projectcalico.org/orchestrator"] == "cni"
    assert list(node.handles()) == [f"net.{CONTAINER}"]
    assert node.log == ["attach calic0ffee01234", "program calic0ffee01234"]
    assert result == {
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": "calic0ffee01234", "mac": "ee:ee:ee:ee:ee:ee"},
            {"name": "eth0", "mac": endpoint["spec"]["mac"], "sandbox": f"/run/netns/{CONTAINER}"},
        ],
        "ips": [{"interface": 1, "address": f"{address}/32"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
    }


async def test_a_warm_add_and_del_are_one_transaction_each(netns: int) -> None:
    node = FakeNode()
    await node.call("ADD", netns=netns, container="first1234567890")
    node.store.calls.clear()
    with namespace() as other:
        await node.call("ADD", netns=other)
        assert [op for op, _ in node.store.calls] == ["commit"]
        await node.call("DEL", netns=other)
    assert [op for op, _ in node.store.calls] == ["commit", "commit"]


async def test_the_profile_of_the_network_is_made_once(node: FakeNode, netns: int) -> None:
    await node.call("ADD", netns=netns)
    raw = node.store.value(keys.path(ResourceKey("Profile", "net")))
    assert raw is not None
    assert b'"labelsToApply":{"net":""}' in raw
    assert b'"ingress":[{"action":"Allow","source":{"selector":"has(net)"}' in raw
    node.store.calls.clear()
    await node.call("DEL", netns=netns)
    await node.call("ADD", netns=netns)
    assert "create" not in [op for op, _ in node.store.calls]


async def test_a_policy_type_leaves_profiles_to_somebody_else(node: FakeNode, netns: int) -> None:
    await node.call("ADD", netns=netns, policy={"type": "k8s"})
    assert "profiles" not in node.endpoints()[ENDPOINT]["spec"]
    assert node.store.value(keys.path(ResourceKey("Profile", "net"))) is None


async def test_del_takes_away_what_can_pass_traffic_first(node: FakeNode, netns: int) -> None:
    await node.call("ADD", netns=netns)
    node.log.clear()
    await node.call("DEL", netns=netns)
    assert node.log == ["unprogram calic0ffee01234", "detach calic0ffee01234"]
    assert node.is_clean()


async def test_del_is_idempotent_and_needs_no_namespace(node: FakeNode, netns: int) -> None:
    await node.call("DEL")
    await node.call("ADD", netns=netns)
    await node.call("DEL")
    await node.call("DEL")
    assert node.is_clean()


async def test_del_followed_at_once_by_the_same_add(node: FakeNode, netns: int) -> None:
    for _ in range(3):
        await node.call("ADD", netns=netns)
        await node.call("DEL", netns=netns)
    await node.call("ADD", netns=netns)
    assert len(node.held()) == 1


async def test_a_repeated_add_changes_nothing(node: FakeNode, netns: int) -> None:
    first = await node.call("ADD", netns=netns)
    node.store.calls.clear()
    assert await node.call("ADD", netns=netns) == first
    assert node.store.calls == []


async def test_concurrent_adds_of_one_container_make_one_endpoint(node: FakeNode, netns: int) -> None:
    first, second = await asyncio.gather(node.call("ADD", netns=netns), node.call("ADD", netns=netns))
    assert first == second
    assert len(node.held()) == 1


async def test_an_interface_that_somebody_else_made_is_an_error(node: FakeNode, netns: int) -> None:
    node.wiring.foreign.add((netns, "eth0"))
    error = await refused(node.call("ADD", netns=netns))
    assert error.code == Code.INTERFACE_EXISTS
    assert node.is_clean()


async def test_a_container_has_one_interface(node: FakeNode, netns: int) -> None:
    await node.call("ADD", netns=netns)
    error = await refused(node.call("ADD", netns=netns, ifname="eth1"))
    assert error.code == Code.INTERFACE_EXISTS
    assert len(node.endpoints()) == 1


async def test_a_host_interface_that_nobody_owns_gives_way(node: FakeNode, netns: int) -> None:
    await node.call("ADD", netns=netns)
    left = node.wiring.pairs["calic0ffee01234"]
    await node.call("DEL", netns=netns)
    node.wiring.pairs["calic0ffee01234"] = left
    await node.call("ADD", netns=netns)
    assert node.log[-3:] == ["detach calic0ffee01234", "attach calic0ffee01234", "program calic0ffee01234"]


@pytest.mark.parametrize("failure", ["wiring", "policy"])
async def test_a_half_done_add_leaves_nothing(node: FakeNode, netns: int, failure: str) -> None:
    node.wiring.failing = {"calic0ffee01234"} if failure == "wiring" else set()
    node.programmer.failing = failure == "policy"
    error = await refused(node.call("ADD", netns=netns))
    assert error.code == (Code.IO_FAILURE if failure == "wiring" else Code.TRY_AGAIN_LATER)
    assert node.is_clean()


async def test_a_lost_commit_unwinds_everything_and_is_tried_again(node: FakeNode, netns: int) -> None:
    await node.call("ADD", netns=netns, container="first1234567890")
    block = next(path for path in node.store.items(keys.block_prefix(4)))
    raw = node.store.value(block)
    assert raw is not None
    node.store.lose_race(block, raw)
    node.log.clear()
    with namespace() as other:
        await node.call("ADD", netns=other)
    assert node.log == [
        "attach calic0ffee01234",
        "program calic0ffee01234",
        "unprogram calic0ffee01234",
        "detach calic0ffee01234",
        "attach calic0ffee01234",
        "program calic0ffee01234",
    ]


async def test_an_unanswered_commit_is_error_11_and_leaves_no_interface(node: FakeNode, netns: int) -> None:
    await node.call("ADD", netns=netns, container="first1234567890")
    node.store.fail("commit", times=9)
    with namespace() as other:
        error = await refused(node.call("ADD", netns=other))
    assert error.code == Code.TRY_AGAIN_LATER
    assert list(node.wiring.pairs) == ["califirst123456"]


@pytest.mark.parametrize("write", range(1, 8))
async def test_an_agent_that_dies_during_add_is_made_good_by_the_next_add(netns: int, write: int) -> None:
    node = FakeNode(transactional=False)
    node.store.crash_before_write(write)
    try:
        await node.call("ADD", netns=netns)
    except BaseException:  # the agent is gone, whatever it said last
        node.restart()
    await node.call("ADD", netns=netns)
    assert len(node.held()) == 1
    assert len(node.endpoints()) == len(node.wiring.pairs) == len(node.programmer.programmed) == 1
    await node.call("DEL", netns=netns)
    assert node.is_clean()


async def test_a_restarted_agent_deletes_what_its_forerunner_added(node: FakeNode, netns: int) -> None:
    await node.call("ADD", netns=netns)
    node.restart()
    await node.call("DEL", netns=netns)
    assert node.is_clean()


async def test_a_kubernetes_pod_has_calicos_names(node: FakeNode, netns: int) -> None:
    await node.call("ADD", netns=netns, cni_args=POD)
    endpoint = node.endpoints()[POD_ENDPOINT]
    assert endpoint["spec"]["pod"] == "web-1"
    assert endpoint["spec"]["orchestrator"] == "k8s"
    assert endpoint["spec"]["interfaceName"].startswith("cali")
    assert len(endpoint["spec"]["interfaceName"]) == 15
    (block,) = node.store.items(keys.block_prefix(4)).values()
    assert b'"namespace":"shop"' in block
    assert b'"pod":"web-1"' in block


async def test_a_new_sandbox_of_a_pod_takes_over_and_the_old_ones_del_leaves_it(node: FakeNode, netns: int) -> None:
    await node.call("ADD", netns=netns, cni_args=POD)
    with namespace() as other:
        await node.call("ADD", netns=other, cni_args=POD, container="feedface")
        await node.call("DEL", netns=netns, cni_args=POD)
    assert node.endpoints()[POD_ENDPOINT]["spec"]["containerID"] == "feedface"
    assert list(node.handles()) == ["net.feedface"]
    assert len(node.wiring.pairs) == 1


async def test_arguments_carry_namespace_workload_and_labels(node: FakeNode, netns: int) -> None:
    labels = [{"key": "app", "value": "web"}, {"key": "example.com/tier", "value": "front"}]
    mesos = {"network_info": {"labels": {"labels": [{"key": "a/b c", "value": "x"}]}}}
    await node.call(
        "ADD",
        netns=netns,
        cni_args="WEFT_NAMESPACE=shop;WEFT_WORKLOAD=web",
        args={"cni": {"labels": labels}, "org.apache.mesos": mesos},
    )
    endpoint = node.endpoints()[f"shop/n1-cni-{CONTAINER}-eth0"]
    assert endpoint["spec"]["workload"] == "web"
    assert endpoint["metadata"]["labels"] == {
        "app": "web",
        "example.com/tier": "front",
        "a.b-c": "x",
        "projectcalico.org/namespace": "shop",
        "projectcalico.org/orchestrator": "cni",
    }


async def test_both_families_on_request(node: FakeNode, netns: int) -> None:
    ipam = {"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "true"}
    result = await node.call("ADD", netns=netns, ipam=ipam)
    assert [ip["address"].partition("/")[2] for ip in result["ips"]] == ["32", "128"]
    assert [route["dst"] for route in result["routes"]] == ["0.0.0.0/0", "::/0"]


@pytest.mark.parametrize(
    ("args", "configuration"),
    [
        pytest.param("IP=10.65.0.77", {}, id="CNI_ARGS"),
        pytest.param("", {"runtimeConfig": {"ips": ["10.65.0.77/24"]}}, id="capability"),
        pytest.param(
            "",
            {
                "runtimeConfig": {
                    "io.kubernetes.cri.pod-annotations": {"cni.projectcalico.org/ipAddrs": '["10.65.0.77"]'}
                }
            },
            id="annotation",
        ),
    ],
)
async def test_a_specific_address_is_given(node: FakeNode, netns: int, args: str, configuration: Any) -> None:
    result = await node.call("ADD", netns=netns, cni_args=args, **configuration)
    assert result["ips"][0]["address"] == "10.65.0.77/32"
    with namespace() as other:
        error = await refused(node.call("ADD", netns=other, container="feedface", cni_args=args, **configuration))
    assert error.code == Code.NO_ADDRESS
    assert list(node.handles()) == [f"net.{CONTAINER}"]


async def test_a_pool_is_asked_for_by_name_or_prefix(node: FakeNode, netns: int) -> None:
    error = await refused(node.call("ADD", netns=netns, ipam={"ipv4_pools": ["10.9.0.0/16"]}))
    assert error.code == Code.NO_ADDRESS
    await node.call("ADD", netns=netns, ipam={"ipv4_pools": ["v4"]})


async def test_check_compares_the_kernel_with_the_result_of_add(node: FakeNode, netns: int) -> None:
    result = await node.call("ADD", netns=netns)
    await node.call("CHECK", netns=netns, prevResult=result)
    assert (await refused(node.call("CHECK", netns=netns))).code == Code.INVALID_CONFIGURATION
    other = {**result, "ips": [{"address": "10.65.0.99/32"}]}
    assert (await refused(node.call("CHECK", netns=netns, prevResult=other))).code == Code.CHECK_FAILED
    node.wiring.pairs.clear()
    assert (await refused(node.call("CHECK", netns=netns, prevResult=result))).code == Code.CHECK_FAILED
    assert (await refused(node.call("CHECK", netns=netns, container="feed"))).code == Code.UNKNOWN_CONTAINER


async def test_gc_removes_what_is_not_attached_any_more(node: FakeNode, netns: int) -> None:
    await node.call("ADD", netns=netns)
    with ExitStack() as stack:
        for container, network in (("dead0000", "net"), ("dead1111", "net"), ("other000", "net.b")):
            await node.call("ADD", netns=stack.enter_context(namespace()), container=container, name=network)
    node.store.remove(keys.path(ResourceKey("WorkloadEndpoint", "n1-cni-dead1111-eth0", "default")))
    node.restart()
    valid = [{"containerID": CONTAINER, "ifname": "eth0"}]
    await node.call("GC", cniVersion="1.1.0", **{"cni.dev/valid-attachments": valid})
    assert set(node.handles()) == {f"net.{CONTAINER}", "net.b.other000"}
    assert len(node.endpoints()) == 2


async def test_gc_without_a_list_removes_nothing(node: FakeNode, netns: int) -> None:
    await node.call("ADD", netns=netns)
    error = await refused(node.call("GC", cniVersion="1.1.0"))
    assert error.code == Code.INVALID_CONFIGURATION
    assert len(node.endpoints()) == 1
    await node.call("GC", cniVersion="1.1.0", **{"cni.dev/valid-attachments": []})
    assert node.is_clean()


@pytest.mark.parametrize("command", ["ADD", "DEL", "GC"])
async def test_nothing_is_changed_while_the_datastore_is_not_ready(node: FakeNode, netns: int, command: str) -> None:
    node.put(ClusterInformation(metadata=Metadata(name="default"), spec=ClusterInformationSpec(datastore_ready=False)))
    version = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
    assert (await refused(node.call(command, netns=netns, **version))).code == Code.TRY_AGAIN_LATER
    assert (await refused(node.call("STATUS", **version))).code == Code.NOT_AVAILABLE


async def test_nothing_is_answered_before_the_datastore_has_been_read(node: FakeNode, netns: int) -> None:
    node.restart(in_sync=False)
    assert (await refused(node.call("ADD", netns=netns))).code == Code.TRY_AGAIN_LATER
    assert (await refused(node.call("DEL"))).code == Code.TRY_AGAIN_LATER
    node.restart()
    assert await node.call("STATUS", cniVersion="1.1.0") == {}


async def test_a_file_that_is_no_namespace_counts_as_none(node: FakeNode, netns: int) -> None:
    await node.call("ADD", netns=netns)
    with open("/dev/null") as file:
        error = await refused(node.call("ADD", netns=file.fileno(), container="feedface"))
        assert error.code == Code.INVALID_ENVIRONMENT
        await node.call("DEL", netns=file.fileno())
    assert node.is_clean()


async def test_a_datastore_that_does_not_answer_is_error_11_and_del_can_be_repeated(node: FakeNode, netns: int) -> None:
    await node.call("ADD", netns=netns)
    node.store.fail("commit", error=DatastoreUnavailableError("injected"))
    assert (await refused(node.call("DEL", netns=netns))).code == Code.TRY_AGAIN_LATER
    await node.call("DEL", netns=netns)
    assert node.is_clean()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"cni_args": "WEFT_NAMESPACE=Bad NS"}, "namespace", id="namespace"),
        pytest.param({"args": {"cni": {"labels": [{"key": "app", "value": "d b"}]}}}, "labels.app", id="label"),
    ],
)
async def test_what_no_manifest_could_say_of_an_endpoint_is_refused(
    node: FakeNode, netns: int, options: dict[str, Any], said: str
) -> None:
    error = await refused(node.call("ADD", netns=netns, **options))
    assert error.code == Code.INVALID_ENVIRONMENT
    assert said in str(error)
    assert await node.call("DEL", netns=netns, **options) == {}
    assert node.is_clean()
