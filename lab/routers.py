"""The labs' ToR routers: configurations for BIRD 2 and FRR, how they are started, and what they say of their sessions
and routes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

from lab.netns import NetNs
from lab.topology import Host, Role, Topology

FRR_DIR = Path("/usr/lib/frr")
HOLD_TIME_S = 9
RESTART_TIME_S = 120


@dataclass(frozen=True, slots=True)
class RouterSession:
    peer: str
    address: str
    state: str
    info: str


@dataclass(frozen=True, slots=True)
class Program:
    """One process of a router: what to run, and the files it reads."""

    name: str
    argv: tuple[str, ...]
    socket: Path | None = None
    """What the next one connects to when it starts: bgpd tries zebra once, and then ten seconds later, without an
    interface or an IPv6 route of its peers until then."""


def programs(topology: Topology, router: Host, directory: Path) -> list[Program]:
    """Write the router's configuration below `directory`; return its processes in starting order."""
    directory.mkdir(parents=True, exist_ok=True)
    if router.role is Role.BIRD:
        (directory / "bird.conf").write_text(render_bird(topology, router))
        argv = ("bird", "-f", "-c", str(directory / "bird.conf"), "-s", str(directory / "bird.ctl"))
        return [Program("bird", argv)]
    (directory / "zebra.conf").write_text(f"hostname {router.name}\nlog stdout\n")
    (directory / "bgpd.conf").write_text(render_frr(topology, router))
    shutil.chown(directory, "frr", "frr")  # its daemons give up root, then make their sockets and pid files
    common = ("--vty_socket", str(directory), "-z", str(directory / "zserv.api"))
    return [
        Program(
            name,
            (
                str(FRR_DIR / name),
                *common,
                "-i",
                str(directory / f"{name}.pid"),
                "-f",
                str(directory / f"{name}.conf"),
                *extra,
            ),
            socket,
        )
        for name, extra, socket in (("zebra", (), directory / "zserv.api"), ("bgpd", ("-p", "179"), None))
    ]


def render_bird(topology: Topology, router: Host) -> str:
    """A ToR's configuration: its connected networks for everybody, and what it learns for everybody in another AS."""
    transit = "[RTS_DEVICE, RTS_BGP]" if topology.kind == "racks" else "[RTS_DEVICE]"
    lines = [
        f"router id {router.uplink.ipv4.ip};",
        "log stderr { info, warning, error, fatal };",
        "protocol device { scan time 5; }",
        "protocol direct { ipv4; ipv6; }",
    ]
    for family in ("ipv4", "ipv6"):
        lines.append(
            f"protocol kernel kernel_{family} {{ {family} {{ import none; export where source = RTS_BGP; }};"
            " merge paths on; }"
        )
    for peer, mine, theirs in _peerings(topology, router):
        family = "ipv4" if mine.version == 4 else "ipv6"
        lines += [
            f"protocol bgp {peer.name}_{family} {{",
            f"  local {mine.ip} as {router.as_number};",
            f"  neighbor {theirs.ip} as {peer.as_number};",
            f"  hold time {HOLD_TIME_S};",
            "  connect retry time 2;",
            "  connect delay time 1;",
            "  error wait time 1, 4;",
            "  graceful restart on;",
            f"  graceful restart time {RESTART_TIME_S};",
            f"  {family} {{ import all; export where source ~ {transit}; }};",
            "}",
        ]
    return "\n".join(lines) + "\n"


def render_frr(topology: Topology, router: Host) -> str:
    peerings = list(_peerings(topology, router))
    lines = [
        f"hostname {router.name}",
        "log stdout",
        f"router bgp {router.as_number}",
        f" bgp router-id {router.uplink.ipv4.ip}",
        " no bgp ebgp-requires-policy",
        " no bgp default ipv4-unicast",
        " bgp bestpath as-path multipath-relax",
        " bgp graceful-restart",
        f" bgp graceful-restart restart-time {RESTART_TIME_S}",
        f" timers bgp {HOLD_TIME_S // 3} {HOLD_TIME_S}",
    ]
    for peer, _, theirs in peerings:
        lines += [
            f" neighbor {theirs.ip} remote-as {peer.as_number}",
            f" neighbor {theirs.ip} description {peer.name}",
            f" neighbor {theirs.ip} timers connect 2",
            f" neighbor {theirs.ip} advertisement-interval 0",
        ]
    for version, family in ((4, "ipv4"), (6, "ipv6")):
        lines += [f" address-family {family} unicast", "  redistribute connected"]
        lines += [f"  neighbor {theirs.ip} activate" for _, _, theirs in peerings if theirs.version == version]
        lines += [" exit-address-family"]
    return "\n".join(lines) + "\n"


def sessions(netns: NetNs, router: Host, directory: Path) -> list[RouterSession]:
    """The router's BGP sessions as it reports them, `state` in RFC 4271's words."""
    if router.role is Role.BIRD:
        return _bird_sessions(_birdc(netns, directory, "show protocols all"))
    return _frr_sessions(netns.run(_vtysh(directory, "show bgp summary json")))


def routes(netns: NetNs) -> list[tuple[str, str]]:
    """(prefix, next hops) of the routes in the kernel that the router learnt by BGP."""
    found = []
    for family in ("-4", "-6"):
        for protocol in ("bird", "bgp"):
            for route in netns.ip_json(family, "route", "show", "proto", protocol):
                hops = [hop.get("gateway", "") for hop in route.get("nexthops", [route])]
                found.append((str(route["dst"]), ", ".join(sorted(filter(None, hops)))))
    return sorted(found)


def _peerings(
    topology: Topology, router: Host
) -> list[tuple[Host, IPv4Interface | IPv6Interface, IPv4Interface | IPv6Interface]]:
    """(peer, own address, peer's address), once a family, on the segment that the two share."""
    found: list[tuple[Host, IPv4Interface | IPv6Interface, IPv4Interface | IPv6Interface]] = []
    for peer in topology.neighbours(router.name):
        for mine in router.interfaces:
            for theirs in peer.interfaces:
                if mine.segment == theirs.segment:
                    found.append((peer, mine.ipv4, theirs.ipv4))
                    if mine.ipv6 is not None and theirs.ipv6 is not None:
                        found.append((peer, mine.ipv6, theirs.ipv6))
    return found


def _birdc(netns: NetNs, directory: Path, command: str) -> str:
    return netns.run(["birdc", "-r", "-s", str(directory / "bird.ctl"), command])


def _vtysh(directory: Path, command: str) -> Sequence[str]:
    return ["vtysh", "--vty_socket", str(directory), "-d", "bgpd", "-c", command]


def _bird_sessions(text: str) -> list[RouterSession]:
    """From `show protocols all`: a line with name and status, then the session's state, then the peer's address."""
    found: list[RouterSession] = []
    name = info = state = ""
    for line in text.splitlines():
        if heading := re.match(r"(\S+)\s+BGP\s+\S+\s+\S+\s+\S+\s*(.*)", line):
            name, info = heading.group(1).rsplit("_", 1)[0], heading.group(2).strip()
        elif said := re.match(r"\s+BGP state:\s+(\S+)", line):
            state = said.group(1)
        elif address := re.match(r"\s+Neighbor address:\s+(\S+)", line):
            found.append(RouterSession(name, address.group(1), state, info))
    return found


def _frr_sessions(text: str) -> list[RouterSession]:
    found = {}
    for family in json.loads(text).values():
        for address, peer in family.get("peers", {}).items():
            found[address] = RouterSession(peer.get("desc", address), address, peer["state"], "")
    return list(found.values())
