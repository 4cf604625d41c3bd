"""docs/tor.md: each router with the configuration that the guide gives it, and our agent with the guide's resources."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

import pytest

from lab.process import start
from tests.conftest import EtcdServer
from tests.functional.bgp import site as sites
from tests.functional.bgp.fabric import REPOSITORY, wait_until
from tests.functional.bgp.routers import Router, Setup
from tests.functional.bgp.routers.bird import BirdRouter
from tests.functional.bgp.routers.frr import FrrRouter
from tests.functional.bgp.routers.gobgp import GobgpRouter
from tests.functional.bgp.routers.openbgpd import OpenbgpdRouter
from tests.functional.bgp.site import AS, BLOCK, NODE, ROUTER, Site
from weft.ctl.main import main
from weft.model import keys
from weft.model.base import Metadata
from weft.model.node import Node, NodeBGPSpec, NodeSpec
from weft.model.values import AsNumber

pytestmark = pytest.mark.root

GUIDE = (REPOSITORY / "docs" / "tor.md").read_text()
OUTSIDE = {4: "192.0.2.0/26", 6: "2001:db8::/122"}
"""Blocks that are none of the guide's: its filters refuse them."""


def given(language: str) -> str:
    """The guide's block in a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    return str(found)


class Guided(Router):
    """What the test asks of each."""

    watches = False
    """It has BFD."""
    least = 0
    """The local preference of what it should use last."""

    @abstractmethod
    def preference(self, prefix: str) -> int:
        """The local preference of what it learnt."""

    def watched(self) -> int:
        """How many BFD sessions are up."""
        return 0


class GuideBird(BirdRouter, Guided):
    watches = True

    def _configuration(self) -> str:
        return given("bird")

    def learnt(self, address: str) -> set[str]:
        asked = self._birdc(f"show route where from = {address}") if address else ""
        return set(re.findall(r"^([0-9a-f.:]+/\d+)", asked, re.MULTILINE))

    def watched(self) -> int:
        return self._birdc("show bfd sessions").count(" Up ")

    def preference(self, prefix: str) -> int:
        found = re.search(r"BGP\.local_pref: (\d+)", self._birdc(f"show route {prefix} all"))
        return int(found.group(1)) if found else -1


class GuideFrr(FrrRouter, Guided):
    daemons = ("zebra", "bfdd", "bgpd")
    watches = True

    def start(self, *, restarted: bool = False) -> None:
        super().start(restarted=restarted)
        path = self._write("frr.conf", given("frr"))
        print(self.netns.run(["vtysh", "--vty_socket", str(self.directory), "-f", str(path)]))

    def _configuration(self) -> str:
        return "hostname router\n"

    def watched(self) -> int:
        peers = self._json(["vtysh", "--vty_socket", str(self.directory), "-d", "bfdd", "-c", "show bfd peers json"])
        return sum(each.get("status") == "up" for each in peers or [])

    def preference(self, prefix: str) -> int:
        (path,) = self._show(f"show bgp ipv4 unicast {prefix} json").get("paths", [{}])
        return int(path.get("locPrf", 100))


class GuideOpenbgpd(OpenbgpdRouter, Guided):
    def _configuration(self) -> str:
        return f'socket "{self.directory / "bgpd.sock"}"\nfib-update no\n{given("openbgpd")}'

    def learnt(self, address: str) -> set[str]:
        return {path["prefix"] for path in self._bgpctl("show", "rib", "neighbor", address).get("rib", [])}

    def preference(self, prefix: str) -> int:
        (path,) = self._bgpctl("show", "rib", prefix).get("rib", [{}])
        return int(path.get("localpref", -1))


class GuideGobgp(GobgpRouter, Guided):
    """Where its default route comes from the guide does not say: announced as a spine's would be."""

    least = 1

    def start(self, *, restarted: bool = False) -> None:
        path = self._write("gobgpd.toml", given("gobgp"))
        argv = ["gobgpd", "-f", str(path), "-t", "toml", "--pprof-disable"]
        self.processes.append(start(self.name, argv, log=self.directory / "gobgpd.log", netns=self.netns))
        wait_until("GoBGP answers", lambda: self._json(["gobgp", "-j", "global"]))
        for family, prefix, hop in (("ipv4", "0.0.0.0/0", ROUTER[4]), ("ipv6", "::/0", ROUTER[6])):
            self.netns.run(["gobgp", "global", "rib", "-a", family, "add", prefix, "nexthop", hop])

    def learnt(self, address: str) -> set[str]:
        version = 6 if ":" in address else 4
        table = self._json(["gobgp", "-j", "global", "rib", "-a", f"ipv{version}"]) or {}
        return {prefix for prefix, paths in table.items() if any(path.get("neighbor-ip") == address for path in paths)}

    def preference(self, prefix: str) -> int:
        table = self._json(["gobgp", "-j", "global", "rib", prefix]) or {}
        said = {one["type"]: one for path in table.get(prefix, ()) for one in path["attrs"]}
        return int(said.get(5, {}).get("value", 100))


KINDS: tuple[type[Guided], ...] = (GuideBird, GuideFrr, GuideOpenbgpd, GuideGobgp)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def rack(request: pytest.FixtureRequest, etcd_server: EtcdServer, tmp_path: Path) -> Iterator[Site]:
    with sites.site(request.param, etcd_server, tmp_path) as made:
        made.store.configuration(node_to_node_mesh_enabled=False)
        bgp = NodeBGPSpec(
            ipv4_address=IPv4Interface(f"{NODE[4]}/24"),
            ipv6_address=IPv6Interface(f"{NODE[6]}/64"),
            as_number=AsNumber(AS),
        )
        labelled = Node(metadata=Metadata(name="n1", labels={"rack": "rack1"}), spec=NodeSpec(bgp=bgp))
        made.store.put(keys.of(labelled), labelled)
        for block in OUTSIDE.values():
            made.store.block("n1", block)
        yield made
        made.settle()


def test_the_guides_router_and_resources_make_a_rack(
    rack: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ETCD_ENDPOINTS", rack.store.endpoint)
    resources = tmp_path / "rack.yaml"
    resources.write_text(given("yaml"))
    assert main(["apply", "-f", str(resources)]) == 0
    rack.peers += ["rack1-ipv4", "rack1-ipv6"]
    router = rack.start(Setup(asn=65001, neighbours=()))
    assert isinstance(router, Guided)
    for version, flag in ((4, "-4"), (6, "-6")):
        wait_until("a default route", lambda flag=flag: set(rack.node.routes(flag)) == {"default"})
        wait_until("our block alone", lambda version=version: router.learnt(NODE[version]) == {BLOCK[version]})
    if router.watches:
        wait_until("BFD is up in both families", lambda: router.watched() == 2)
    assert router.preference(BLOCK[4]) == 100
    assert main(["node", "drain", "n1", "--wait", "600s", "--no-wait"]) == 0
    wait_until("the last choice", lambda: router.preference(BLOCK[4]) == router.least)
    assert main(["node", "undrain", "n1"]) == 0
    wait_until("as before", lambda: router.preference(BLOCK[4]) == 100)
