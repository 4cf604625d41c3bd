"""GoBGP 3."""

from __future__ import annotations

from collections.abc import Iterator
from signal import SIGHUP
from typing import Any

from lab.process import start
from tests.functional.bgp.fabric import wait_until
from tests.functional.bgp.routers.base import RESTART_TIME_S, Announced, Learnt, Neighbour, Router, family, version_of

ESTABLISHED = 6  # session_state of its API


class GobgpRouter(Router):
    name = "gobgp"

    def start(self, *, restarted: bool = False) -> None:
        """Its end-of-RIB follows what it has when a session comes up, so it has its routes before it has sessions. That
        it restarted it says only to neighbours that it begins with: these it cannot reach until then."""
        lines = ["[global.config]", f"as = {self.setup.asn}", f'router-id = "{self.setup.router_id}"']
        sessions = [line for peer in self.setup.neighbours for line in self._neighbour(peer)]
        path = self._write("gobgpd.toml", "\n".join(lines + (sessions if restarted else [])) + "\n")
        argv = ["gobgpd", "-f", str(path), "-t", "toml", "--pprof-disable", *(["-r"] if restarted else [])]
        unreachable = [peer.address for peer in self.setup.neighbours] if restarted else []
        for address in unreachable:
            self.netns.ip("route", "add", "unreachable", address)
        process = start(self.name, argv, log=self.directory / "gobgpd.log", netns=self.netns)
        self.processes.append(process)
        wait_until("GoBGP answers", lambda: self._json(["gobgp", "-j", "global"]))
        for route in self.setup.announced:
            self.announce(route)
        for address in unreachable:
            self.netns.ip("route", "delete", "unreachable", address)
        if not restarted:
            self._write("gobgpd.toml", "\n".join(lines + sessions) + "\n")
            process.signal(SIGHUP)

    def established(self, address: str) -> bool:
        said = self._json(["gobgp", "-j", "neighbor", address])
        return bool(said.get("state", {}).get("session_state") == ESTABLISHED)

    def learnt(self, address: str) -> set[str]:
        return set(self._received(address))

    def path(self, address: str, prefix: str) -> Learnt | None:
        paths = self._received(address).get(prefix)
        if not paths:
            return None
        said = {attribute["type"]: attribute for attribute in paths[0]["attrs"]}
        reachable = said.get(14, said.get(3, {}))
        return Learnt(
            next_hop=reachable["nexthop"],
            as_path=tuple(asn for segment in said[2].get("as_paths") or () for asn in segment["asns"]),
            communities=frozenset(f"{one >> 16}:{one & 0xFFFF}" for one in said.get(8, {}).get("communities", ())),
            large_communities=frozenset(
                f"{one['ASN']}:{one['LocalData1']}:{one['LocalData2']}" for one in said.get(32, {}).get("value", ())
            ),
            originator=said.get(9, {}).get("value"),
            clusters=tuple(said.get(10, {}).get("value", ())),
        )

    def shut_down(self, address: str) -> None:
        self._ask(["gobgp", "neighbor", address, "disable"])

    def enable(self, address: str) -> None:
        self._ask(["gobgp", "neighbor", address, "enable"])

    def announce(self, route: Announced) -> None:
        marks = ["community", ",".join(route.communities)] if route.communities else []
        marks += ["large-community", ",".join(route.large_communities)] if route.large_communities else []
        hop = ["nexthop", self.setup.next_hop(route)]
        self.netns.run([*self._rib(route.version), "add", route.prefix, "origin", "igp", *hop, *marks])

    def withdraw(self, prefix: str) -> None:
        self.netns.run([*self._rib(version_of(prefix)), "del", prefix])

    def refresh(self, address: str) -> None:
        self._ask(["gobgp", "neighbor", address, "softresetin"])

    @staticmethod
    def _rib(version: int) -> list[str]:
        return ["gobgp", "global", "rib", "-a", family(version)]

    def _received(self, address: str) -> dict[str, list[Any]]:
        argv = ["gobgp", "-j", "neighbor", address, "adj-in", "-a", family(version_of(address))]
        found: dict[str, list[Any]] = self._json(argv) or {}
        return found

    def _neighbour(self, peer: Neighbour) -> Iterator[str]:
        yield "[[neighbors]]"
        yield "[neighbors.config]"
        yield f'neighbor-address = "{peer.address}"'
        yield f"peer-as = {peer.asn}"
        if peer.password is not None:
            yield f'auth-password = "{peer.password}"'
        yield "[neighbors.timers.config]"
        yield f"hold-time = {peer.hold_time_s}"
        yield "connect-retry = 1"
        yield "idle-hold-time-after-reset = 1"
        yield "[neighbors.transport.config]"
        yield f'local-address = "{peer.local}"'
        if peer.passive:
            yield "passive-mode = true"
        if peer.gtsm:
            yield from ("[neighbors.ttl-security.config]", "enabled = true", "ttl-min = 255")
        if peer.multihop is not None:
            yield from ("[neighbors.ebgp-multihop.config]", "enabled = true", f"multihop-ttl = {peer.multihop}")
        if peer.client:
            yield "[neighbors.route-reflector.config]"
            yield "route-reflector-client = true"
            yield f'route-reflector-cluster-id = "{self.setup.router_id}"'
        yield from ("[neighbors.graceful-restart.config]", "enabled = true", f"restart-time = {RESTART_TIME_S}")
        yield "[[neighbors.afi-safis]]"
        yield "[neighbors.afi-safis.config]"
        yield f'afi-safi-name = "{family(peer.version)}-unicast"'
        yield "[neighbors.afi-safis.mp-graceful-restart.config]"
        yield "enabled = true"
