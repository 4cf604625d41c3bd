"""A node with the real agent and its own etcd in a network namespace, and containers called up by the real plugin."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.netns import NetNs
from tests.unit.ipam.surroundings import pool
from weft.model import codec, keys
from weft.model.base import Metadata
from weft.model.node import ClusterInformation, ClusterInformationSpec, Node
from weft.model.policy import Tier
from weft.model.resources import AnyResource

PLUGIN = Path(__file__).resolve().parents[3] / "build" / "cni" / "weft"
START_TIMEOUT_S = 20


class PluginError(Exception):
    """The plugin answered with an error; `answer` is what it printed."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__(json.dumps(answer))
        self.answer = answer
        self.code = answer["code"]


@dataclass
class LiveNode:
    """`netns` is the host; containers get namespaces of their own."""

    netns: NetNs
    directory: Path
    agent: subprocess.Popen[bytes] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    """More of the agent's environment."""

    @property
    def socket(self) -> Path:
        return self.directory / "cni.sock"

    def etcdctl(self, *arguments: str) -> str:
        return self.netns.run(["env", "ETCDCTL_API=3", "etcdctl", *arguments])

    def put(self, resource: AnyResource) -> None:
        self.etcdctl("put", keys.path(keys.of(resource)), codec.encode_stored(resource).decode())

    def stored(self, prefix: str) -> dict[str, Any]:
        """Everything under a prefix, decoded from JSON."""
        answer = json.loads(self.etcdctl("get", "--prefix", prefix, "-w", "json"))
        return {
            base64.b64decode(kv["key"]).decode(): json.loads(base64.b64decode(kv["value"]))
            for kv in answer.get("kvs", [])
        }

    def start_agent(self) -> None:
        environment = {
            **os.environ,
            "NODENAME": "n1",
            "ETCD_ENDPOINTS": "http://127.0.0.1:2379",
            "WEFT_RUN_DIR": str(self.directory),
            "WEFT_STATE_DIR": str(self.directory),
            **self.settings,
        }
        with (self.directory / "felix.log").open("ab") as log:
            self.agent = self.netns.popen(
                [sys.executable, "-m", "felix.daemon"], env=environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.agent.poll() is not None:
                break
            if self.socket.exists() and self._is_ready():
                return
            time.sleep(0.02)
        raise RuntimeError(f"weft-felix does not come up:\n{self.log()}")

    def _is_ready(self) -> bool:
        try:
            self.plugin("STATUS", "", None, cniVersion="1.1.0")
        except PluginError:
            return False
        return True

    def kill_agent(self) -> None:
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait()
            self.agent = None

    def log(self) -> str:
        return (self.directory / "felix.log").read_text()

    def plugin(
        self, command: str, container: str, netns: NetNs | None, args: str = "", **configuration: Any
    ) -> dict[str, Any]:
        """Call the plugin as a runtime does."""
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(PLUGIN.parent),
            "CNI_ARGS": args,
            "WEFT_CNI_SOCKET": str(self.socket),
            **({"CNI_NETNS": netns.path} if netns else {}),
        }
        conf = {"cniVersion": "1.0.0", "name": "net", "type": "weft", **configuration}
        done = subprocess.run(
            [PLUGIN], env=environment, input=json.dumps(conf).encode(), capture_output=True, check=False
        )
        answer: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
        if done.returncode != 0:
            raise PluginError(answer)
        return answer

    def leftovers(self) -> dict[str, Any]:
        """What is still stored about workloads: endpoints, handles, and blocks that hold something."""
        found = self.stored(keys.prefix("WorkloadEndpoint")) | self.stored(keys.HANDLES)
        blocks = self.stored(f"{keys.IPAM}assignment/")
        return found | {
            path: block for path, block in blocks.items() if any(x is not None for x in block["allocations"])
        }

    def interfaces(self) -> list[str]:
        """The host's ends of workloads."""
        return [one["ifname"] for one in self.netns.ip_json("link") if one["ifname"].startswith("cali")]


@contextmanager
def live_node(netns: NetNs, settings: Mapping[str, str] | None = None) -> Iterator[LiveNode]:
    """A node that is ready for workloads, in a namespace that the caller removes."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weft-cni-")))
        log = stack.enter_context((directory / "etcd.log").open("wb"))
        etcd = netns.popen(["etcd", f"--data-dir={directory / 'etcd'}", "--log-level=error"], stdout=log, stderr=log)
        stack.callback(etcd.wait)
        stack.callback(etcd.kill)
        node = LiveNode(netns, directory, settings=settings or {})
        _wait_for_etcd(node)
        ready = ClusterInformationSpec(datastore_ready=True)
        for resource in (
            ClusterInformation(metadata=Metadata(name="default"), spec=ready),
            Node(metadata=Metadata(name="n1")),
            Tier(metadata=Metadata(name="default")),
            pool("10.65.0.0/16", "v4"),
            pool("fd00:65::/48", "v6"),
        ):
            node.put(resource)
        stack.callback(node.kill_agent)
        node.start_agent()
        yield node


def _wait_for_etcd(node: LiveNode) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            node.etcdctl("get", "x")
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
