"""BIRD 2."""

from __future__ import annotations

import re

from lab.process import start
from tests.functional.bgp.fabric import wait_until
from tests.functional.bgp.routers.base import RESTART_TIME_S, Announced, Learnt, Neighbour, Router, family


class BirdRouter(Router):
    name = "bird"
    _announced: tuple[Announced, ...] = ()

    def start(self, *, restarted: bool = False) -> None:
        self._announced = self.setup.announced
        path = self._write("bird.conf", self._configuration())
        argv = ["bird", "-f", "-c", str(path), "-s", self._control, *(["-R"] if restarted else [])]
        self.processes.append(start(self.name, argv, log=self.directory / "bird.log", netns=self.netns))
        wait_until("BIRD answers", lambda: "Daemon is up" in self._birdc("show status"))

    def established(self, address: str) -> bool:
        return "Established" in self._birdc(f"show protocols {protocol(address)}")

    def learnt(self, address: str) -> set[str]:
        return set(re.findall(r"^([0-9a-f.:]+/\d+)", self._birdc(f"show route protocol {protocol(address)}"), re.M))

    def path(self, address: str, prefix: str) -> Learnt | None:
        text = self._birdc(f"show route {prefix} protocol {protocol(address)} all")
        said = dict(re.findall(r"BGP\.(\w+): (.*?)\s*$", text, re.MULTILINE))
        if not said:
            return None
        return Learnt(
            next_hop=said["next_hop"].split()[0],
            as_path=tuple(map(int, said.get("as_path", "").split())),
            communities=tuples(said.get("community", "")),
            large_communities=tuples(said.get("large_community", "")),
            originator=said.get("originator_id"),
            clusters=tuple(said.get("cluster_list", "").split()),
        )

    def shut_down(self, address: str) -> None:
        self._birdc(f"disable {protocol(address)}")

    def enable(self, address: str) -> None:
        self._birdc(f"enable {protocol(address)}")

    def announce(self, route: Announced) -> None:
        self._announced = (*self._announced, route)
        self._reconfigure()

    def withdraw(self, prefix: str) -> None:
        self._announced = tuple(route for route in self._announced if route.prefix != prefix)
        self._reconfigure()

    def refresh(self, address: str) -> None:
        self._birdc(f"reload in {protocol(address)}")

    @property
    def _control(self) -> str:
        return str(self.directory / "bird.ctl")

    def _birdc(self, command: str) -> str:
        return self._ask(["birdc", "-s", self._control, command])

    def _reconfigure(self) -> None:
        self._write("bird.conf", self._configuration())
        self._birdc("configure")

    def _configuration(self) -> str:
        parts = [f"router id {self.setup.router_id};", "log stderr all;", "protocol device {}"]
        for version in (4, 6):
            routes = " ".join(static(route) for route in self._announced if route.version == version)
            parts.append(f"protocol static own{version} {{ {family(version)}; {routes} }}")
        parts += [self._session(each) for each in self.setup.neighbours]
        return "\n".join(parts) + "\n"

    def _session(self, peer: Neighbour) -> str:
        options = [
            f"local {peer.local} as {self.setup.asn};",
            f"neighbor {peer.address} as {peer.asn};",
            f"hold time {peer.hold_time_s};",
            "connect retry time 1; connect delay time 1; error wait time 1, 2;",
            f"graceful restart on; graceful restart time {RESTART_TIME_S};",
            "direct;" if peer.multihop is None else f"multihop {peer.multihop};",
            f"{family(peer.version)} {{ import all; export where source ~ [RTS_STATIC, RTS_BGP]; }};",
        ]
        if peer.password is not None:
            options.append(f'password "{peer.password}";')
        if peer.gtsm:
            options.append("ttl security on;")
        if peer.passive:
            options.append("passive on;")
        if peer.client:
            options.append(f"rr client; rr cluster id {self.setup.router_id};")
        return f"protocol bgp {protocol(peer.address)} {{ {' '.join(options)} }}"


def protocol(address: str) -> str:
    """What the session with this neighbour is called."""
    return "p_" + re.sub(r"\W", "_", address)


def static(route: Announced) -> str:
    added = [f"bgp_community.add(({text.replace(':', ',')}));" for text in route.communities]
    added += [f"bgp_large_community.add(({text.replace(':', ',')}));" for text in route.large_communities]
    return f"route {route.prefix} blackhole {{ {' '.join(added)} }};" if added else f"route {route.prefix} blackhole;"


def tuples(text: str) -> frozenset[str]:
    """(64512,1) (64512, 2) -> {"64512:1", "64512:2"}."""
    return frozenset(re.sub(r",\s*", ":", inside) for inside in re.findall(r"\(([^)]*)\)", text))
