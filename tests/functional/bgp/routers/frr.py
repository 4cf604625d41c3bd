"""FRR: zebra, bgpd, and bfdd where a kind of this router asks for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.process import start
from tests.functional.bgp.fabric import wait_until
from tests.functional.bgp.routers.base import RESTART_TIME_S, Announced, Learnt, Neighbour, Router, family

PROGRAMS = Path("/usr/lib/frr")


class FrrRouter(Router):
    name = "frr"
    sends_back = True

    daemons = ("zebra", "bgpd")

    def start(self, *, restarted: bool = False) -> None:
        for name in self.daemons:
            self._write(f"{name}.conf", self._configuration() if name == "bgpd" else "hostname router\n")
            shutil.chown(self.directory / f"{name}.conf", "frr", "frr")
        shutil.chown(self.directory, "frr", "frr")  # its daemons give up root, then make their sockets and pid files
        for name in self.daemons:
            (self.directory / f"{name}.vty").unlink(missing_ok=True)
            common = ["--vty_socket", str(self.directory), "-z", str(self.directory / "zserv.api"), "-P", "0"]
            files = ["-f", str(self.directory / f"{name}.conf"), "-i", str(self.directory / f"{name}.pid")]
            argv = [str(PROGRAMS / name), *common, *files, "--log", "stdout"]
            self.processes.append(start(name, argv, log=self.directory / f"{name}.log", netns=self.netns))
            wait_until(f"{name} answers", lambda name=name: (self.directory / f"{name}.vty").exists())

    def established(self, address: str) -> bool:
        said = self._show(f"show bgp neighbors {address} json").get(address, {})
        return bool(said.get("bgpState") == "Established")

    def learnt(self, address: str) -> set[str]:
        # Asked for the neighbour's routes alone it says for a moment that there is none, when its session comes back.
        table = self._show(f"show bgp {family_of(address)} unicast json").get("routes", {})
        return {prefix for prefix, paths in table.items() if any(path.get("peerId") == address for path in paths)}

    def path(self, address: str, prefix: str) -> Learnt | None:
        paths = self._show(f"show bgp {family_of(prefix)} unicast {prefix} json").get("paths", [])
        found = next((path for path in paths if path.get("peer", {}).get("peerId") == address), None)
        if found is None:
            return None
        segments = found.get("aspath", {}).get("segments", [])
        return Learnt(
            next_hop=next(hop["ip"] for hop in found["nexthops"] if hop.get("scope", "global") == "global"),
            as_path=tuple(number for segment in segments for number in segment["list"]),
            communities=frozenset(found.get("community", {}).get("list", [])),
            large_communities=frozenset(found.get("largeCommunity", {}).get("list", [])),
            originator=found.get("originatorId"),
            clusters=tuple(found.get("clusterList", {}).get("list", [])),
        )

    def shut_down(self, address: str) -> None:
        self._configure(f"neighbor {address} shutdown")

    def enable(self, address: str) -> None:
        self._configure(f"no neighbor {address} shutdown")

    def announce(self, route: Announced) -> None:
        lines, mapped = route_map(route)
        self._vtysh("configure terminal", *lines)
        self._configure(f"address-family {family_of(route.prefix)} unicast", f"network {route.prefix}{mapped}")

    def withdraw(self, prefix: str) -> None:
        self._configure(f"address-family {family_of(prefix)} unicast", f"no network {prefix}")

    def refresh(self, address: str) -> None:
        self._vtysh(f"clear bgp {family_of(address)} unicast {address} in")

    def _vtysh(self, *commands: str) -> str:
        said = [argument for command in commands for argument in ("-c", command)]
        return self._ask(["vtysh", "--vty_socket", str(self.directory), "-d", "bgpd", *said])

    def _configure(self, *commands: str) -> None:
        self._vtysh("configure terminal", f"router bgp {self.setup.asn}", *commands)

    def _show(self, command: str) -> Any:
        return self._json(["vtysh", "--vty_socket", str(self.directory), "-d", "bgpd", "-c", command])

    def _configuration(self) -> str:
        lines = ["hostname router", "log stdout"]
        for route in self.setup.announced:
            lines += route_map(route)[0]
        lines += [
            f"router bgp {self.setup.asn}",
            f" bgp router-id {self.setup.router_id}",
            f" bgp cluster-id {self.setup.router_id}",
            " no bgp ebgp-requires-policy",
            " no bgp default ipv4-unicast",
            " no bgp network import-check",
            " bgp graceful-restart",
            " bgp graceful-restart preserve-fw-state",
            f" bgp graceful-restart restart-time {RESTART_TIME_S}",
        ]
        for peer in self.setup.neighbours:
            lines += [f" neighbor {peer.address} {statement}" for statement in self._statements(peer)]
        for version in self.setup.versions:
            lines.append(f" address-family {family(version)} unicast")
            for route in self.setup.announced:
                if route.version == version:
                    lines.append(f"  network {route.prefix}{route_map(route)[1]}")
            for peer in self.setup.neighbours:
                if peer.version == version:
                    lines.append(f"  neighbor {peer.address} activate")
                    if peer.client:
                        lines.append(f"  neighbor {peer.address} route-reflector-client")
            lines.append(" exit-address-family")
        return "\n".join(lines) + "\n"

    def _statements(self, peer: Neighbour) -> Iterator[str]:
        yield f"remote-as {peer.asn}"
        yield f"timers {peer.hold_time_s // 3} {peer.hold_time_s}"
        yield "timers connect 1"
        yield "advertisement-interval 0"
        if peer.password is not None:
            yield f"password {peer.password}"
        if peer.gtsm:
            yield "ttl-security hops 1"
        if peer.multihop is not None:
            yield f"ebgp-multihop {peer.multihop}"
            yield f"update-source {peer.local}"
        if peer.passive:
            yield "passive"


def family_of(address: str) -> str:
    return "ipv6" if ":" in address else "ipv4"


def route_map(route: Announced) -> tuple[list[str], str]:
    """The route map that marks a route, and what to put behind its network statement."""
    if not (route.communities or route.large_communities):
        return [], ""
    name = "mark-" + route.prefix.replace("/", "-").replace(":", "-")
    lines = [f"route-map {name} permit 1"]
    if route.communities:
        lines.append(f" set community {' '.join(route.communities)}")
    if route.large_communities:
        lines.append(f" set large-community {' '.join(route.large_communities)}")
    return lines, f" route-map {name}"
