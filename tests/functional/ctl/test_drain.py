"""node drain, as far as it needs no agent: the wish, and what it says of the workloads that are still there."""

from __future__ import annotations

import json

from tests.functional.ctl.conftest import Weftctl

NODE = "{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: %s}, spec: {bgp: {ipv4Address: 10.0.0.%d/24}}}"


def endpoints(weftctl: Weftctl, node: str, count: int) -> None:
    escaped = node.replace("-", "--")
    documents = [
        {
            "apiVersion": "projectcalico.org/v3",
            "kind": "WorkloadEndpoint",
            "metadata": {"name": f"{escaped}-cni-c{number}-eth0", "namespace": f"ns{number % 2}"},
            "spec": {
                "node": node,
                "orchestrator": "cni",
                "containerID": f"c{number}",
                "endpoint": "eth0",
                "ipNetworks": [f"10.65.{len(node)}.{number}/32"],
                "interfaceName": f"calic{number}",
            },
        }
        for number in range(1, count + 1)
    ]
    applied = weftctl("create", "-f", "-", stdin="\n---\n".join(map(json.dumps, documents)))
    assert applied.code == 0, applied.err


def test_draining_names_the_workloads_that_are_still_on_the_node_and_no_others(weftctl: Weftctl) -> None:
    nodes = "\n---\n".join(NODE % (name, number) for number, name in enumerate(("n1", "n1-b", "n2"), start=1))
    assert weftctl("apply", "-f", "-", stdin=nodes).code == 0
    endpoints(weftctl, "n1", 1)
    endpoints(weftctl, "n1-b", 7)
    one = weftctl("node", "drain", "n1", "--no-wait")
    assert (one.code, one.out) == (0, "")
    text = "n1: 1 workload is still on it, and out of reach from elsewhere once it is drained: ns1/n1-cni-c1-eth0\n"
    assert one.err == text
    many = weftctl("node", "drain", "n1-b", "--no-wait").err
    assert many.startswith("n1-b: 7 workloads are still on it")
    assert many.endswith("ns1/n1--b-cni-c1-eth0, ns1/n1--b-cni-c3-eth0 and 2 more\n")
    assert weftctl("node", "drain", "n2", "--no-wait").err == ""
    assert weftctl("node", "undrain", "n1", "--no-wait").err == ""
