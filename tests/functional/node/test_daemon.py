"""weft-node as a process: its etcd, its agents, and what happens when any of them is killed."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import EtcdServer
from tests.functional.node.conftest import AGENT, WeftNode
from weft import singleton

Start = Callable[..., WeftNode]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_without_endpoints_a_node_runs_an_etcd_of_its_own_and_tells_its_agents(weft_node: Start) -> None:
    node = weft_node(IP="10.1.2.3/24", AS="64999", CALICO_IPV4POOL_CIDR="10.65.0.0/16")
    node.wait_until(node.running)
    assert node.addresses("n1") == ("10.1.2.3/24", "None")
    starts = node.starts()
    assert sorted(start.split()[0].rsplit("/")[-1] for start in starts) == ["weft-bird-agent", "weft-felix"]
    assert all(start.split()[1:] == ["n1", node.endpoints[0]] for start in starts)
    assert "no interface of this host has the address 10.1.2.3/24 (given by IP)" in node.log


def test_an_agent_that_is_killed_is_started_again_and_the_others_go_on(weft_node: Start) -> None:
    node = weft_node(IP="10.1.2.3/24")
    node.wait_until(node.running)
    before = node.pids()
    kill(before["felix"])
    node.wait_until(lambda: node.holder("felix") not in (None, before["felix"]), timeout_s=2)
    assert node.holder("bird-agent") == before["bird-agent"]
    assert "weft-felix: process was ended by SIGKILL, starting again now" in node.log


def test_an_etcd_that_is_killed_comes_back_with_its_data(weft_node: Start) -> None:
    node = weft_node(IP="10.1.2.3/24")
    node.wait_until(node.running)
    before, etcd = node.pids(), node.holder("etcd")
    kill(etcd)
    node.wait_until(lambda: node.node("n1") is not None)
    assert node.holder("etcd") != etcd
    assert node.pids() == before


def test_agents_survive_weft_node_and_the_next_one_adopts_them(weft_node: Start) -> None:
    node = weft_node(IP="10.1.2.3/24")
    node.wait_until(node.running)
    before = (node.pids(), node.holder("etcd"))
    node.signal(signal.SIGKILL)
    assert (node.pids(), node.holder("etcd")) == before
    node.start()
    node.wait_until(lambda: node.log.count("adopted process") == 3)
    assert (node.pids(), node.holder("etcd")) == before
    felix = before[0]["felix"]
    kill(felix)
    node.wait_until(lambda: node.holder("felix") not in (None, felix), timeout_s=2)
    node.wait_until(lambda: len(node.starts()) == 3)


@pytest.mark.root
def test_as_the_first_process_of_a_container_it_reaps_what_others_leave(tmp_path: Path) -> None:
    orphaning = AGENT.replace("while true", "(sleep 0.3 & sleep 0.1 &) ; while true")
    prefix = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    node = WeftNode(tmp_path, env={"NODENAME": "n1", "IP": "10.1.2.3/24"}, prefix=prefix, agent=orphaning).start()
    try:
        node.wait_until(node.running)
        felix = node.holder("felix")
        assert felix is not None
        first_process = parent_of(felix)
        time.sleep(0.6)
        assert zombies_of(first_process) == []
        kill(felix)
        node.wait_until(lambda: node.holder("felix") not in (None, felix), timeout_s=2)
        assert "was ended by SIGKILL" in node.log
    finally:
        node.signal(signal.SIGKILL)  # the whole PID namespace goes with it


def stat(pid: int) -> list[str]:
    """State, parent and the rest: what follows the name in proc_pid_stat(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def parent_of(pid: int) -> int:
    return int(stat(pid)[1])


def zombies_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            state, ppid, *_ = stat(int(entry.name)) if entry.name.isdigit() else ("", "0")
        except OSError:
            continue
        if state == "Z" and int(ppid) == parent:
            found.append(int(entry.name))
    return found


def test_told_to_end_it_stops_everything_in_order(weft_node: Start) -> None:
    node = weft_node(IP="10.1.2.3/24")
    node.wait_until(node.running)
    pids = [pid for pid in (*node.pids().values(), node.holder("etcd")) if pid is not None]
    assert node.signal(signal.SIGTERM) == 0
    assert (node.run_dir / "ends").read_text().split() == ["weft-felix", "weft-bird-agent"]
    assert not any(alive(pid) for pid in pids)


def test_a_second_weft_node_is_refused(weft_node: Start) -> None:
    first = weft_node(IP="10.1.2.3/24")
    first.wait_until(first.running)
    second = WeftNode(first.directory, env=first.env).start()
    assert second.process is not None
    assert second.process.wait(10) == singleton.EXIT_ALREADY_RUNNING
    assert first.process is not None
    assert f"weft-node: already running: {first.run_dir}/weft-node.lock is held by process {first.process.pid}" in (
        first.log
    )


def test_an_address_that_another_node_has_is_refused_and_no_agent_starts(weft_node: Start, etcd: EtcdServer) -> None:
    first = weft_node(IP="10.1.2.3/24", ETCD_ENDPOINTS=etcd.endpoint)
    first.wait_until(first.running)
    second = weft_node(NODENAME="n2", IP="10.1.2.3/16", ETCD_ENDPOINTS=etcd.endpoint)
    assert second.process is not None
    assert second.process.wait(10) == 1
    assert "the address 10.1.2.3 is already in use by node n1" in second.log
    assert not any(second.pids().values())
    assert second.node("n2") is None


def test_agents_start_without_the_datastore_too(weft_node: Start) -> None:
    node = weft_node(IP="10.1.2.3/24", ETCD_ENDPOINTS="127.0.0.1:1")
    node.wait_until(node.running, timeout_s=20)
    assert "datastore unavailable" in node.log


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"AS": "many"}, "weft-node: AS='many': expected 1 to 4294967295"),
        ({"IP": "autodetect", "PATH": "/nonexistent"}, "ETCD_ENDPOINTS is not set and no etcd program is installed"),
    ],
    ids=["a wrong setting", "no etcd anywhere"],
)
def test_what_cannot_work_is_said_at_once(weft_node: Start, env: dict[str, str], words: str) -> None:
    node = weft_node(**env)
    assert node.process is not None
    assert node.process.wait(10) == 1
    assert words in node.log
