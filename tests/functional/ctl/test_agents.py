"""weftctl against agents on unix sockets: the same answers as with etcd alone, and the state of the node."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from tests.functional.ctl.conftest import MANIFESTS, Weftctl
from weft.admin import status as values
from weft.admin.server import AdminServer, AdminService
from weft.admin.services.datastore import datastore_services
from weft.admin.services.status import StatusServer
from weft.config import EtcdConfig
from weft.datastore.etcd import EtcdDatastore

FELIX = values.NodeStatus(
    node="n1",
    agent=values.AgentStatus("felix", "0.1.0", 41, 1.0, True, True),
    endpoints=(
        values.EndpointStatus(
            namespace="default",
            name="n1-cni-c1-eth0",
            workload="c1",
            interface="calic1",
            addresses=(ip_address("10.65.0.1"),),
            policies=("default/allow",),
            profiles=("net",),
        ),
        values.EndpointStatus(
            namespace="", name="n1-eth0", workload="", interface="eth0", addresses=(), policies=("web", "early")
        ),
    ),
    notices=(values.Notice(values.Severity.NOT_ENFORCED, "IPPool/vx", "vxlanMode Always is not enforced"),),
)
BIRD = values.NodeStatus(
    node="n1",
    agent=values.AgentStatus("bird-agent", "0.1.0", 42, 1.0, False, False, "connection refused"),
    sessions=(
        values.SessionStatus(
            ip_address("10.0.0.2"), 64512, 64512, values.SessionType.NODE_TO_NODE_MESH, "Established", 1.0
        ),
        values.SessionStatus(
            ip_address("10.0.0.9"), 64567, 64512, values.SessionType.GLOBAL, "Active", last_error="hold timer expired"
        ),
    ),
    routes=(
        values.RouteStatus(
            ip_network("10.65.1.0/26"),
            (values.NextHop(ip_address("10.0.0.2"), "eth0"),),
            values.RouteOrigin.BGP,
            peers=("10.0.0.2",),
        ),
        values.RouteStatus(ip_network("10.65.0.0/26"), (values.NextHop(None, ""),), values.RouteOrigin.BLOCK),
    ),
)


class Fixed:
    def __init__(self, status: values.NodeStatus) -> None:
        self._status = status

    def node_status(self) -> values.NodeStatus:
        return self._status


@contextmanager
def served(path: Path, services: Callable[[], Sequence[AdminService]]) -> Iterator[None]:
    """An agent's admin server in a thread of its own; `services` is called on its loop."""
    ready, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with AdminServer(path, services()):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)


@pytest.fixture
def agent(weftctl: Weftctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Weftctl]:
    """weftctl with an agent to ask and no etcd endpoints of its own."""
    config = EtcdConfig((os.environ["ETCD_ENDPOINTS"],))
    monkeypatch.delenv("ETCD_ENDPOINTS")
    stores: list[EtcdDatastore] = []

    def services() -> list[AdminService]:
        stores.append(EtcdDatastore(config))
        return datastore_services(stores[0])

    # Any agent may be asked for its part; one of them for what is in the datastore.
    with (
        served(tmp_path / "felix.sock", lambda: [StatusServer(Fixed(FELIX))]),
        served(tmp_path / "node.sock", services),
    ):
        yield weftctl


def test_an_agent_answers_as_etcd_does(agent: Weftctl) -> None:
    path = str(MANIFESTS / "pools.yaml")
    applied = agent("apply", "-f", path)
    assert (applied.code, applied.out) == (0, "Successfully applied 4 resource(s)\n"), applied.err
    assert "IPPool/overlay: ipipMode CrossSubnet is not enforced until overlays exist" in applied.err
    printed = agent("get", "pools", "-o", "yaml").out
    assert agent("replace", "-f", "-", stdin=printed).out == "Successfully replaced 3 'IPPool' resource(s)\n"
    assert "| IP Pool  | 10.65.0.0/16 |" in agent("ipam", "show").out
    assert agent("ipam", "configure", "--strictaffinity", "true").code == 0
    assert agent("ipam", "show", "--ip", "10.65.0.1").out == "10.65.0.1 is not assigned (reserved)\n"
    assert agent("get", "pool", "none").err == "resource does not exist: IPPool(none)\n"
    assert agent("delete", "-f", path).code == 0


def test_a_refusal_of_an_agent_names_file_document_field_value_and_what_would_be_right(
    agent: Weftctl, tmp_path: Path
) -> None:
    agent("apply", "-f", str(MANIFESTS / "pools.yaml"))
    file = tmp_path / "bad.yaml"
    text = (MANIFESTS / "pools.yaml").read_text().replace("10.66.0.0/16", "10.67.0.0/16")
    file.write_text(text)
    refused = agent("apply", "-f", str(file))
    assert refused.code == 1
    assert (
        f"{file}, document 2: spec.cidr: '10.67.0.0/16' is not valid: "
        "10.66.0.0/16: the CIDR of a pool cannot be modified"
    ) in refused.err


def test_node_status_joins_the_agents_and_names_the_one_that_does_not_answer(agent: Weftctl, tmp_path: Path) -> None:
    alone = agent("node", "status")
    assert alone.code == 1
    assert f"bird-agent does not answer on {tmp_path}/bird-agent.sock: No such file or directory" in alone.err
    with served(tmp_path / "bird-agent.sock", lambda: [StatusServer(Fixed(BIRD))]):
        both = agent("node", "status")
        assert both.code == 0, both.err
        assert "| 10.0.0.2     | node-to-node mesh | up    | 1970-01-01 | Established               |" in both.out
        assert "| 10.0.0.9     | global            | start | -          | Active hold timer expired |" in both.out
        assert "No IPv6 peers found." in both.out
        assert "10.65.0.0/26   blackhole               block" in both.out
        assert "10.65.1.0/26   via 10.0.0.2 dev eth0   bgp      10.0.0.2             yes" in both.out
        assert "default     c1         calic1      10.65.0.1   up      default/allow" in both.out
        assert "n1-eth0   eth0        up      web,early" in both.out
        assert "Not enforced: IPPool/vx: vxlanMode Always is not enforced" in both.out
        assert "not connected: connection refused" in both.out
        tree = json.loads(agent("node", "status", "-o", "json").out)
    assert [session["state"] for session in tree["sessions"]] == ["Established", "Active"]
    assert [one["name"] for one in tree["notAnswering"]] == ["node"]
    assert "Method not found" in tree["notAnswering"][0]["reason"]
    assert [one["name"] for one in tree["endpoints"]] == ["n1-cni-c1-eth0"]
    assert [one["name"] for one in tree["hostEndpoints"]] == ["n1-eth0"]
    assert tree["routes"][0]["nextHops"] == [{"gateway": "10.0.0.2", "interface": "eth0"}]


def test_the_version_of_the_cluster_is_its_own_statement(agent: Weftctl) -> None:
    assert agent("version", "--client").out.startswith("Client Version:    0.")
    missing = agent("version")
    assert missing.code == 1
    assert "Unable to retrieve Cluster Version or Type" in missing.err
