"""The lab itself: what it refuses, and that a failure leaves nothing behind."""

from __future__ import annotations

import pytest

from lab import fabric, routers
from lab.routers import Program
from lab.state import LABS, Lab, LabError, State, load
from lab.topology import Host, Topology
from tests.fv.conftest import lab_name

pytestmark = pytest.mark.root


def test_a_lab_that_fails_half_way_names_the_step_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(topology: Topology, router: Host, directory: object) -> list[Program]:
        return [Program("bird", ("sh", "-c", "echo cannot parse this configuration; exit 1"))]

    monkeypatch.setattr(routers, "programs", broken)
    name = lab_name("half")
    with pytest.raises(LabError) as raised:
        fabric.up(name, "flat", 1, lambda text: None)
    assert "step 'routers' failed" in str(raised.value)
    assert "cannot parse this configuration" in str(raised.value)
    lab = Lab(State(name=name, topology="flat", nodes=1))
    assert not [host.name for host in lab.topology.hosts if lab.netns(host.name).exists()]
    assert not lab.fabric_netns().exists()
    assert not (LABS / name).exists()


@pytest.mark.parametrize(
    ("name", "topology", "nodes", "said"),
    [
        pytest.param("x", "ring", 3, "flat, racks or domains", id="unknown topology"),
        pytest.param("x", "flat", 0, "1 to 150", id="no nodes"),
        pytest.param("x", "racks", 3, "two racks of two nodes", id="racks of another size"),
        pytest.param("x", "domains", 4, "two of three nodes each", id="domains of another size"),
        pytest.param("Not A Name", "flat", 3, "lower-case letters and digits", id="name"),
    ],
)
def test_what_makes_no_lab_is_refused_with_what_would_be_right(name: str, topology: str, nodes: int, said: str) -> None:
    with pytest.raises(LabError, match=said):
        fabric.up(name, topology, nodes, lambda text: None)


def test_namespaces_of_the_same_name_are_not_built_over() -> None:
    lab = Lab(State(name=lab_name("own"), topology="flat", nodes=1))
    stranger = lab.netns("client").create()
    try:
        with pytest.raises(LabError, match="exist already"):
            fabric.up(lab.name, "flat", 1, lambda text: None)
        assert stranger.exists()
    finally:
        stranger.delete()


def test_a_lab_that_is_not_up_is_named_in_the_error() -> None:
    with pytest.raises(LabError, match="no lab named nosuchlab is up"):
        load("nosuchlab")
