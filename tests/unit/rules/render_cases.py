"""Clusters written as people write them, and what becomes of them on node `here`, as nft scripts.

Each case is a start and one change after it, so that the script also shows what a change costs."""

from pathlib import Path

from felix.calc.graph import Graph
from felix.dataplane.nft import NftDriver
from felix.rules.changes import first_table
from felix.rules.render import Renderer
from tests.fakes.nft_recorder import NftRecorder
from weft.model import keys
from weft.model.codec import decode_manifests

GOLDEN = Path(__file__).parent / "golden"

_ENDPOINT = """
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata:
  name: {node}-k8s-{name}-eth0
  namespace: shop
  labels: {{app: {app}}}
spec:
  node: {node}
  orchestrator: k8s
  pod: {name}
  endpoint: eth0
  interfaceName: cali{name}
  ipNetworks: [{address}/32]
  profiles: [kns.shop]
---
"""
_PROFILE = """
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.shop}
spec:
  egress: [{action: Allow}]
  ingress: [{action: Allow}]
---
"""
_WEB = _ENDPOINT.format(name="web", app="web", node="here", address="10.65.0.1")
_DB = _ENDPOINT.format(name="db", app="db", node="here", address="10.65.0.2")
_FAR = _ENDPOINT.format(name="far", app="web", node="there", address="10.65.9.1")

CASES: dict[str, tuple[str, str]] = {
    "profile-only": (_PROFILE + _WEB, _DB),
    "shared-policy": (
        _PROFILE
        + _WEB
        + _DB
        + """
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  order: 10
  selector: app == 'db'
  types: [Ingress, Egress]
  ingress:
  - action: Allow
    protocol: TCP
    source: {selector: app == 'web'}
    destination: {ports: [5432, "6000:6010"]}
  - action: Log
    source: {notNets: [10.0.0.0/8]}
  egress:
  - action: Deny
    protocol: ICMP
    icmp: {type: 8}
  - action: Allow
    destination: {nets: [10.65.0.0/16, 10.66.0.0/16]}
  - action: Allow
    destination: {nets: ["fd00::/8"]}
""",
        _FAR,
    ),
    "tiers-and-pass": (
        _PROFILE
        + _WEB
        + """
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 100}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: quarantine}
spec:
  tier: security
  order: 1
  selector: app == 'web'
  ingress:
  - action: Deny
    source: {nets: [192.0.2.0/24]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: rest}
spec:
  tier: security
  order: 2
  selector: app == 'web'
  ingress:
  - action: Pass
""",
        """
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: rest}
spec:
  tier: security
  order: 2
  selector: app == 'web'
  ingress:
  - action: Allow
""",
    ),
    "host-endpoints": (
        """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: uplink, labels: {role: node}}
spec: {node: here, interfaceName: eth0}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: rest, labels: {role: node}}
spec: {node: here, interfaceName: "*"}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: metrics}
spec:
  selector: role == 'node'
  applyOnForward: true
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [9100]}}
  egress:
  - {action: Allow}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec:
  failsafeInboundHostPorts:
  - {protocol: TCP, port: 22}
  - {protocol: TCP, port: 6443, net: 10.0.0.0/8}
  failsafeOutboundHostPorts:
  - {protocol: UDP, port: 53}
""",
        """
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: dns-server}
spec:
  selector: role == 'node'
  doNotTrack: true
  applyOnForward: true
  ingress:
  - {action: Allow, protocol: UDP, destination: {ports: [53]}}
  egress:
  - {action: Allow, protocol: UDP, source: {ports: [53]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: node-ports}
spec:
  selector: role == 'node'
  preDNAT: true
  applyOnForward: true
  ingress:
  - {action: Deny, protocol: TCP, destination: {ports: ["30000:32767"]}}
""",
    ),
    "nat-and-host": (
        """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool}
spec: {cidr: 10.65.0.0/16, natOutgoing: true}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {defaultEndpointToHostAction: Accept, logPrefix: weft}
""",
        """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool6}
spec: {cidr: "fd65::/48", natOutgoing: true}
""",
    ),
}


def scripts(case: str) -> list[str]:
    """The batch of the start and the batch of the change."""
    graph, renderer, kernel = Graph("here"), Renderer(), NftRecorder()
    driver = NftDriver(kernel)
    for number, text in enumerate(CASES[case]):
        for resource in decode_manifests(text, case):
            graph.on_update(keys.of(resource), resource)
        graph.on_in_sync()
        changes = renderer.render(graph.flush())
        report = driver.apply(changes, 1.0) if number else driver.start(first_table(changes), 0.0)
        assert report.failed == {}
    return kernel.scripts


def path(case: str, number: int) -> Path:
    return GOLDEN / f"{case}.{number}.nft"
