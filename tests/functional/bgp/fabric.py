"""A node with the real BGP agent, and real routers beside it, in network namespaces of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lab.netns import CommandError, NetNs, link
from lab.process import Process, start
from weft.model import codec, keys
from weft.model.base import Metadata
from weft.model.bgp import (
    BGPConfiguration,
    BGPConfigurationSpec,
    BGPFilter,
    BGPFilterRuleV4,
    BGPFilterSpec,
    BGPPeer,
    BGPPeerSpec,
)
from weft.model.ipam import AffinityValue
from weft.model.keys import AffinityKey, Owner
from weft.model.node import Node, NodeBGPSpec, NodeSpec
from weft.model.pool import IPPool, IPPoolSpec
from weft.model.values import AsNumber

REPOSITORY = Path(__file__).parents[3]
FRR = Path("/usr/lib/frr")


def wait_until(what: str, condition: Callable[[], Any], timeout_s: float = 60) -> Any:
    """The first true answer; AssertionError with `what` when there is none in time, which is long enough for a machine
    with far more to do than it can, and shorter than a peer's routes are kept."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s: {what}")


def segment(left: NetNs, right: NetNs, name: str, left_address: str, right_address: str) -> None:
    """A link with an address at each end; both have the same interface name."""
    link(left, name, right, name)
    for end, address in ((left, left_address), (right, right_address)):
        nodad = ["nodad"] if ":" in address else []
        end.ip("address", "add", address, "dev", name, *nodad)


class Store:
    """Writes resources as Calico stores them, past the agents."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def put(self, key: keys.Key, value: Any) -> None:
        self._etcdctl("put", keys.path(key), stdin=codec.encode_stored(value))

    def delete(self, key: keys.Key) -> None:
        self._etcdctl("del", keys.path(key))

    def node(
        self,
        name: str,
        address: str | None,
        asn: int | None = None,
        address6: str | None = None,
        cluster_id: str | None = None,
        labels: Mapping[str, str] = MappingProxyType({}),
        annotations: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """One with a cluster id is a route reflector, and has the label `reflector`."""
        bgp = NodeBGPSpec(
            ipv4_address=None if address is None else IPv4Interface(address),
            ipv6_address=None if address6 is None else IPv6Interface(address6),
            as_number=None if asn is None else AsNumber(asn),
            route_reflector_cluster_id=None if cluster_id is None else IPv4Address(cluster_id),
        )
        all_labels = {**labels, **({} if cluster_id is None else {"reflector": ""})}
        metadata = Metadata(name=name, labels=all_labels, annotations=dict(annotations))
        self._resource(Node(metadata=metadata, spec=NodeSpec(bgp=bgp)))

    def configuration(self, annotations: Mapping[str, str] | None = None, **spec: Any) -> None:
        metadata = Metadata(name="default", annotations=annotations or {})
        self._resource(BGPConfiguration(metadata=metadata, spec=BGPConfigurationSpec(**spec)))

    def peer(self, name: str, annotations: Mapping[str, str] | None = None, **spec: Any) -> None:
        metadata = Metadata(name=name, annotations=annotations or {})
        self._resource(BGPPeer(metadata=metadata, spec=BGPPeerSpec(**spec)))

    def filter(self, name: str, **rules: Sequence[BGPFilterRuleV4]) -> None:
        spec = BGPFilterSpec(**{direction: tuple(each) for direction, each in rules.items()})
        self._resource(BGPFilter(metadata=Metadata(name=name), spec=spec))

    def remove_peer(self, name: str) -> None:
        self.delete(keys.ResourceKey("BGPPeer", name))

    def pool(self, name: str, cidr: str, **spec: Any) -> None:
        self._resource(IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=ip_network(cidr), **spec)))

    def block(self, node: str, cidr: str) -> None:
        self.put(AffinityKey(Owner("host", node), ip_network(cidr)), AffinityValue(state="confirmed"))

    def release_block(self, node: str, cidr: str) -> None:
        self.delete(AffinityKey(Owner("host", node), ip_network(cidr)))

    def _resource(self, resource: Any) -> None:
        self.put(keys.of(resource), resource)

    def has(self, key: keys.Key) -> bool:
        return bool(self._etcdctl("get", "--keys-only", keys.path(key)))

    def _etcdctl(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        return subprocess.run(
            ["etcdctl", "--endpoints", self.endpoint, *arguments],
            input=stdin,
            check=True,
            capture_output=True,
            env={**os.environ, "ETCDCTL_API": "3"},
            timeout=20,
        ).stdout


@dataclass
class AgentNode:
    """A namespace in which the real agent runs."""

    name: str
    netns: NetNs
    run_dir: Path
    environ: Mapping[str, str]
    agent: Process | None = None

    def start(self) -> None:
        directories = {"WEFT_RUN_DIR": str(self.run_dir), "WEFT_STATE_DIR": str(self.run_dir / "state")}
        environ = {**self.environ, **directories, "NODENAME": self.name}
        self.agent = start(
            f"agent of {self.name}",
            [sys.executable, "-m", "bird_agent.daemon"],
            log=self.run_dir / "agent.log",
            netns=self.netns,
            environ={**environ, "WEFT_LOG_LEVEL": "DEBUG"},
        )

    def kill(self) -> None:
        """As if the kernel had: no chance to clean up."""
        assert self.agent is not None
        self.agent.signal(signal.SIGKILL)
        wait_until("the agent is gone", lambda: not self.agent or not self.agent.alive())

    def speaker(self) -> int | None:
        from bird_agent.exabgp.supervisor import SpeakerPaths
        from weft import singleton

        return singleton.holder(SpeakerPaths(self.run_dir).lock)

    def link_pid(self) -> int:
        speaker = self.speaker()
        found = subprocess.run(["pgrep", "-P", str(speaker)], capture_output=True, text=True, check=False).stdout
        return int(found.split()[0])

    def log(self) -> str:
        return (self.run_dir / "agent.log").read_text()

    def sessions_begun(self) -> int:
        """How many sessions the agent has seen begin, or found."""
        return len(re.findall(r"^.* INFO .* BGP session with .*\) (?:up|is established)$", self.log(), re.MULTILINE))

    def routes(self, family: str = "-4") -> dict[str, set[str]]:
        """The BGP routes in the kernel: destination -> gateways."""
        found = self.netns.ip_json(family, "route", "show", "proto", "186")
        return {
            route["dst"]: {hop["gateway"] for hop in route.get("nexthops", [route])}
            for route in found
            if "gateway" in route or "nexthops" in route
        }


@dataclass
class Bird:
    """A real BIRD 2."""

    netns: NetNs
    directory: Path
    configuration: str
    process: Process | None = None

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "bird.conf").write_text(self.configuration)
        self.process = start(
            "bird",
            ["bird", "-f", "-c", str(self.directory / "bird.conf"), "-s", str(self.directory / "bird.ctl")],
            log=self.directory / "bird.log",
            netns=self.netns,
        )
        wait_until("BIRD answers", lambda: self.ask("show status"))

    def ask(self, command: str) -> str:
        try:
            return self.netns.run(["birdc", "-r" if command.startswith("show") else "-v", "-s", self.control, command])
        except CommandError:
            return ""

    def reconfigure(self, configuration: str) -> None:
        (self.directory / "bird.conf").write_text(configuration)
        self.ask("configure")

    @property
    def control(self) -> str:
        return str(self.directory / "bird.ctl")

    def routes(self, protocol: str) -> set[str]:
        return set(re.findall(r"^([0-9a-f.:]+/\d+)", self.ask(f"show route protocol {protocol}"), re.MULTILINE))

    def attributes(self, prefix: str, protocol: str) -> dict[str, str]:
        """What was said with a route: "as_path" -> "64512"."""
        text = self.ask(f"show route {prefix} protocol {protocol} all")
        return dict(re.findall(r"BGP\.(\w+): (.*?)\s*$", text, re.MULTILINE))

    def connection(self) -> str:
        """Its one TCP connection, by both ends: what tells a session from the next. (The time that `show protocols`
        gives for the same session may differ by a millisecond when it is asked again.)"""

        def established() -> list[str]:
            return self.netns.run(["ss", "-Htn", "state", "established"]).splitlines()

        wait_until("one connection, those that collided with it closed", lambda: len(established()) == 1)
        return " ".join(established()[0].split()[2:4])

    def established(self, protocol: str) -> bool:
        return "Established" in self.ask(f"show protocols {protocol}")


@dataclass
class Frr:
    """A real zebra and bgpd."""

    netns: NetNs
    directory: Path
    configuration: str
    bfd: str = ""
    """The configuration of bfdd, where it runs too."""
    processes: list[Process] = field(default_factory=list)

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "zebra.conf").write_text("hostname tor\n")
        (self.directory / "bgpd.conf").write_text(self.configuration)
        (self.directory / "bfdd.conf").write_text(f"hostname tor\n{self.bfd}")
        shutil.chown(self.directory, "frr", "frr")
        common = ["--vty_socket", str(self.directory), "-z", str(self.directory / "zserv.api")]
        for name in ("zebra", "bgpd", *(["bfdd"] if self.bfd else [])):
            files = ["-f", str(self.directory / f"{name}.conf"), "-i", str(self.directory / f"{name}.pid")]
            argv = [str(FRR / name), *common, *files, "--log", "stdout", "-P", "0"]
            self.processes.append(start(name, argv, log=self.directory / f"{name}.log", netns=self.netns))
            wait_until(f"{name} answers", lambda name=name: (self.directory / f"{name}.vty").exists())

    def ask(self, command: str) -> Any:
        try:
            return json.loads(self.netns.run(["vtysh", "--vty_socket", str(self.directory), "-c", command]) or "{}")
        except (CommandError, json.JSONDecodeError):
            return {}

    def routes(self) -> set[str]:
        return set(self.ask("show bgp ipv4 unicast json").get("routes", {}))


def bird_configuration(
    router_id: str, sessions: Sequence[str], routes: Sequence[str], channel: str = "ipv4", extra: str = ""
) -> str:
    """BIRD with static routes that it announces in `sessions` (bodies of bgp protocols named p0, p1, ...)."""
    static = " ".join(f"route {route} blackhole;" for route in routes)
    protocols = "\n".join(
        f"protocol bgp p{number} {{ {body} graceful restart on; connect retry time 1; connect delay time 1;"
        f' error wait time 1, 2; {channel} {{ import all; export where proto = "announced"; next hop self; }}; }}'
        for number, body in enumerate(sessions)
    )
    return (
        f"router id {router_id};\nlog stderr all;\nprotocol device {{}}\n"
        f"protocol static announced {{ {channel}; {static} }}\n{extra}\n{protocols}\n"
    )
