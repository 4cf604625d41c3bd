"""A peer that flaps beside one that does not, and what of it can be seen afterwards: shared by tests and benchmark."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import cycle, islice

from lab import processes
from lab.netns import NetNs
from lab.process import Process
from lab.speakers.driver import Speakers
from lab.speakers.wire import How, Script
from tests.functional.bgp.fabric import segment, wait_until

NODE, STEADY, FLAPPING = "10.1.0.1", "10.1.0.254", "10.1.2.254"
SHARED = "203.0.113.0/24"
OF_FLAPPING = [f"100.64.{number}.0/24" for number in range(200)]

Routes = Callable[[], dict[str, set[str]]]
"""The BGP routes in the node's kernel: destination -> gateways."""


def flapping_script() -> Script:
    routes = tuple(IPv4Network(prefix) for prefix in [*OF_FLAPPING, SHARED])
    peer, local = IPv4Address(NODE), IPv4Address(FLAPPING)
    return Script(local=local, peer=peer, asn=65002, peer_asn=64512, routes=routes)


def wire(node: NetNs, flapping: NetNs) -> None:
    """A link of its own, at the end of which it speaks to the address that the node listens on."""
    segment(node, flapping, "up1", "10.1.2.1/24", f"{FLAPPING}/24")
    flapping.ip("route", "add", NODE, "via", "10.1.2.1")


def while_up(steady: Iterable[str]) -> dict[str, set[str]]:
    return (
        {prefix: {STEADY} for prefix in steady}
        | {SHARED: {STEADY, FLAPPING}}
        | {one: {FLAPPING} for one in OF_FLAPPING}
    )


def while_down(steady: Iterable[str]) -> dict[str, set[str]]:
    return {prefix: {STEADY} for prefix in steady}


def flap(speakers: Speakers, routes: Routes, steady: Iterable[str], times: int) -> None:
    """Each time it is lost in another way, and each time the kernel is exactly right before and after."""
    up, down = while_up(steady), while_down(steady)
    for how in islice(cycle((How.RESET, How.CEASE, How.CLOSE)), times):
        speakers.lose((0,), how)
        wait_until("only the steady peer's routes are left", lambda: routes() == down)
        speakers.connect()
        wait_until("all routes are back", lambda: routes() == up)


@dataclass(frozen=True, slots=True)
class Used:
    """By all processes of a node together."""

    cpu_s: float
    resident_kib: int
    descriptors: int
    pids: frozenset[int]


def used(running: Iterable[Process]) -> Used:
    cpu, resident, descriptors, pids = 0.0, 0, 0, set()
    for one in running:
        if not one.alive():
            continue
        cpu += processes.cpu_s(one.pid)
        resident += processes.resident_kib(one.pid)
        descriptors += len(os.listdir(f"/proc/{one.pid}/fd"))
        pids.add(one.pid)
    return Used(cpu, resident, descriptors, frozenset(pids))
