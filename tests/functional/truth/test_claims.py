"""What weft promises of a node, tried on one with the real agent, while packets flow."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from lab.netns import NetNs, link
from lab.traffic import Traffic
from tests.functional.truth.probes import TCP, UDP, Probe
from tests.functional.truth.world import METRICS_PORT, NODE, OUTSIDE, UPLINK, Tree, World, calico

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("truth")]
CLIENT, SERVER, OTHER = "red/a", "blue/b", "green/c"
FLIPS = 12
SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>


def guard(*rules: Tree, **spec: Any) -> Tree:
    return calico("GlobalNetworkPolicy", "guard", selector="app == 'db'", ingress=list(rules), **spec)


def rule(action: str, protocol: str, port: Any, **source: Any) -> Tree:
    return {"action": action, "protocol": protocol, "destination": {"ports": [port]}, "source": source}


@contextmanager
def new_flows(world: World, client: str, server: str, port: int) -> Iterator[list[int]]:
    """One new UDP flow after another, each from a port of its own. At the end the list holds how many were sent and how
    many arrived."""
    source, destination = world.addresses[client][0], world.addresses[server][0]
    counted: list[int] = []
    stop = threading.Event()
    sent = 0
    with world.where[server].enter():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
    receiver.bind((destination, port))
    receiver.setblocking(False)

    def send() -> None:
        nonlocal sent
        with world.where[client].enter():
            while not stop.wait(0.0003):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                    one.bind((source, 1024 + sent % 64000))
                    one.sendto(b"x", (destination, port))
                sent += 1

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield counted
    finally:
        stop.set()
        sending.join()
        time.sleep(0.1)
        arrived = 0
        with receiver:
            try:
                while receiver.recv(10):
                    arrived += 1
            except BlockingIOError:
                pass
        counted += [sent, arrived]


FLIPPED = [
    guard(
        rule("Deny", "UDP", "7000:7001", nets=["198.51.100.0/24"]),
        rule("Allow", "UDP", 7001, selector="app == 'web'"),
    ),
    guard(
        rule("Allow", "UDP", "7001:7009", serviceAccounts={"names": ["robot"]}, selector="has(tier)"),
        rule("Deny", "UDP", 7001, selector="app == 'web'"),
        {"action": "Pass"},
        types=["Ingress", "Egress"],
        egress=[{"action": "Allow"}],
        order=3,
    ),
]


def test_half_a_policy_is_never_seen(live: World) -> None:
    """Both versions allow the flow, each by rules that would deny it if they stood among the other's."""
    live.apply(FLIPPED[:1])
    with new_flows(live, CLIENT, SERVER, 7001) as counted:
        for number in range(FLIPS):
            live.weftctl.run("apply", "-f", "-", stdin=json.dumps(FLIPPED[(number + 1) % 2]))
            time.sleep(0.02)
        live.settle()
    sent, arrived = counted
    assert sent > 200
    assert arrived == sent


def test_a_workload_that_moves_from_one_set_to_another_is_never_in_neither(live: World) -> None:
    rules = [rule("Allow", "UDP", 7001, selector=f"app == '{app}'") for app in ("web", "moved")]
    live.apply([guard(*rules)])
    pod = live.pod(*CLIENT.split("/"))
    with new_flows(live, CLIENT, SERVER, 7001) as counted:
        for number in range(FLIPS):
            pod["metadata"]["labels"] = {"app": ("moved", "web")[number % 2]}
            live.weftctl.run("apply", "-f", "-", stdin=json.dumps(pod))
            time.sleep(0.02)
        live.weftctl.run("apply", "-f", "-", stdin=json.dumps(live.pod(*CLIENT.split("/"))))
        live.settle()
    sent, arrived = counted
    assert sent > 200
    assert arrived == sent


def listing(world: World) -> tuple[str, dict[str, int]]:
    """The table with the handles of its rules, without what packets have counted, and these counts."""
    text = world.node.netns.run(["nft", "-a", "list", "ruleset"])
    counts: dict[str, int] = {}
    for name, packets in re.findall(r"counter (\S+) \{[^}]*?packets (\d+)", text):
        counts[name] = int(packets)
    return re.sub(r"packets \d+ bytes \d+", "", text), counts


def test_an_agent_that_dies_and_comes_back_changes_nothing(live: World) -> None:
    live.apply(
        [
            guard(rule("Allow", "UDP", "7000:7001"), rule("Allow", "TCP", 7000), rule("Deny", "TCP", 80)),
            calico("HostEndpoint", "uplink", node="n1", interfaceName=UPLINK),
            calico("GlobalNetworkSet", "somewhere", nets=["192.0.2.0/24", "198.51.100.0/25"]),
        ]
    )
    where, address = live.where, live.addresses[SERVER][0]
    with Traffic(where[CLIENT], where[SERVER], address) as traffic, new_flows(live, CLIENT, SERVER, 7001) as counted:
        time.sleep(0.3)
        table, before = listing(live)
        live.node.kill_agent()
        time.sleep(0.3)
        live.node.start_agent()
        time.sleep(0.5)
        again, after = listing(live)
    report = traffic.report()
    assert (report.udp_lost, report.udp_duplicated, report.tcp_lost) == (0, 0, 0)
    assert counted[0] == counted[1]
    assert again == table
    assert before
    assert after.keys() == before.keys()
    assert all(after[name] >= before[name] for name in before)
    assert any(after[name] > before[name] for name in before)


FAILSAFE_PORTS = (22, 179, 2379, 2380, 5473, 6443, 6666, 6667)
CLOSED = {"ingress": [{"action": "Deny"}], "egress": [{"action": "Deny"}], "types": ["Ingress", "Egress"], "order": 0}


def test_nobody_locks_himself_out_of_a_node(live: World) -> None:
    """Everything denied at every stage, by mistake: the failsafe ports stay open, from IPv4 and IPv6, and so does what
    the node itself must reach; pods go on, and the policy can be taken back."""
    early = {"ingress": CLOSED["ingress"], "types": ["Ingress"], "order": 0, "selector": "has(oops)"}
    endpoint = calico("HostEndpoint", "uplink", node="n1", interfaceName=UPLINK)
    endpoint["metadata"]["labels"] = {"oops": ""}
    locked = [
        endpoint,
        calico("GlobalNetworkPolicy", "oops", selector="has(oops)", **CLOSED),
        calico("GlobalNetworkPolicy", "oops-early", preDNAT=True, applyOnForward=True, **early),
        calico(
            "GlobalNetworkPolicy",
            "oops-untracked",
            doNotTrack=True,
            applyOnForward=True,
            selector="has(oops)",
            **CLOSED,
        ),
    ]
    with ExitStack() as stack:
        for there in ("node", "outside"):
            with live.where[there].enter():
                for address in live.addresses[there]:
                    family = socket.AF_INET6 if ":" in address else socket.AF_INET
                    for port in FAILSAFE_PORTS:
                        stack.enter_context(socket.create_server((address, port), family=family))
        inbound = {
            Probe(out, node, TCP, port) for out, node in zip(OUTSIDE, NODE, strict=True) for port in FAILSAFE_PORTS
        }
        outbound = {
            Probe(node, out, TCP, port)
            for out, node in zip(OUTSIDE, NODE, strict=True)
            for port in FAILSAFE_PORTS
            if port != 22
        }
        outbound |= {Probe(node, out, UDP, 53) for out, node in zip(OUTSIDE, NODE, strict=True)}
        closed = {
            Probe(OUTSIDE[0], NODE[0], TCP, 80),
            Probe(NODE[1], OUTSIDE[1], TCP, 443),
            Probe(NODE[0], OUTSIDE[0], TCP, 22),
        }
        live.apply(locked)
        live.forget_connections()
        pods = {Probe(live.addresses[CLIENT][0], live.addresses[SERVER][0], TCP, 80)}
        assert live.prober.passing([*inbound, *outbound, *closed, *pods], inbound | outbound | pods) == (
            inbound | outbound | pods
        )
    status = json.loads(live.weftctl.run("node", "status", "-o", "json", "--socket", str(felix(live))))
    assert [(one["name"], one["interface"], one["state"]) for one in status["hostEndpoints"]] == [
        ("uplink", UPLINK, "up")
    ]
    assert status["hostEndpoints"][0]["policies"] == ["oops", "oops-early", "oops-untracked"]
    live.apply([])
    served = {one for one in closed if one.port != 22}
    assert live.prober.passing(served, served) == served


def felix(world: World) -> Any:
    return world.node.directory / "felix.sock"


POLICIES = "/calico/resources/v3/projectcalico.org/"
MALFORMED: dict[str, dict[str, Any]] = {
    "red/b": {"ingress": [{"action": 7, "protocol": {"x": 1}}]},
    "red/c": {"types": ["Ingress"], "ingress": "everything"},
    "blue/b": {"ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [99999]}}]},
    "blue/c": {"ingress": [{"action": "Allow", "source": {"selector": "app =="}}]},
    "green/b": {"types": ["Ingress"], "ingress": [{"action": "Perhaps"}]},
}
"""By the pod that each is for; `broken-0` and so on."""


def test_a_malformed_policy_closes_its_own_endpoints_and_is_told(live: World) -> None:
    address = {name: pair[0] for name, pair in live.addresses.items()}
    to_all = {Probe(address[CLIENT], address[name], TCP, 80) for name in address if name != CLIENT} - {
        Probe(address[CLIENT], address["node"], TCP, 80)
    }
    refused = {Probe(address[CLIENT], address[name], TCP, 80) for name in MALFORMED}
    others = to_all - refused | {Probe(address[name], address[CLIENT], TCP, 80) for name in MALFORMED}
    keys = [_put(live, number, _spec_for(pod) | spec) for number, (pod, spec) in enumerate(MALFORMED.items())]
    try:
        live.settle()
        live.forget_connections()
        assert live.prober.passing(refused | others, others) == others
        told = notices(live)
        assert [told.get(f"GlobalNetworkPolicy/broken-{number}") for number in range(len(keys))] == [
            "not enforced"
        ] * len(keys)
        assert scraped(live)['weft_felix_not_enforced{kind="GlobalNetworkPolicy"}'] == len(keys)
        assert live.node.agent is not None
        assert live.node.agent.poll() is None
    finally:
        for key in keys:
            live.node.etcdctl("del", key)
    live.settle()
    assert live.prober.passing(refused | others, refused | others) == refused | others
    assert not [subject for subject in notices(live) if "broken" in subject]


def _spec_for(pod: str) -> dict[str, Any]:
    namespace, name = pod.split("/")
    app = "app == 'db'" if name == "b" else "app == 'web' && !has(tier)"
    return {"order": 1, "selector": f"projectcalico.org/namespace == '{namespace}' && {app}"}


def _put(world: World, number: int, spec: Any) -> str:
    """Written behind weftctl's back."""
    key = f"{POLICIES}globalnetworkpolicies/broken-{number}"
    document = calico("GlobalNetworkPolicy", f"broken-{number}") | {"spec": spec}
    world.node.etcdctl("put", key, spec if isinstance(spec, str) else json.dumps(document))
    return key


def test_what_is_no_policy_at_all_is_told_and_changes_nothing(live: World) -> None:
    probes = {Probe(live.addresses[CLIENT][0], live.addresses[SERVER][0], TCP, 80)}
    raw = ("{", "[]", "null", "\\xff", '{"spec": {"selector": 3}}')
    keys = [_put(live, number, text) for number, text in enumerate(raw)]
    try:
        live.settle()
        assert live.prober.passing(probes, probes) == probes
        told = " ".join(notices(live))
        assert [key for key in keys if key.rpartition("/")[2] not in told] == []
    finally:
        for key in keys:
            live.node.etcdctl("del", key)
    live.settle()
    assert "broken" not in " ".join(notices(live))


def notices(world: World) -> dict[str, str]:
    status = json.loads(world.weftctl.run("node", "status", "-o", "json", "--socket", str(felix(world))))
    return {one["subject"]: one["severity"] for one in status["notices"]}


def scraped(world: World) -> dict[str, float]:
    with world.node.netns.enter():
        body = urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=5).read().decode()
    lines = (line.rpartition(" ") for line in body.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_a_workload_that_nobody_computed_passes_nothing(live: World, netns: Callable[[str], NetNs]) -> None:
    """Its interface has the name of ours, and somebody has even routed its address to it."""
    stranger, address = netns("stranger"), "10.65.250.1"
    host = live.node.netns
    link(host, "calistranger", stranger, "eth0")
    stranger.ip("address", "add", f"{address}/32", "dev", "eth0")
    stranger.ip("route", "add", "169.254.1.1", "dev", "eth0", "scope", "link")
    stranger.ip("route", "add", "default", "via", "169.254.1.1", "dev", "eth0")
    mac = json.loads(host.ip("-j", "link", "show", "calistranger"))[0]["address"]
    stranger.ip("neighbour", "replace", "169.254.1.1", "dev", "eth0", "lladdr", mac)
    theirs = json.loads(stranger.ip("-j", "link", "show", "eth0"))[0]["address"]
    host.ip("neighbour", "replace", address, "dev", "calistranger", "lladdr", theirs)
    host.ip("route", "add", f"{address}/32", "dev", "calistranger")
    try:
        with live.prober.also(address, stranger):
            ends = [live.addresses[name][0] for name in ("node", "outside", CLIENT)]
            probes = {Probe(one, address, TCP, 80) for one in ends} | {Probe(address, one, TCP, 80) for one in ends}
            assert live.prober.passing(probes, set()) == set()
    finally:
        host.ip("link", "delete", "calistranger")
