"""The real plugin program, agent, etcd and kernel: what a runtime sees, and what is left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab import process
from lab.netns import NetNs
from tests.functional.cni.live import PLUGIN, LiveNode, PluginError, live_node
from weft.model import keys
from weft.model.base import Metadata
from weft.model.node import ClusterInformation, ClusterInformationSpec

pytestmark = pytest.mark.root
CONTAINER = "c0ffee0123456789"
BOTH = {"type": "weft-ipam", "assign_ipv4": "true", "assign_ipv6": "true"}


@pytest.fixture(scope="module")
def machine() -> Iterator[LiveNode]:
    netns = NetNs(f"weft-{os.getpid()}-cninode").create()
    try:
        with live_node(netns) as node:
            yield node
    finally:
        process.stop(process.in_netns(netns), grace_s=1)
        netns.delete()


@pytest.fixture
def node(machine: LiveNode) -> Iterator[LiveNode]:
    yield machine
    assert machine.leftovers() == {}, machine.log()
    assert machine.interfaces() == []


def ping(netns: NetNs, address: str) -> bool:
    done = subprocess.run(netns.command(["ping", "-c1", "-W1", address]), capture_output=True, check=False)
    return done.returncode == 0


def test_two_containers_reach_each_other_over_both_families(node: LiveNode, netns: Callable[[str], NetNs]) -> None:
    one, two = netns("one"), netns("two")
    node.plugin("ADD", "container-one", one, ipam=BOTH)
    result = node.plugin("ADD", "container-two", two, ipam=BOTH)
    try:
        for ip in result["ips"]:
            assert ping(one, ip["address"].partition("/")[0]), node.log()
        node.plugin("CHECK", "container-two", two, ipam=BOTH, prevResult=result)
        assert two.ip_json("link", "show", "eth0")[0]["address"] == result["interfaces"][1]["mac"]
    finally:
        node.plugin("DEL", "container-one", one)
        node.plugin("DEL", "container-two", two)
    assert not any(one["ifname"] == "eth0" for one in two.ip_json("link"))


def test_del_followed_at_once_by_the_same_add(node: LiveNode, netns: Callable[[str], NetNs]) -> None:
    container = netns("again")
    for _ in range(5):
        node.plugin("ADD", CONTAINER, container)
        node.plugin("DEL", CONTAINER, container)


def test_del_is_idempotent_and_works_without_the_namespace(node: LiveNode, netns: Callable[[str], NetNs]) -> None:
    container = netns("gone")
    node.plugin("ADD", CONTAINER, container)
    container.delete()
    node.plugin("DEL", CONTAINER, container)
    node.plugin("DEL", CONTAINER, None)


def test_an_interface_that_is_there_already_is_an_error_and_nothing_is_left(
    node: LiveNode, netns: Callable[[str], NetNs]
) -> None:
    container = netns("taken")
    container.ip("link", "add", "eth0", "type", "veth", "peer", "name", "other")
    with pytest.raises(PluginError) as error:
        node.plugin("ADD", CONTAINER, container)
    assert error.value.code == 101


def test_forty_containers_at_once(node: LiveNode, netns: Callable[[str], NetNs]) -> None:
    containers = {f"many{i:02d}": netns(f"many{i:02d}") for i in range(40)}
    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lambda item: node.plugin("ADD", *item), containers.items()))
        assert len({result["ips"][0]["address"] for result in results}) == 40
        list(pool.map(lambda item: node.plugin("DEL", *item), containers.items()))


def test_two_adds_of_one_container_at_once_make_one_endpoint(node: LiveNode, netns: Callable[[str], NetNs]) -> None:
    container = netns("twice")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: node.plugin("ADD", CONTAINER, container), range(2))
    assert first == second
    assert len(node.stored(keys.prefix("WorkloadEndpoint"))) == 1
    node.plugin("DEL", CONTAINER, container)


def test_gc_takes_what_is_not_attached(node: LiveNode, netns: Callable[[str], NetNs]) -> None:
    keep, lose = netns("keep"), netns("lose")
    node.plugin("ADD", "keep0000", keep)
    node.plugin("ADD", "lose0000", lose)
    valid = [{"containerID": "keep0000", "ifname": "eth0"}]
    node.plugin("GC", "", None, cniVersion="1.1.0", **{"cni.dev/valid-attachments": valid})
    assert node.interfaces() == ["calikeep0000"]
    node.plugin("DEL", "keep0000", keep)


def test_an_agent_that_is_killed_comes_back_and_knows_its_workloads(
    node: LiveNode, netns: Callable[[str], NetNs]
) -> None:
    one, two = netns("before"), netns("after")
    result = node.plugin("ADD", "before00", one)
    node.kill_agent()
    with pytest.raises(PluginError) as error:
        node.plugin("ADD", "after000", two)
    assert error.value.answer["code"] == 11
    assert error.value.answer["cniVersion"] == "1.0.0"
    assert node.plugin("VERSION", "", None)["supportedVersions"][-1] == "1.1.0"
    node.start_agent()
    node.plugin("CHECK", "before00", one, prevResult=result)
    node.plugin("ADD", "after000", two)
    assert ping(two, result["ips"][0]["address"].partition("/")[0])
    node.plugin("DEL", "after000", two)
    node.plugin("DEL", "before00", one)


@pytest.mark.parametrize("delay_ms", [0, 1, 2, 3, 5])
def test_an_agent_killed_in_the_middle_of_an_add_loses_nothing(
    node: LiveNode, netns: Callable[[str], NetNs], delay_ms: int
) -> None:
    container = netns(f"mid{delay_ms}")
    agent = node.agent
    assert agent is not None
    killer = threading.Timer(delay_ms / 1000, agent.kill)
    killer.start()
    code = 0
    try:
        node.plugin("ADD", CONTAINER, container)
    except PluginError as error:
        code = error.code
    assert code in (0, 11)
    killer.join()
    agent.wait()
    node.start_agent()
    node.plugin("ADD", CONTAINER, container)
    assert len(node.stored(keys.prefix("WorkloadEndpoint"))) == 1
    assert len(node.interfaces()) == 1
    node.plugin("DEL", CONTAINER, container)


def test_a_datastore_that_is_not_ready_refuses(node: LiveNode, netns: Callable[[str], NetNs]) -> None:
    container = netns("notready")

    def set_ready(ready: bool) -> None:
        spec = ClusterInformationSpec(datastore_ready=ready)
        node.put(ClusterInformation(metadata=Metadata(name="default"), spec=spec))
        time.sleep(0.3)

    set_ready(False)
    try:
        with pytest.raises(PluginError) as error:
            node.plugin("ADD", CONTAINER, container)
        assert error.value.code == 11
        with pytest.raises(PluginError) as error:
            node.plugin("STATUS", "", None, cniVersion="1.1.0")
        assert error.value.code == 50
    finally:
        set_ready(True)
    node.plugin("ADD", CONTAINER, container)
    node.plugin("DEL", CONTAINER, container)


def test_a_chain_with_a_reference_plugin_works(node: LiveNode, netns: Callable[[str], NetNs]) -> None:
    container = netns("chain")
    first = node.plugin("ADD", CONTAINER, container)
    tuning = {
        "cniVersion": "1.0.0",
        "name": "net",
        "type": "tuning",
        "sysctl": {"net.ipv4.conf.eth0.log_martians": "1"},
        "prevResult": first,
    }
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": CONTAINER,
        "CNI_NETNS": container.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/usr/lib/cni",
    }
    done = subprocess.run(
        ["/usr/lib/cni/tuning"], env=environment, input=json.dumps(tuning).encode(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["ips"] == first["ips"]
    node.plugin("DEL", CONTAINER, container)


class SlowAgent:
    """A socket that answers in pieces, or not at all."""

    def __init__(self, path: Path, answer: list[bytes]) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self.request = b""
        self._answer = answer
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            head = connection.recv(4, socket.MSG_WAITALL)
            self.request = connection.recv(int.from_bytes(head), socket.MSG_WAITALL)
            for part in self._answer:
                connection.sendall(part)
                time.sleep(0.02)
        self._listener.close()


def call_plugin(path: Path, raw: bytes, command: str = "ADD") -> tuple[int, Any]:
    environment = {"CNI_COMMAND": command, "CNI_CONTAINERID": "x", "WEFT_CNI_SOCKET": str(path)}
    done = subprocess.run([PLUGIN], env=environment, input=raw, capture_output=True, timeout=20, check=False)
    return done.returncode, json.loads(done.stdout)


def test_the_plugin_carries_megabytes_and_answers_in_pieces(tmp_path: Path) -> None:
    raw = b'{"cniVersion":"1.0.0","x":"' + b"y" * 3_000_000 + b'"}'
    body = json.dumps({"z": "w" * 200_000}).encode()
    answer = b"\1" + len(body).to_bytes(4) + body
    agent = SlowAgent(tmp_path / "s", [answer[:3], answer[3:1000], answer[1000:]])
    assert call_plugin(tmp_path / "s", raw) == (1, json.loads(body))
    agent.thread.join()
    assert agent.request == b"CNI_COMMAND=ADD\0CNI_CONTAINERID=x\0\0" + raw


@pytest.mark.parametrize("answer", [[], [b"\0\0\0"], [b"\0\0\0\0\xff{}"]], ids=["none", "half-a-head", "half-a-body"])
def test_an_agent_that_dies_while_answering_is_error_11(tmp_path: Path, answer: list[bytes]) -> None:
    agent = SlowAgent(tmp_path / "s", answer)
    status, error = call_plugin(tmp_path / "s", b'{"cniVersion" : "0.4.0"}')
    agent.thread.join()
    assert (status, error["code"], error["cniVersion"]) == (1, 11, "0.4.0")


def test_input_that_is_too_long_is_refused(tmp_path: Path) -> None:
    status, error = call_plugin(tmp_path / "s", b"x" * (5 << 20))
    assert (status, error["code"]) == (1, 6)


def test_a_caller_that_says_nothing_does_not_hold_up_others(node: LiveNode, netns: Callable[[str], NetNs]) -> None:
    silent = socket.socket(socket.AF_UNIX)
    silent.connect(str(node.socket))
    silent.send(b"\0\0")
    try:
        node.plugin("STATUS", "", None, cniVersion="1.1.0")
    finally:
        silent.close()
