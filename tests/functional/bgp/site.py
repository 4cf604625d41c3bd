"""A site for real routers: a node with the BGP agent, a second one that can join, and room for one router at a time,
all on one segment. The nodes outlive the routers, so that a test pays only for its own sessions."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from lab.netns import NetNs, bridge, link
from tests.conftest import EtcdServer, namespaces
from tests.functional.bgp.fabric import AgentNode, Store, wait_until
from tests.functional.bgp.forward import Forwarder
from tests.functional.bgp.routers import Neighbour, Router, Setup
from weft.ctl.main import main
from weft.model.bgp import BGPPassword, SecretKeySelector

AS = 64512
ROUTER = {4: "10.1.0.254", 6: "fd01::254"}
FAR = "10.9.0.254"
"""An address of the router behind its own loopback: not on the segment."""
NODE = {4: "10.1.0.1", 6: "fd01::1"}
SECOND = {4: "10.1.0.2", 6: "fd01::2"}
BLOCK = {4: "10.65.1.0/26", 6: "fd65::1:0/122"}
SECOND_BLOCK = {4: "10.65.2.0/26", 6: "fd65::2:0/122"}
OTHER_BLOCK = "10.65.3.0/26"
"""Of the node's while a test says so."""
PASSWORD = "not.for/any=log"
SECRET = BGPPassword(secret_key_ref=SecretKeySelector(name="bgp", key="router"))


@dataclass
class Site:
    """What the tests of one kind of router share. `node` runs; `second` is started by a test that needs it."""

    kind: type[Router]
    store: Store
    node: AgentNode
    second: AgentNode
    outside: NetNs
    directory: Path
    routers: list[Router] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)
    _told: int = 0
    _started: int = 0

    def peer(self, name: str, peer_ip: str, asn: int, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        self.store.peer(name, annotations, peer_ip=peer_ip, as_number=asn, **spec)
        self.peers.append(name)

    def start(self, setup: Setup) -> Router:
        """A router of this site's kind."""
        made = self.kind(self.outside, self.directory / f"router{self._started}", setup)
        self._started += 1
        self.routers.append(made)
        made.start()
        return made

    def router_addresses(self) -> set[str]:
        """On the segment. A next hop of IPv6 may be a link-local one, too (RFC 2545 3)."""
        (interface,) = self.outside.ip_json("-6", "address", "show", "dev", "up0")
        return {address["local"] for address in interface["addr_info"]}

    def received(self, node: AgentNode, address: str) -> dict[str, dict[str, Any]]:
        """What `weftctl bgp received` says, by prefix."""
        said = io.StringIO()
        with patch.dict(os.environ, {"WEFT_RUN_DIR": str(node.run_dir)}), redirect_stdout(said):
            assert main(["bgp", "received", address, "-o", "json"]) == 0
        return {path["prefix"]: path for path in json.loads(said.getvalue())}

    def own_blocks(self) -> None:
        """The blocks that the nodes have, whatever a test that failed has left."""
        for name, blocks in (("n1", BLOCK), ("n2", SECOND_BLOCK)):
            for block in blocks.values():
                self.store.block(name, block)
        self.store.release_block("n1", OTHER_BLOCK)

    def settle(self) -> None:
        """Take away what the test made, and wait until nothing is left of it."""
        for router in self.routers:
            print(f"--- {router.name}\n{router.log()[-5000:]}")
            router.kill()
        print(f"--- {self.node.name}\n{self.node.log()[self._told :][-5000:]}")
        self._told = len(self.node.log())
        self.routers.clear()
        for name in self.peers:
            self.store.remove_peer(name)
        self.peers.clear()
        self.own_blocks()
        for node in (self.node, self.second):
            if node.agent is not None:
                wait_until(
                    "the sessions are gone",
                    lambda node=node: "neighbor" not in (node.run_dir / "speaker.conf").read_text(),
                )
                wait_until("the routes are gone", lambda node=node: not node.routes() and not node.routes("-6"))


def neighbour(version: int, **options: Any) -> Neighbour:
    """Our node as a neighbour of the router's."""
    return Neighbour(address=NODE[version], local=ROUTER[version], asn=AS, **options)


@contextmanager
def site(kind: type[Router], etcd: EtcdServer, run_dir: Path) -> Iterator[Site]:
    store = Store(etcd.endpoint)
    forwarders: list[Forwarder] = []
    host, _, port = etcd.endpoint.rpartition(":")
    with namespaces() as make, TemporaryDirectory(prefix="weft-routers-") as directory:
        Path(directory).chmod(0o755)  # FRR's daemons give up root first and then make their files
        nodes = []
        for name in ("n1", "n2"):
            inside = make(f"{kind.name}-{name}")
            forwarders.append(Forwarder(inside, 2379, (host, int(port))))
            environ = {"ETCD_ENDPOINTS": "http://127.0.0.1:2379", "WEFT_BGP_SECRETS_DIR": str(run_dir / "secrets")}
            nodes.append(AgentNode(name, inside, run_dir / name, environ))
            nodes[-1].run_dir.mkdir()
        made = Site(kind, store, nodes[0], nodes[1], make(f"{kind.name}-router"), Path(directory))
        try:
            _wire(made, make)
            _populate(made, run_dir)
            made.node.start()
            wait_until("the speaker runs", lambda: (made.node.run_dir / "speaker.conf").exists())
            yield made
        finally:
            for node in nodes:
                if node.agent is not None:
                    node.agent.signal(signal.SIGTERM)
            for forwarder in forwarders:
                forwarder.close()
            etcd.wipe()


def _wire(made: Site, make: Callable[[str], NetNs]) -> None:
    switch = make(f"{made.kind.name}-switch")
    bridge(switch, "br0")
    ends = ((made.node.netns, NODE), (made.second.netns, SECOND), (made.outside, ROUTER))
    for number, (end, addresses) in enumerate(ends):
        link(end, "up0", switch, f"port{number}")
        switch.ip("link", "set", f"port{number}", "master", "br0")
        end.ip("address", "add", f"{addresses[4]}/24", "dev", "up0")
        end.ip("address", "add", f"{addresses[6]}/64", "dev", "up0", "nodad")
    # FRR sets up no session over IPv6 before it has a link-local address.
    wait_until("link-local addresses can be used", lambda: all(_ready(end) for end, _ in ends))
    made.outside.ip("address", "add", f"{FAR}/32", "dev", "lo")
    made.node.netns.ip("route", "add", f"{FAR}/32", "via", ROUTER[4])


def _ready(end: NetNs) -> bool:
    local = end.ip("-6", "address", "show", "dev", "up0", "scope", "link")
    return "fe80" in local and "tentative" not in local


def _populate(made: Site, run_dir: Path) -> None:
    secret = run_dir / "secrets" / "kube-system" / "bgp" / "router"
    secret.parent.mkdir(parents=True)
    secret.write_text(PASSWORD + "\n")
    made.store.pool("pool", "10.65.0.0/16")
    for name, addresses in (("n1", NODE), ("n2", SECOND)):
        made.store.node(name, f"{addresses[4]}/24", address6=f"{addresses[6]}/64")
    made.own_blocks()
