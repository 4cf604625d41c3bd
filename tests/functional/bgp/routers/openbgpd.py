"""OpenBGPD (portable)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lab.process import start
from tests.functional.bgp.fabric import wait_until
from tests.functional.bgp.routers.base import Announced, Learnt, Neighbour, Router


class OpenbgpdRouter(Router):
    name = "openbgpd"
    restarts_gracefully = False  # it sends and takes the end-of-RIB, and keeps routes of others; its own time is 0
    internal_gtsm = False

    def start(self, *, restarted: bool = False) -> None:
        path = self._write("bgpd.conf", self._configuration())
        # It locks itself into /run/openbgpd, which its systemd unit would make: in a /run of its own.
        command = f"mount -t tmpfs none /run && mkdir /run/openbgpd && exec bgpd -d -v -f {path}"
        argv = ["unshare", "--mount", "sh", "-c", command]
        self.processes.append(start(self.name, argv, log=self.directory / "bgpd.log", netns=self.netns))
        wait_until("OpenBGPD answers", lambda: self._bgpctl("show", "neighbor"))

    def established(self, address: str) -> bool:
        return bool(self._neighbour(address).get("state") == "Established")

    def learnt(self, address: str) -> set[str]:
        return {path["prefix"] for path in self._received(address)}

    def path(self, address: str, prefix: str) -> Learnt | None:
        found = next((path for path in self._received(address) if path["prefix"] == prefix), None)
        if found is None:
            return None
        others = {name: value for each in found.get("attributes", ()) for name, value in each.items()}
        return Learnt(
            next_hop=found["exit_nexthop"],
            as_path=tuple(map(int, found["aspath"].split())),
            communities=frozenset(found.get("communities", ())),
            large_communities=frozenset(found.get("large_communities", ())),
            originator=others.get("originator"),
            clusters=tuple(others.get("cluster_list", ())),
        )

    def shut_down(self, address: str) -> None:
        self._ask([*self._control, "neighbor", address, "down"])

    def enable(self, address: str) -> None:
        self._ask([*self._control, "neighbor", address, "up"])

    def announce(self, route: Announced) -> None:
        self.netns.run([*self._control, "network", "add", route.prefix, *marks(route)])

    def withdraw(self, prefix: str) -> None:
        self.netns.run([*self._control, "network", "delete", prefix])

    def refresh(self, address: str) -> None:
        self._ask([*self._control, "neighbor", address, "refresh"])

    @property
    def _control(self) -> list[str]:
        return ["bgpctl", "-s", str(self.directory / "bgpd.sock")]

    def _bgpctl(self, *arguments: str) -> Any:
        return self._json([*self._control, "-j", *arguments])

    def _neighbour(self, address: str) -> dict[str, Any]:
        return next(iter(self._bgpctl("show", "neighbor", address).get("neighbors", [])), {})

    def _received(self, address: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._bgpctl("show", "rib", "detail", "in", "neighbor", address).get("rib", [])
        return found

    def _configuration(self) -> str:
        lines = [
            f"AS {self.setup.asn}",
            f"router-id {self.setup.router_id}",
            "fib-update no",
            "connect-retry 1",
            f'socket "{self.directory / "bgpd.sock"}"',
        ]
        lines += [f"listen on {address}" for address in sorted({one.local for one in self.setup.neighbours})]
        for route in self.setup.announced:
            said = marks(route)
            pairs = " ".join(f"{kind} {value}" for kind, value in zip(said[::2], said[1::2], strict=True))
            lines.append(f"network {route.prefix}" + (f" set {{ {pairs} }}" if pairs else ""))
        for peer in self.setup.neighbours:
            lines += [f"neighbor {peer.address} {{", *self._statements(peer), "}"]
        lines += ["allow from any", "allow to any"]
        return "\n".join(lines) + "\n"

    def _statements(self, peer: Neighbour) -> Iterator[str]:
        yield f"remote-as {peer.asn}"
        yield f"local-address {peer.local}"
        yield f"holdtime {peer.hold_time_s}"
        if peer.password is not None:
            yield f'tcp md5sig password "{peer.password}"'
        if peer.gtsm:
            yield "ttl-security yes"
        if peer.multihop is not None:
            yield f"multihop {peer.multihop}"
        if peer.passive:
            yield "passive"
        if peer.client:
            yield f"route-reflector {self.setup.router_id}"


def marks(route: Announced) -> list[str]:
    """Words for `network`: kind, value, kind, value."""
    words = [word for text in route.communities for word in ("community", text)]
    return words + [word for text in route.large_communities for word in ("large-community", text)]
