"""Build a fabric out of namespaces and processes, and take it down again.

A step that fails takes down everything that the steps before it made, and is named in the error with the log that
matters."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lab import netns as links
from lab import process, reflectors, routers, status
from lab.ctl import PROGRAMS_DIR, apply, etcd_url
from lab.netns import CommandError, NetNs
from lab.process import Process, ProcessEndedError
from lab.state import Lab, LabError, State, check_name
from lab.topology import Host, Role

SETTLE_TIMEOUT_S = 60.0
LOOK_AGAIN_S = 0.2

Progress = Callable[[str], None]


def up(name: str, topology: str, nodes: int, progress: Progress) -> Lab:
    """Start a lab; it is running, with every BGP session established, when this returns. `LabError` otherwise."""
    check_name(name)
    try:
        lab = Lab(State(name=name, topology=topology, nodes=nodes))
    except ValueError as error:
        raise LabError(str(error)) from error
    if not lab.file.exists():
        _sweep(lab)
    lab.claim()
    try:
        _build(lab, progress)
    except BaseException as error:
        down(lab)
        if isinstance(error, CommandError | ProcessEndedError):
            raise LabError(str(error)) from error
        raise
    return lab


def _build(lab: Lab, progress: Progress) -> None:
    with _step("namespaces and links", progress):
        _wire(lab)
    with _step("etcd", progress):
        _start_etcd(lab)
        apply(lab, list(lab.topology.resources))
        if lab.topology.reflectors:
            reflectors.enable(lab)
    with _step("routers", progress):
        for router in lab.topology.routers:
            _start_router(lab, router)
    with _step(f"{len(lab.topology.nodes)} nodes", progress):
        for node in lab.topology.nodes:
            start_node(lab, node)
        for node in lab.topology.nodes:
            _wait_ready(lab, node)
    with _step("BGP sessions", progress):
        _settle(lab, "not all sessions are established", status.pending_sessions)
    if lab.topology.reflectors:
        with _step("reflectors", progress):
            _settle(lab, "the fabric has not turned to its reflectors", reflectors.pending_reflectors)


@contextmanager
def _step(what: str, progress: Progress) -> Iterator[None]:
    started = time.monotonic()
    progress(f"{what} ...")
    try:
        yield
    except LabError as error:
        raise LabError(f"step '{what}' failed: {error}") from error
    except (CommandError, ProcessEndedError, OSError, TimeoutError) as error:
        raise LabError(f"step '{what}' failed: {error}") from error
    progress(f"{what}: {time.monotonic() - started:.1f} s")


def _wire(lab: Lab) -> None:
    fabric = lab.fabric_netns().create()
    for segment in lab.topology.segments:
        links.bridge(fabric, segment)
    for number, host in enumerate(lab.topology.hosts):
        there = lab.netns(host.name).create()
        if host.role is not Role.NODE:
            there.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
        for interface in host.interfaces:
            port = f"p{number}{interface.name}"
            links.link(there, interface.name, fabric, port)
            fabric.ip("link", "set", port, "master", interface.segment)
            there.ip("addr", "add", str(interface.ipv4), "dev", interface.name)
            if interface.ipv6 is not None:
                there.ip("addr", "add", str(interface.ipv6), "dev", interface.name, "nodad")
        if host.has_default_route:
            _default_route(lab, host, there)


def _default_route(lab: Lab, host: Host, there: NetNs) -> None:
    for router in lab.topology.routers:
        for interface in router.interfaces:
            if interface.segment == host.uplink.segment and interface.ipv6 is not None:
                there.ip("route", "add", "default", "via", str(interface.ipv4.ip))
                there.ip("-6", "route", "add", "default", "via", str(interface.ipv6.ip))


def _start(lab: Lab, host: Host, program: str, argv: tuple[str, ...], environ: dict[str, str] | None = None) -> Process:
    started = process.start(program, argv, log=lab.log(host.name, program), netns=lab.netns(host.name), environ=environ)
    with lab.changing() as state:
        state.processes.setdefault(host.name, []).append(started)
    return started


def _start_etcd(lab: Lab) -> None:
    host = lab.topology.host("etcd")
    url = etcd_url(lab)
    argv = (
        "etcd",
        f"--data-dir={lab.host_directory('etcd')}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--log-level=warn",
    )
    started = _start(lab, host, "etcd", argv)
    _wait(f"etcd answers on {url}", 20, started, lambda: _etcd_healthy(lab, url))


def _start_router(lab: Lab, router: Host) -> None:
    directory = lab.host_directory(router.name)
    for program in routers.programs(lab.topology, router, directory):
        started = _start(lab, router, program.name, program.argv)
        if program.socket is not None:
            _wait(f"{program.name} of {router.name} listens", 20, started, program.socket.exists)
    netns = lab.netns(router.name)

    def answers() -> bool:
        try:
            routers.sessions(netns, router, directory)
        except CommandError:
            return False
        return True

    _wait(f"{router.name} answers", 20, started, answers)


def _etcd_healthy(lab: Lab, url: str) -> bool:
    try:
        lab.netns("etcd").run(["etcdctl", f"--endpoints={url}", "endpoint", "health"], timeout_s=10)
    except CommandError:
        return False
    return True


def node_environ(lab: Lab, node: Host) -> dict[str, str]:
    """What configures the agents of a node: the DaemonSet's variables."""
    return {
        "NODENAME": node.name,
        "ETCD_ENDPOINTS": etcd_url(lab),
        "IP": "autodetect",
        "IP6": "autodetect",
        "IP_AUTODETECTION_METHOD": f"interface={node.uplink.name}",
        "IP6_AUTODETECTION_METHOD": f"interface={node.uplink.name}",
        "AS": str(node.as_number),
        "WEFT_RUN_DIR": str(lab.host_directory(node.name)),
        "WEFT_STATE_DIR": str(lab.host_directory(node.name) / "state"),
    }


def start_node(lab: Lab, node: Host) -> Process:
    lab.host_directory(node.name).mkdir(parents=True, exist_ok=True)
    return _start(lab, node, "weft-node", (str(PROGRAMS_DIR / "weft-node"),), node_environ(lab, node))


def _wait_ready(lab: Lab, node: Host) -> None:
    main = lab.state.processes[node.name][0]
    cni = lab.host_directory(node.name) / "cni.sock"
    agent = lab.host_directory(node.name) / "bird-agent.sock"
    _wait(f"the agents of {node.name} answer", 30, main, lambda: cni.exists() and agent.exists())


def _settle(lab: Lab, complaint: str, missing: Callable[[Lab], list[str]]) -> None:
    """Wait until nothing is missing any more."""

    def look() -> list[str]:
        for started in lab.state.processes.values():
            for one in started:
                one.require_alive()
        return missing(lab)

    try:
        wait_for_nothing(look, SETTLE_TIMEOUT_S)
    except TimeoutError as error:
        first = lab.topology.nodes[0]
        tail = lab.state.processes[first.name][0].log_tail()
        raise LabError(f"{complaint}: {error}\nthe log of {first.name}:\n{tail}") from None


def wait_for_nothing(missing: Callable[[], list[str]], timeout_s: float) -> None:
    """Until nothing is missing any more. TimeoutError says what is."""
    deadline = time.monotonic() + timeout_s
    while pending := missing():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout_s:.0f} s: {', '.join(pending)}")
        time.sleep(LOOK_AGAIN_S)


def _wait(what: str, timeout_s: float, needed: Process, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        needed.require_alive()
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"waited {timeout_s:.0f} s in vain until {what}; the end of {needed.name}'s log:\n{needed.log_tail()}"
            )
        time.sleep(0.05)


def down(lab: Lab) -> None:
    """Take a lab down, whatever is left of it: its processes, its namespaces, its directory."""
    lab.refresh()  # workloads that other commands have added
    main = [one for started in lab.state.processes.values() for one in started]
    process.stop(main, grace_s=5)
    for netns in _namespaces(lab):
        process.stop(process.in_netns(netns), grace_s=2)
    for netns in _namespaces(lab):
        netns.delete()
    shutil.rmtree(lab.directory, ignore_errors=True)


def _namespaces(lab: Lab) -> list[NetNs]:
    workloads = [lab.workload_netns(one.node, one.name) for one in lab.state.workloads]
    return [*workloads, *(lab.netns(host.name) for host in lab.topology.hosts), lab.fabric_netns()]


def _sweep(lab: Lab) -> None:
    """Refuse to build over namespaces that a lab of this name left: they may be somebody else's."""
    left = [netns.name for netns in _namespaces(lab) if netns.exists()]
    if left:
        raise LabError(
            f"namespaces of this name exist already: {', '.join(left)}; remove them with: ip netns delete NAME"
        )
