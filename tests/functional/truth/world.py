"""A node with the real agent, etcd, CNI plugin and weftctl: nine pods in three namespaces, a host outside, the node."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import yaml

from lab.netns import NetNs, link
from tests.functional.cni.live import LiveNode, live_node
from tests.functional.truth.commands import Weftctl
from tests.functional.truth.probes import (
    ICMP,
    ICMPV6,
    SCTP,
    SCTP_PORTS,
    TCP,
    TCP_PORTS,
    UDP,
    UDP_PORTS,
    Probe,
    Prober,
)
from weft.netlink.message import NLM_F_ACK, NLM_F_REQUEST, message
from weft.netlink.socket import NETLINK_NETFILTER, NetlinkSocket

Tree = dict[str, Any]

NODE = ("192.0.2.1", "2001:db8::1")
OUTSIDE = ("192.0.2.9", "2001:db8::9")
UPLINK = "up0"
METRICS_PORT = 19091
NAMESPACES: dict[str, dict[str, str]] = {"red": {"team": "x"}, "blue": {"team": "y", "env": "prod"}, "green": {}}
PODS: dict[str, dict[str, str]] = {"a": {"app": "web", "tier": "front"}, "b": {"app": "db"}, "c": {"app": "web"}}
ACCOUNTS = {"a": "robot", "b": "clerk", "c": "robot"}
ROBOT = {"role": "reader"}
WITHIN_S = 20
_CT_DELETE = (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE <linux/netfilter/nfnetlink_conntrack.h>
_CONFIGURATION = {
    "policy": {"type": "k8s"},
    "ipam": {"type": "weft-ipam", "assign_ipv4": "true", "assign_ipv6": "true"},
}


class World:
    """`addresses`: pod as NAMESPACE/NAME, "node" and "outside" -> its IPv4 and its IPv6 address."""

    def __init__(self, node: LiveNode, netns: Callable[[str], NetNs], stack: ExitStack) -> None:
        self.node = node
        self.addresses: dict[str, tuple[str, str]] = {"node": NODE, "outside": OUTSIDE}
        self.where: dict[str, NetNs] = {"node": node.netns, "outside": netns("outside")}
        self._uplink()
        for namespace, name in itertools.product(NAMESPACES, PODS):
            self._start(namespace, name, netns(f"{namespace}-{name}"))
        self.weftctl = Weftctl(
            node.netns, {"ETCD_ENDPOINTS": "http://127.0.0.1:2379", "WEFT_RUN_DIR": str(node.directory)}
        )
        stack.callback(self.weftctl.close)
        self.base = self._base_documents()
        self.weftctl.run("apply", "-f", "-", stdin=_text(self.base))
        by_address = {one: self.where[name] for name, pair in self.addresses.items() for one in pair}
        with node.netns.enter():
            self._conntrack = NetlinkSocket(NETLINK_NETFILTER)
        stack.callback(self._conntrack.close)
        for address in by_address:
            node.netns.run(["ping", "-c1", "-W5", address])
        self.by_address = by_address
        self.prober = Prober(by_address)
        stack.callback(self.prober.close)
        self._marks = 0
        self._applied: list[Tree] = []

    # --- documents ----------------------------------------------------------------------------------------------

    def apply(self, documents: Sequence[Tree]) -> None:
        """These and the cluster itself, and nothing else; the kernel has followed when this returns. What was there
        before is changed where it stands, if it has the same name and tier."""
        names = set(map(_identity, documents))
        gone = [one for one in reversed(self._applied) if _identity(one) not in names]
        if gone:
            self.weftctl.run("delete", "--skip-not-exists", "-f", "-", stdin=_text(gone))
        self._applied = []
        if documents:
            self.weftctl.run("apply", "-f", "-", stdin=_text(documents))
        self._applied = list(documents)
        self.settle()

    def settle(self) -> None:
        """Wait until the kernel has followed what was stored before: a policy that decides nothing comes last."""
        self._marks += 1
        key = f"/calico/resources/v3/projectcalico.org/globalnetworkpolicies/mark-{self._marks - 1}"
        self.node.etcdctl("del", key)
        self.weftctl.run("apply", "-f", "-", stdin=_text(_mark(f"mark-{self._marks}")))
        end_s = time.monotonic() + WITHIN_S
        while True:
            counted = json.loads(self.weftctl.run("policy", "counters", "-o", "json"))
            if any(one["name"] == f"mark-{self._marks}" for one in counted["policies"]):
                return
            assert time.monotonic() < end_s, self.node.log()
            time.sleep(0.02)

    # --- flows --------------------------------------------------------------------------------------------------

    def probes(self) -> list[Probe]:
        """Every ordered pair, both families, a handful of protocols and ports."""
        found = []
        for source, destination in itertools.permutations(self.addresses, 2):
            for one, other in zip(self.addresses[source], self.addresses[destination], strict=True):
                found += [Probe(one, other, TCP, port) for port in TCP_PORTS]
                found += [Probe(one, other, UDP, port) for port in UDP_PORTS]
                found += [Probe(one, other, SCTP, port) for port in SCTP_PORTS]
                found.append(Probe(one, other, ICMPV6 if ":" in one else ICMP))
        return found

    def explained(self, probes: Sequence[Probe], documents: Sequence[Tree] | None = None) -> list[Tree]:
        """What explain says of each; with documents offline, of these and the cluster itself."""
        flows = self.node.directory / "flows.jsonl"
        flows.write_text("".join(json.dumps(_flow(probe)) + "\n" for probe in probes))
        arguments = ["explain", "--flows", str(flows)]
        stdin = ""
        if documents is not None:
            arguments += ["--offline", "-f", "-"]
            stdin = _text([*self.base, *_mark(f"mark-{self._marks}"), *documents])
        return [json.loads(line) for line in self.weftctl.run(*arguments, stdin=stdin).splitlines()]

    def forget_connections(self) -> None:
        request = message(_CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, bytes(4))
        assert self._conntrack.request([request]) == []

    def disagreements(self, documents: Sequence[Tree]) -> list[str]:
        """Where packets, explain of the datastore and explain of the documents differ, with the documents in force."""
        probes = self.probes()
        online, offline = self.explained(probes), self.explained(probes, documents)
        self.forget_connections()
        expected = {probe for probe, one in zip(probes, online, strict=True) if one["verdict"] == "allow"}
        passing = self.prober.passing(probes, expected)
        self.outcomes = len(passing), len(probes) - len(passing)
        return [
            f"{probe}: packets {'pass' if probe in passing else 'do not pass'}; online {_said(one)}; "
            f"offline {_said(other)}"
            for probe, one, other in zip(probes, online, offline, strict=True)
            if (probe in passing) != (one["verdict"] == "allow") or _said(one) != _said(other)
        ]

    # --- building -----------------------------------------------------------------------------------------------

    def _uplink(self) -> None:
        node, outside = self.where["node"], self.where["outside"]
        node.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
        link(node, UPLINK, outside, "eth0")
        for where, device, addresses in ((node, UPLINK, NODE), (outside, "eth0", OUTSIDE)):
            where.ip("address", "add", f"{addresses[0]}/24", "dev", device)
            where.ip("address", "add", f"{addresses[1]}/64", "dev", device, "nodad")
        for gateway in NODE:
            outside.ip("-6" if ":" in gateway else "-4", "route", "add", "default", "via", gateway)

    def _start(self, namespace: str, name: str, where: NetNs) -> None:
        args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}"
        answer = self.node.plugin("ADD", f"{namespace}{name}", where, args, **_CONFIGURATION)
        first, second = (one["address"].partition("/")[0] for one in answer["ips"])
        self.addresses[f"{namespace}/{name}"] = (second, first) if ":" in first else (first, second)
        self.where[f"{namespace}/{name}"] = where

    def _base_documents(self) -> list[Tree]:
        bgp = {"ipv4Address": f"{NODE[0]}/24", "ipv6Address": f"{NODE[1]}/64"}
        documents: list[Tree] = [calico("Node", "n1", bgp=bgp), calico("Tier", "default", order=1e6)]
        documents += [document("v1", "Namespace", name, labels=it) for name, it in NAMESPACES.items()]
        for namespace in NAMESPACES:
            documents.append(document("v1", "ServiceAccount", "robot", namespace, labels=ROBOT))
            documents.append(document("v1", "ServiceAccount", "clerk", namespace))
            documents += [self.pod(namespace, name) for name in PODS]
        return documents

    def pod(self, namespace: str, name: str) -> Tree:
        ports = [
            {"name": "http", "containerPort": 80 if name == "a" else 8080},
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        ]
        addresses = [{"ip": one} for one in self.addresses[f"{namespace}/{name}"]]
        spec = {
            "nodeName": "n1",
            "serviceAccountName": ACCOUNTS[name],
            "containers": [{"name": "c", "image": "i", "ports": ports}],
        }
        status = {"phase": "Running", "podIPs": addresses}
        return document("v1", "Pod", name, namespace, labels=PODS[name], spec=spec, status=status)


def document(api_version: str, kind: str, name: str, namespace: str = "", /, **rest: Any) -> Tree:
    """`labels` go to the metadata."""
    metadata: Tree = {"name": name} | ({"namespace": namespace} if namespace else {})
    metadata |= {"labels": rest.pop("labels")} if "labels" in rest else {}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}


def calico(kind: str, name: str, namespace: str = "", /, **spec: Any) -> Tree:
    return document("projectcalico.org/v3", kind, name, namespace, spec=spec)


@contextmanager
def world(node_netns: NetNs, netns: Callable[[str], NetNs]) -> Iterator[World]:
    settings = {"FELIX_PROMETHEUSMETRICSENABLED": "true", "FELIX_PROMETHEUSMETRICSPORT": str(METRICS_PORT)}
    with live_node(node_netns, settings) as node, ExitStack() as stack:
        yield World(node, netns, stack)


def _identity(one: Tree) -> tuple[str, ...]:
    metadata = one["metadata"]
    return one["kind"], metadata.get("namespace", ""), metadata["name"], str(one.get("spec", {}).get("tier", ""))


def _mark(name: str) -> list[Tree]:
    passing = [{"action": "Pass"}]
    return [
        calico("Tier", "mark", order=1, defaultAction="Pass"),
        calico("GlobalNetworkPolicy", name, tier="mark", selector="has(app)", types=["Ingress"], ingress=passing),
    ]


def _flow(probe: Probe) -> Tree:
    flow: Tree = {"from": probe.source, "to": probe.destination, "protocol": probe.protocol}
    return flow | ({"port": probe.port} if probe.port else {})


def _said(answer: Tree) -> str:
    return ", ".join(f"{side} {answer[side]} {json.dumps(answer[f'{side}_rule'])}" for side in ("egress", "ingress"))


def _text(documents: Any) -> str:
    return yaml.dump_all(list(documents), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
