"""CNI ADD and DEL, whole process from fork to exit, beside ptp with host-local in the same network namespace.

Load: a node with 100 workloads, its agent and its own etcd; the rival keeps 100 addresses, too. Every timed ADD is
checked by its result and a ping, every DEL by the interface being gone."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lab import process
from lab.netns import NetNs, run
from tests.bench.result import Pairs, Result
from tests.functional.cni.live import PLUGIN, LiveNode, live_node

RIVAL = Path("/usr/lib/cni/ptp")
BACKGROUND = 100
ROUNDS = 20
WARM_UP = 3
SETTLE_S = 0.06
"""Our DEL leaves the device to a reaper, which then holds the kernel's link lock: not at the rival's cost."""


class Contender:
    """One plugin with its configuration, called in the node's namespace."""

    def __init__(self, program: Path, configuration: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._program = str(program)
        self._environment = {"CNI_PATH": str(program.parent), "CNI_IFNAME": "eth0", **environment}
        self._stdin = tempfile.TemporaryFile()  # noqa: SIM115
        self._stdin.write(json.dumps(configuration).encode())
        self._stdin.flush()
        self._stdout = tempfile.TemporaryFile()  # noqa: SIM115

    def call(self, command: str, container: str, netns: NetNs) -> tuple[float, dict[str, Any]]:
        """Milliseconds from fork to exit, and the answer."""
        environment = {
            **self._environment,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns.path,
        }
        self._stdin.seek(0)
        self._stdout.seek(0)
        self._stdout.truncate()
        files = [
            (os.POSIX_SPAWN_DUP2, self._stdin.fileno(), 0),
            (os.POSIX_SPAWN_DUP2, self._stdout.fileno(), 1),
        ]
        start = time.perf_counter()
        child = os.posix_spawn(self._program, [self._program], environment, file_actions=files)
        _, status = os.waitpid(child, 0)
        took = (time.perf_counter() - start) * 1000
        self._stdout.seek(0)
        answer = self._stdout.read()
        if status != 0:
            raise RuntimeError(f"{self._program} {command}: {answer.decode()}")
        return took, json.loads(answer) if answer.strip() else {}


@contextmanager
def _namespaces(count: int, prefix: str) -> Iterator[list[NetNs]]:
    made: list[NetNs] = []
    try:
        for number in range(count):
            made.append(NetNs(f"weft-{os.getpid()}-{prefix}{number}").create())
        yield made
    finally:
        for one in made:
            one.delete()


def _round(contender: Contender, container: str, netns: NetNs, node: NetNs) -> tuple[float, float]:
    """One ADD and its DEL, both checked."""
    add_ms, result = contender.call("ADD", container, netns)
    address = result["ips"][0]["address"].partition("/")[0]
    run(["nsenter", f"--net={node.path}", "--", "ping", "-c1", "-W1", address])
    delete_ms, _ = contender.call("DEL", container, netns)
    if any(link["ifname"] == "eth0" for link in netns.ip_json("link")):
        raise RuntimeError("DEL left the interface")
    time.sleep(SETTLE_S)
    return add_ms, delete_ms


def measure() -> list[Result]:
    netns = NetNs(f"weft-{os.getpid()}-bench").create()
    netns.ip("address", "add", "192.0.2.1/32", "dev", "lo")  # what the node pings from
    try:
        with ExitStack() as stack:
            node = stack.enter_context(live_node(netns))
            others = stack.enter_context(_namespaces(BACKGROUND, "bg"))
            mine, theirs = stack.enter_context(_namespaces(2, "timed"))
            data = stack.enter_context(tempfile.TemporaryDirectory())
            stack.enter_context(netns.enter())
            return _compare(node, others, mine, theirs, data)
    finally:
        process.stop(process.in_netns(netns), grace_s=1)
        netns.delete()


def _compare(node: LiveNode, others: list[NetNs], mine: NetNs, theirs: NetNs, data: str) -> list[Result]:
    name = {"cniVersion": "1.0.0", "name": "bench"}
    weft = Contender(PLUGIN, {**name, "type": "weft"}, {"WEFT_CNI_SOCKET": str(node.socket)})
    ipam = {"type": "host-local", "subnet": "10.99.0.0/16", "dataDir": data}
    ptp = Contender(RIVAL, {**name, "type": "ptp", "ipam": ipam}, {})
    for number, other in enumerate(others):
        weft.call("ADD", f"bg{number:09d}", other)
    # host-local keeps a file for each address: give it as many, without the interfaces, which ptp never looks at.
    directory = Path(data) / "bench"
    directory.mkdir(exist_ok=True)
    for number in range(BACKGROUND):
        (directory / f"10.99.255.{number}").write_text(f"bg{number}\r\neth0")
    ours: list[tuple[float, float]] = []
    rivals: list[tuple[float, float]] = []
    for number in range(WARM_UP + ROUNDS):
        ours.append(_round(weft, f"{number:04d}weft", mine, node.netns))
        rivals.append(_round(ptp, f"{number:04d}ptp", theirs, node.netns))
    results = []
    for index, (command, bar) in enumerate((("ADD", 0.4), ("DEL", 0.15))):
        pairs = Pairs([one[index] for one in ours[WARM_UP:]], [one[index] for one in rivals[WARM_UP:]])
        results.append(
            pairs.result(
                f"CNI {command} ({BACKGROUND} workloads on the node)",
                "ptp + host-local",
                "ms",
                f"at most {bar} of the rival's",
                lambda _, ratio, bar=bar: ratio <= bar,
            )
        )
    return results


BENCHMARKS: dict[str, Callable[[], list[Result]]] = {"cni": measure}
