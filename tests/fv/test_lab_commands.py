"""weft-lab's commands beside one another, interrupted, and given what makes no sense."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab import fabric, workloads
from lab.state import LABS, Lab, LabError, State, Workload, load
from tests.fv.conftest import lab_name

pytestmark = pytest.mark.root
WEFT_LAB = str(Path(sys.executable).parent / "weft-lab")


@pytest.fixture
def claimed() -> Iterator[Lab]:
    """A lab that is only written down."""
    lab = Lab(State(name=lab_name("note"), topology="flat", nodes=1))
    lab.claim()
    try:
        yield lab
    finally:
        fabric.down(lab)


def test_commands_at_the_same_time_lose_nothing_of_one_another(claimed: Lab) -> None:
    def change(number: int) -> None:
        with load(claimed.name).changing() as state:
            state.workloads.append(Workload("node1", f"w{number}", "default", {}, "", []))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(40)))
    assert {one.name for one in load(claimed.name).state.workloads} == {f"w{number}" for number in range(40)}


def test_a_lab_is_started_once_however_many_start_it(claimed: Lab) -> None:
    with pytest.raises(LabError, match="is up already"):
        Lab(State(name=claimed.name, topology="flat", nodes=1)).claim()
    with pytest.raises(LabError, match="is up already"):
        fabric.up(claimed.name, "flat", 1, lambda text: None)


def test_a_workload_for_a_lab_that_is_taken_down_meanwhile_is_refused_and_leaves_nothing(claimed: Lab) -> None:
    stale = load(claimed.name)
    fabric.down(claimed)
    with pytest.raises(LabError, match="taken down meanwhile"):
        workloads.add(stale, "node1", "late")
    assert not stale.workload_netns("node1", "late").exists()
    assert not (LABS / claimed.name).exists()


def test_a_workload_that_cannot_start_is_forgotten(claimed: Lab) -> None:
    with pytest.raises(LabError, match=r"CNI ADD of node1/w: weft-felix does not answer, try again later \(code 11\)"):
        workloads.add(claimed, "node1", "w")
    assert not claimed.workload_netns("node1", "w").exists()
    assert not load(claimed.name).state.workloads


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        pytest.param("a" * 64, {}, "1 to 63 letters", id="long name"),
        pytest.param("../x", {}, "1 to 63 letters", id="path"),
        pytest.param("w", {"namespace": "Bad NS"}, "--namespace: 'Bad NS' is not valid", id="namespace"),
        pytest.param("w", {"labels": {"a b": "c"}}, "--labels: 'a b' is not valid", id="label name"),
        pytest.param("w", {"labels": {"app": "d b"}}, "--labels.app: 'd b' is not valid", id="label value"),
        pytest.param("client", {}, "the name is taken", id="name of a host"),
    ],
)
def test_what_makes_no_workload_is_refused_in_words(
    claimed: Lab, name: str, options: dict[str, object], said: str
) -> None:
    with pytest.raises(LabError, match=said):
        workloads.add(claimed, "node1", name, **options)  # type: ignore[arg-type]
    assert not load(claimed.name).state.workloads


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_start_that_is_interrupted_leaves_nothing(number: signal.Signals) -> None:
    name = lab_name("cut")
    # Whoever runs the tests may have these ignored (nohup, a background job).
    command = ["env", "--default-signal=INT,TERM,HUP", WEFT_LAB, "up", "--name", name, "--nodes", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as started:
        assert started.stderr is not None
        for line in started.stderr:
            if "etcd ..." in line:
                break
        time.sleep(0.2)
        started.send_signal(number)
        assert started.wait(timeout=60) == 130
    lab = Lab(State(name=name, topology="flat", nodes=1))
    assert not [host.name for host in lab.topology.hosts if lab.netns(host.name).exists()]
    assert not (LABS / name).exists()
