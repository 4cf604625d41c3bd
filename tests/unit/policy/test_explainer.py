"""What is said at ends that are no two different workloads: host endpoints, outside, one and the same."""

import pytest

from weft.model.codec import decode_manifests
from weft.policy.cluster import Cluster
from weft.policy.ends import Parties
from weft.policy.explainer import Answer, Explainer, NoCommonFamilyError, Packet, Why
from weft.policy.values import Stage

CLUSTER = """
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n1-cni-a-eth0, namespace: one}
spec: {node: n1, orchestrator: cni, containerID: a, endpoint: eth0, workload: a, interfaceName: calia,
  ipNetworks: [10.0.0.1], profiles: [projectcalico-default-allow]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n1-cni-six-eth0, namespace: one}
spec: {node: n1, orchestrator: cni, containerID: six, endpoint: eth0, workload: six, interfaceName: calisix,
  ipNetworks: ["fd00::6"], profiles: [projectcalico-default-allow]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n1-cni-none-eth0, namespace: one}
spec: {node: n1, orchestrator: cni, containerID: none, endpoint: eth0, workload: none, interfaceName: calinone}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: n1-eth0, labels: {host: n1}}
spec: {node: n1, interfaceName: eth0, expectedIPs: [192.0.2.1]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: n1-eth1}
spec: {node: n1, interfaceName: eth1, expectedIPs: [192.0.2.11]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: n2-eth0}
spec: {node: n2, interfaceName: eth0, expectedIPs: [192.0.2.2]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: web}
spec: {selector: host == 'n1', ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: early}
spec: {selector: host == 'n1', preDNAT: true, applyOnForward: true,
  ingress: [{action: Deny, protocol: TCP, destination: {ports: [81]}}]}
---
"""


def asked(source: str, destination: str, port: int = 80, more: str = "") -> Answer:
    cluster = Cluster(decode_manifests(CLUSTER + more, "f.yaml"))
    parties = Parties(cluster)
    return Explainer(cluster).explain(parties.find(source), parties.find(destination), Packet(6, None, port))


CASES = {
    "a host endpoint's policy": ("198.51.100.1", "n1-eth0", 80, Why.OUTSIDE, True, Why.POLICY, True),
    "a host endpoint's policy closes the rest": ("198.51.100.1", "n1-eth0", 82, Why.OUTSIDE, True, Why.POLICY, False),
    "a host endpoint's preDNAT policy": ("198.51.100.1", "192.0.2.1", 81, Why.OUTSIDE, True, Why.POLICY, False),
    "a failsafe port": ("198.51.100.1", "n1-eth0", 22, Why.OUTSIDE, True, Why.FAILSAFE, True),
    "out of a host endpoint that nothing opens": ("n2-eth0", "198.51.100.1", 80, Why.POLICY, False, Why.OUTSIDE, True),
    "out of a host endpoint to a failsafe port": ("n2-eth0", "n1-eth0", 6443, Why.FAILSAFE, True, Why.FAILSAFE, True),
    "two host endpoints of a node": ("n1-eth0", "n1-eth1", 9, Why.SAME_NODE, True, Why.SAME_NODE, True),
    "a host endpoint itself": ("n1-eth0", "192.0.2.1", 9, Why.ITSELF, True, Why.ITSELF, True),
    "a node to its workload": ("n1-eth0", "one/a", 9, Why.TO_OWN_WORKLOAD, True, Why.TO_OWN_WORKLOAD, True),
    "another node to a workload": ("n2-eth0", "one/a", 6443, Why.FAILSAFE, True, Why.POLICY, True),
    "a workload to its node": ("one/a", "n1-eth0", 80, Why.NOT_TO_HOST, False, Why.FROM_OWN_WORKLOAD, True),
    "a workload to another node": ("one/a", "n2-eth0", 80, Why.POLICY, True, Why.POLICY, False),
    "a workload itself": ("one/a", "10.0.0.1", 9, Why.ITSELF, True, Why.ITSELF, True),
}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "destination", "port", "why_egress", "egress", "why_ingress", "ingress"), CASES.values(), ids=CASES
)
def test_what_is_said(
    source: str, destination: str, port: int, why_egress: Why, egress: bool, why_ingress: Why, ingress: bool
) -> None:
    answer = asked(source, destination, port)
    assert (answer.egress.why, answer.egress.allowed) == (why_egress, egress)
    assert (answer.ingress.why, answer.ingress.allowed) == (why_ingress, ingress)


CONFIGURATION = """
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: %s}
spec: {%s}
---
"""


NODES = """
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n1}
spec: {bgp: {ipv4Address: 192.0.2.50/24}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n3}
spec: {addresses: [{address: 192.0.2.3}, {address: 198.51.100.3, type: ExternalIP}]}
---
"""


def test_a_nodes_address_is_known_without_a_host_endpoint() -> None:
    assert asked("10.0.0.1", "192.0.2.50", more=NODES).egress.why is Why.NOT_TO_HOST
    assert asked("192.0.2.50", "10.0.0.1", more=NODES).ingress.why is Why.TO_OWN_WORKLOAD
    assert asked("192.0.2.3", "10.0.0.1", more=NODES).ingress.why is Why.POLICY
    assert asked("10.0.0.1", "192.0.2.3", more=NODES).egress.why is Why.POLICY
    assert asked("192.0.2.50", "192.0.2.1", more=NODES).ingress.why is Why.SAME_NODE


def test_a_workload_reaches_its_node_by_its_own_policy_where_felix_is_told_to_accept() -> None:
    accept = CONFIGURATION % ("default", "defaultEndpointToHostAction: Accept")
    answer = asked("one/a", "n1-eth0", more=accept)
    assert (answer.egress.why, answer.allowed) == (Why.POLICY, True)


def test_a_nodes_own_configuration_goes_before_the_default_one() -> None:
    both = CONFIGURATION % ("default", "failsafeInboundHostPorts: []") + CONFIGURATION % (
        "node.n1",
        "failsafeInboundHostPorts: [{port: 99}]",
    )
    assert asked("198.51.100.1", "n1-eth0", 99, both).ingress.why is Why.FAILSAFE
    assert not asked("198.51.100.1", "n1-eth0", 22, both).allowed


def test_the_stage_that_decided_is_told() -> None:
    assert asked("198.51.100.1", "n1-eth0", 81).ingress.stage is Stage.PRE_DNAT


@pytest.mark.parametrize(("to", "said"), [("one/six", "no address family in common"), ("one/none", "has no address")])
def test_ends_without_a_common_family_are_refused(to: str, said: str) -> None:
    with pytest.raises(NoCommonFamilyError, match=said):
        asked("one/a", to)
