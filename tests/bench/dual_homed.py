"""Three nodes on two segments, each with a ToR; a router behind both ToRs; a workload on each node: once with weft on
the nodes and once with BIRD, everything else alike.

```
            outside (BIRD, 192.0.2.0/24)
           /                            \\
   tor1 (BIRD, AS 65001)          tor2 (BIRD, AS 65002)
     | switch1 10.1.1.0/24          | switch2 10.1.2.0/24
     +-- node1, node2, node3 -------+
```
Each node peers with both ToRs and, over the first segment, with the other nodes; every session has BFD at 100 ms x 3,
90 s of hold time and graceful restart of 120 s. 10.65.200.1 is at the workloads of node1 and node2 alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path

from lab import process
from lab.netns import NetNs, bridge, link
from tests.bench import datastore
from tests.functional.bgp.fabric import AgentNode, Bird, Store
from weft.model import keys
from weft.model.base import Metadata
from weft.model.bgp import BGPConfiguration, BGPConfigurationSpec
from weft.model.values import AsNumber

NODES = ("node1", "node2", "node3")
ANYCAST, ANYCAST_AT = "10.65.200.1", ("node1", "node2")
OUTSIDE = [f"192.0.2.{last}" for last in range(10, 42)]
BFD = 'protocol bfd { interface "*" { interval 100 ms; multiplier 3; }; }'
DIRECT = 'protocol direct { interface "up*", "rack*", "tor*"; ipv4; }'
SESSION = (
    "hold time 90; bfd on; graceful restart on; graceful restart time 120;"
    " connect retry time 1; connect delay time 1; error wait time 1, 2;"
)
KERNEL = (
    "protocol kernel { scan time 2; merge paths on; persist; ipv4 { import none; export where source = RTS_BGP; }; }"
)


def number_of(node: str) -> int:
    return int(node[-1])


def workload_address(node: str) -> str:
    return f"10.65.{number_of(node)}.2"


def _configuration(router_id: str, own: str, sessions: list[str]) -> str:
    return "\n".join(
        (
            "log stderr all;",
            f"router id {router_id};",
            "protocol device { scan time 2; }",
            DIRECT,
            BFD,
            KERNEL,
            own,
            *sessions,
        )
    )


def _session(name: str, local: str, asn: int, peer: str, peer_asn: int, export: str) -> str:
    return (
        f"protocol bgp {name} {{ local {local} as {asn}; neighbor {peer} as {peer_asn}; {SESSION}"
        f" ipv4 {{ import all; export where {export}; next hop self; }}; }}"
    )


class Fabric(ABC):
    """The namespaces, the routers, and what the faults need to know. Who is on the nodes is for the subclass."""

    def __init__(self, stack: ExitStack, prefix: str, directory: Path) -> None:
        self._stack, self._prefix = stack, prefix
        self.directory = directory
        self.outside = self._netns("out")
        self.tors = {tor: self._netns(tor) for tor in ("tor1", "tor2")}
        self.switches = {tor: self._netns(f"sw{tor[-1]}") for tor in self.tors}
        self.nodes = {node: self._netns(node) for node in NODES}
        self.workloads = {node: self._netns(f"w{number_of(node)}") for node in NODES}
        self.routers = {name: Bird(netns, directory / name, "") for name, netns in self._router_places().items()}
        self._wire()
        self._start_routers()

    @abstractmethod
    def start(self) -> None:
        """Every node's processes."""

    @abstractmethod
    def processes(self, node: str) -> list[process.Process]:
        """Those of a node."""

    def ready(self) -> bool:
        """Every session is up, watched by BFD, and every route is in every kernel."""
        for tor in self.tors:
            router = self.routers[tor]
            if router.ask("show protocols").count("Established") < 4:
                return False
            if router.ask("show bfd sessions").count(" Up ") < 4:
                return False
        for node, netns in self.nodes.items():
            others = [one for one in NODES if one != node]
            if self.hops(netns, "192.0.2.0/24") != 2 or any(
                self.hops(netns, f"10.65.{number_of(one)}.0/26") != 1 for one in others
            ):
                return False
        prefixes = {f"10.65.{number_of(node)}.0/26": 2 for node in NODES} | {ANYCAST: 2}
        return self.hops(self.nodes["node3"], ANYCAST) == 2 and all(
            self.hops(self.outside, prefix) == hops for prefix, hops in prefixes.items()
        )

    def between_routers(self) -> list[list[str]]:
        """The BFD sessions of the routers with each other, and since when each is as it is. No fault of a process on a
        node has anything to do with them: if one has expired, the machine stood still."""
        lines = self.routers["outside"].ask("show bfd sessions").splitlines()
        return [line.split()[:4] for line in lines if line.startswith("10.")]

    def hops(self, netns: NetNs, prefix: str) -> int:
        """How many next hops a BGP route has in a namespace's kernel."""
        routes = [one for one in netns.ip_json("route", "show", prefix) if one.get("protocol") in ("bird", "bgp")]
        return sum("gateway" in hop for route in routes for hop in route.get("nexthops", [route]))

    def client(self, node: str, tor: str) -> str:
        """An address outside whose packets to and from a workload of the node both go by way of this ToR, as the
        kernels choose among equal paths; it is what makes a fault strike both ways."""
        workload = workload_address(node)
        inside, outside = f"10.1.{tor[-1]}.254", f"10.2.{tor[-1]}.1"
        for address in OUTSIDE:
            there = self.outside.ip_json("route", "get", workload, "from", address)
            back = self.nodes[node].ip_json("route", "get", address, "from", workload, "iif", "cali0")
            if there[0].get("gateway") == outside and back[0].get("gateway") == inside:
                return address
        raise AssertionError(f"no address outside goes by way of {tor} in both directions")

    def next_node(self, node: str, address: str) -> str:
        """The node by which packets from the workload of `node` go to an address."""
        found = self.nodes[node].ip_json("route", "get", address, "from", workload_address(node), "iif", "cali0")
        gateway = found[0].get("gateway", "")
        return f"node{int(gateway.rsplit('.', 1)[1]) - 10}"

    def _netns(self, name: str) -> NetNs:
        made = NetNs(f"{self._prefix}{name}").create()
        made.sysctl(ipv4__ip_forward=1, ipv4__conf__all__rp_filter=0, ipv4__conf__default__rp_filter=0)
        self._stack.callback(made.delete)
        self._stack.callback(lambda: process.stop(process.in_netns(made), grace_s=1))
        return made

    def _router_places(self) -> dict[str, NetNs]:
        return {"outside": self.outside, **self.tors}

    def _wire(self) -> None:
        for tor, switch in self.switches.items():
            segment = tor[-1]
            bridge(switch, "br0")
            ends = [(self.tors[tor], "rack0", "tor", f"10.1.{segment}.254/24")]
            ends += [
                (self.nodes[node], f"up{segment}", node, f"10.1.{segment}.{10 + number_of(node)}/24") for node in NODES
            ]
            for end, device, port, address in ends:
                link(end, device, switch, port)
                switch.ip("link", "set", port, "master", "br0")
                end.ip("address", "add", address, "dev", device)
            link(self.tors[tor], "up0", self.outside, tor)
            self.tors[tor].ip("address", "add", f"10.2.{segment}.1/30", "dev", "up0")
            self.outside.ip("address", "add", f"10.2.{segment}.2/30", "dev", tor)
        self.outside.ip("route", "add", "local", "192.0.2.0/24", "dev", "lo")
        for node in NODES:
            self._wire_workload(node)

    def _wire_workload(self, node: str) -> None:
        there, here = self.workloads[node], self.nodes[node]
        link(there, "eth0", here, "cali0")
        here.ip("link", "set", "cali0", "address", "ee:ee:ee:ee:ee:ee")
        there.ip("neigh", "add", "169.254.1.1", "lladdr", "ee:ee:ee:ee:ee:ee", "dev", "eth0")
        here.sysctl(ipv4__conf__cali0__proxy_arp=1)
        there.ip("route", "add", "169.254.1.1", "dev", "eth0", "scope", "link")
        there.ip("route", "add", "default", "via", "169.254.1.1")
        for address in [workload_address(node), *([ANYCAST] if node in ANYCAST_AT else [])]:
            there.ip("address", "add", f"{address}/32", "dev", "eth0")
            here.ip("route", "add", address, "dev", "cali0", "proto", "80")

    def _start_routers(self) -> None:
        learnt = 'source = RTS_BGP || proto = "own"'
        sessions = [
            _session(tor, f"10.2.{tor[-1]}.2", 65100, f"10.2.{tor[-1]}.1", 65000 + int(tor[-1]), learnt)
            for tor in self.tors
        ]
        own = "protocol static own { ipv4; route 192.0.2.0/24 blackhole; }"
        self.routers["outside"].configuration = _configuration("10.2.0.2", own, sessions)
        for tor in self.tors:
            asn, segment = 65000 + int(tor[-1]), tor[-1]
            sessions = [_session("outside", f"10.2.{segment}.1", asn, f"10.2.{segment}.2", 65100, learnt)]
            sessions += [
                _session(node, f"10.1.{segment}.254", asn, f"10.1.{segment}.{10 + number_of(node)}", 64512, learnt)
                for node in NODES
            ]
            self.routers[tor].configuration = _configuration(f"10.1.{segment}.254", "", sessions)
        for router in self.routers.values():
            router.start()


class WeftFabric(Fabric):
    def __init__(self, stack: ExitStack, prefix: str, directory: Path) -> None:
        super().__init__(stack, prefix, directory)
        self.store = self._datastore()
        self.agents = {
            node: AgentNode(node, netns, directory / node, datastore.ENVIRON) for node, netns in self.nodes.items()
        }

    def start(self) -> None:
        for agent in self.agents.values():
            agent.run_dir.mkdir()
            agent.start()

    def processes(self, node: str) -> list[process.Process]:
        return process.in_netns(self.nodes[node])

    def _datastore(self) -> Store:
        store = datastore.start(self._stack, self.directory, *self.nodes.values())
        metadata = Metadata(name="default", annotations={"weft/bfd": "100ms x 3"})
        configuration = BGPConfiguration(metadata=metadata, spec=BGPConfigurationSpec(as_number=AsNumber(64512)))
        store.put(keys.of(configuration), configuration)
        store.pool("pool", "10.65.0.0/16")
        for node in NODES:
            store.node(node, f"10.1.1.{10 + number_of(node)}/24")
            store.block(node, f"10.65.{number_of(node)}.0/26")
        for tor in self.tors:
            store.peer(tor, peer_ip=f"10.1.{tor[-1]}.254", as_number=65000 + int(tor[-1]), source_address="None")
        return store


class BirdFabric(Fabric):
    def __init__(self, stack: ExitStack, prefix: str, directory: Path) -> None:
        super().__init__(stack, prefix, directory)
        self.birds = {node: Bird(netns, directory / node, self._of_node(node)) for node, netns in self.nodes.items()}

    def start(self) -> None:
        for bird in self.birds.values():
            bird.start()

    def processes(self, node: str) -> list[process.Process]:
        started = self.birds[node].process
        return [] if started is None else [started]

    def restart(self, node: str) -> None:
        """Start BIRD again as Calico's does, in graceful-restart recovery."""
        bird = self.birds[node]
        argv = ["bird", "-R", "-f", "-c", str(bird.directory / "bird.conf"), "-s", bird.control]
        bird.process = process.start("bird", argv, log=bird.directory / "bird.log", netns=bird.netns)

    def _of_node(self, node: str) -> str:
        number = number_of(node)
        routes = [f"10.65.{number}.0/26", *([f"{ANYCAST}/32"] if node in ANYCAST_AT else [])]
        own = f"protocol static own {{ ipv4; {' '.join(f'route {route} blackhole;' for route in routes)} }}"
        sessions = [
            _session(
                tor,
                f"10.1.{tor[-1]}.{10 + number}",
                64512,
                f"10.1.{tor[-1]}.254",
                65000 + int(tor[-1]),
                'proto = "own"',
            )
            for tor in self.tors
        ]
        sessions += [
            _session(one, f"10.1.1.{10 + number}", 64512, f"10.1.1.{10 + number_of(one)}", 64512, 'proto = "own"')
            for one in NODES
            if one != node
        ]
        return _configuration(f"10.1.1.{10 + number}", own, sessions)
