"""Labs that the tests of a group share: each is built once a worker and taken down at its end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import pytest

from lab import fabric, status, workloads
from lab.netns import CommandError, NetNs
from lab.state import Lab, Workload, load
from lab.tour import tour


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows its lab as it is then: sessions, routes, workloads, and every host's IPv6 from the kernel."""
    report = yield
    if report.when == "call" and report.failed:
        for lab in (value for value in item.funcargs.values() if isinstance(value, Lab)):
            report.sections.append((f"lab {lab.name}", status.tables(status.collect(lab))))
            for host in lab.topology.hosts:
                said = [lab.netns(host.name).ip("-6", what, "show") for what in ("route", "neighbour")]
                report.sections.append((f"IPv6 of {host.name}", "\n".join(said)))
    return report


def _progress(text: str) -> None:
    print(text)


def lab_name(short: str) -> str:
    """Of at most 12 letters and digits, and of this process alone."""
    return f"{short}{os.getpid()}"


@contextmanager
def shared(short: str, topology: str, nodes: int) -> Iterator[Lab]:
    lab = fabric.up(lab_name(short), topology, nodes, _progress)
    try:
        yield lab
    finally:
        fabric.down(lab)


@pytest.fixture(scope="session")
def flat() -> Iterator[Lab]:
    with shared("flat", "flat", 3) as lab:
        yield lab


@pytest.fixture(scope="session")
def racks() -> Iterator[Lab]:
    with shared("rack", "racks", 4) as lab:
        yield lab


@pytest.fixture(scope="session")
def domains() -> Iterator[Lab]:
    with shared("dom", "domains", 6) as lab:
        yield lab


WorkloadFactory = Callable[..., Workload]


@pytest.fixture
def workload(request: pytest.FixtureRequest) -> Iterator[WorkloadFactory]:
    """`workload(lab, node, name, **options)`: gone after the test."""
    made: list[tuple[Lab, Workload]] = []

    def make(lab: Lab, node: str, name: str, **options: object) -> Workload:
        made.append((lab, workloads.add(lab, node, name, **options)))  # type: ignore[arg-type]
        return made[-1][1]

    yield make
    for lab, one in made:
        if one in lab.state.workloads:
            workloads.delete(lab, one)


def answers(source: NetNs, address: str, *, wait_s: int = 1) -> bool:
    """One ping."""
    try:
        source.run(["ping", "-c", "1", "-W", str(wait_s), address.partition("/")[0]])
    except CommandError:
        return False
    return True


def eventually(condition: Callable[[], object], timeout_s: float = 60, what: str = "") -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what or condition}"
        time.sleep(0.1)


def tour_goes_well(lab: Lab, steps: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The tour of a lab that is up shows so many steps and no failure; its workloads go again."""
    before = [(one.node, one.name) for one in lab.state.workloads]
    try:
        assert tour(lab.name, lab.topology.kind, len(lab.topology.nodes), print) == 0
        shown = capsys.readouterr().out
        assert "FAILED" not in shown
        assert shown.count("  ok ") == steps
    finally:
        lab.state.workloads = load(lab.name).state.workloads
        for one in [one for one in lab.state.workloads if (one.node, one.name) not in before]:
            workloads.delete(lab, one)
