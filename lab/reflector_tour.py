"""What automatic reflectors do while packets flow: one is killed, one's node is drained, the fabric turns back to a
mesh and once more to reflectors.

Each step counts sequenced packets (lab.traffic) from a workload of one failure domain to one of another: none may be
lost."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

from lab import ctl, fabric, processes, reflectors
from lab.netns import CommandError
from lab.process import Process
from lab.state import Lab, Workload
from lab.traffic import Traffic

STEP_TIMEOUT_S = 90.0


def steps(lab: Lab, target: Workload, source: Workload) -> Iterator[tuple[str, bool]]:
    """Each step in words, and whether it went as it should. The fabric has its reflectors again at the end."""
    reflectors.enable(lab)
    _wait_reflected(lab)
    print(f"\nAUTOMATIC REFLECTORS (weftctl bgp reflectors)\n{ctl.weftctl(lab, 'bgp', 'reflectors')}")
    victim = next(name for names in reflectors.chosen(lab).values() for name in names)
    print(f"THE REFLECTOR OF {victim} (weftctl bgp peers --reflector)")
    print(ctl.on_node(lab, victim, "bgp", "peers", "--reflector"))
    print(f"WHILE PACKETS GO FROM {source.name} ON {source.node} TO {target.name} ON {target.node}")
    drained = _to_drain(lab, {source.node, target.node})
    planned: list[tuple[str, Callable[[Lab], None]]] = [
        (f"the reflector's process on {victim} is killed, and another goes on", lambda lab: _kill(lab, victim)),
        (f"{drained} is drained, and another reflector takes its place", lambda lab: _drain(lab, drained)),
        (f"{drained} announces again, and is a reflector again", lambda lab: _undrain(lab, drained)),
        ("without automatic reflectors: a mesh again", _turn_to_mesh),
        ("and with them", _turn_to_reflectors),
    ]
    for what, step in planned:
        yield _try(lab, what, step, (source, target))


def _try(lab: Lab, what: str, step: Callable[[Lab], None], ends: tuple[Workload, Workload]) -> tuple[str, bool]:
    source, target = ends
    address = target.addresses[0].partition("/")[0]
    with Traffic(
        lab.workload_netns(source.node, source.name), lab.workload_netns(target.node, target.name), address
    ) as traffic:
        try:
            step(lab)
            problem = ""
        except (TimeoutError, CommandError) as error:
            problem = f"; but {error}"
    report = traffic.report()
    return f"{what}: {report.udp_lost} of {report.udp_sent} packets lost{problem}", not report.udp_lost and not problem


def _kill(lab: Lab, node: str) -> None:
    before = _process(lab, node)
    assert before is not None
    before.signal(signal.SIGKILL)

    def missing() -> list[str]:
        now = _process(lab, node)
        if now is None or now == before:
            return [f"no other reflector on {node}"]
        return reflectors.pending_reflectors(lab)

    fabric.wait_for_nothing(missing, STEP_TIMEOUT_S)


def _process(lab: Lab, node: str) -> Process | None:
    return processes.of_node(lab, node).get("automatic-reflector")


def _to_drain(lab: Lab, kept: set[str]) -> str:
    """A reflector's node that none of the packets is for."""
    return next(name for names in reflectors.chosen(lab).values() for name in names if name not in kept)


def _drain(lab: Lab, node: str) -> None:
    ctl.weftctl(lab, "node", "drain", node, "--wait", "1s")
    _wait_reflected(lab, without=node)


def _undrain(lab: Lab, node: str) -> None:
    ctl.weftctl(lab, "node", "undrain", node)
    _wait_reflected(lab)


def _turn_to_mesh(lab: Lab) -> None:
    reflectors.disable(lab)
    fabric.wait_for_nothing(lambda: reflectors.pending_mesh(lab), STEP_TIMEOUT_S)


def _turn_to_reflectors(lab: Lab) -> None:
    reflectors.enable(lab)
    _wait_reflected(lab)


def _wait_reflected(lab: Lab, without: str = "") -> None:
    def missing() -> list[str]:
        if any(without in names for names in reflectors.chosen(lab).values()):
            return [f"{without} is still chosen"]
        return reflectors.pending_reflectors(lab)

    fabric.wait_for_nothing(missing, STEP_TIMEOUT_S)
