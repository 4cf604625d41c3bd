"""Manifests of every kind, and how they are written and read."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from weft.model.codec import decode_manifests
from weft.model.errors import ValidationError


def manifest(kind: str, spec: Any, name: str = "x", **metadata: Any) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "projectcalico.org/v3",
            "kind": kind,
            "metadata": {"name": name, **metadata},
            "spec": spec,
        }
    )


def one(text: str) -> Any:
    (resource,) = decode_manifests(text, "test.yaml")
    return resource


def refused(text: str) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        decode_manifests(text, "test.yaml")
    return caught.value


EVERYTHING = """
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-1, labels: {rack: a}}
spec:
  bgp: {asNumber: "64512.1", ipv4Address: 10.0.0.1/24, ipv6Address: "fd00::1/64", routeReflectorClusterID: 244.0.0.1}
  addresses: [{address: 10.0.0.1/24, type: CalicoNodeIP}, {address: 10.0.0.1, type: InternalIP}]
  orchRefs: [{nodeName: node-1, orchestrator: k8s}]
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool}
spec: {cidr: 10.65.0.0/16, ipipMode: CrossSubnet, natOutgoing: true, nodeSelector: zone == "west"}
---
apiVersion: projectcalico.org/v3
kind: IPReservation
metadata: {name: reserved}
spec: {reservedCIDRs: [10.65.0.1, 10.65.1.7/24]}
---
apiVersion: projectcalico.org/v3
kind: IPAMConfiguration
metadata: {name: default}
spec: {strictAffinity: true, maxBlocksPerHost: 4}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec:
  nodeToNodeMeshEnabled: true
  asNumber: 63400
  listenPort: 178
  nodeMeshMaxRestartTime: 2m
  serviceClusterIPs: [{cidr: 10.96.0.0/12}]
  communities: [{name: bgp-large-community, value: "63400:300:100"}]
  prefixAdvertisements: [{cidr: 172.218.4.0/26, communities: [bgp-large-community, "63400:120"]}]
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor}
spec: {node: rack1-host1, peerIP: "192.168.1.1:180", asNumber: "63400", keepaliveTime: 10s, filters: [from-tor]}
---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: from-tor}
spec:
  importV4:
  - {action: Accept, matchOperator: In, cidr: 44.0.0.0/8, prefixLength: {min: 16, max: 24}, source: RemotePeers,
     operations: [{prependASPath: {prefix: [65000, "65001"]}}]}
  exportV6: [{action: Reject, interface: "*.calico", communities: {values: ["64512:100"]}}]
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: node--1-cni-0a1b-eth0, namespace: default}
spec:
  node: node-1
  orchestrator: cni
  containerID: 0a1b
  endpoint: eth0
  ipNetworks: [10.65.0.5/32, "fd00:65::5/128"]
  ipNATs: [{internalIP: 10.65.0.5, externalIP: 192.0.2.5}]
  profiles: [net]
  interfaceName: cali0a1b
  mac: ee:ee:ee:ee:ee:ee
  ports: [{name: http, protocol: TCP, port: 8080}]
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: node-1-uplink, labels: {role: uplink}}
spec: {node: node-1, interfaceName: "*", expectedIPs: [10.0.0.1], ports: [{name: ssh, protocol: TCP, port: 22}]}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: net}
spec:
  ingress: [{action: Allow, source: {selector: has(net)}}]
  egress: [{action: Allow}]
  labelsToApply: {net: ""}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 100, defaultAction: Pass}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: allow-tcp-6379, namespace: production}
spec:
  tier: security
  order: 10.5
  selector: role == 'database'
  types: [Ingress, Egress]
  ingress:
  - action: Allow
    metadata: {annotations: {from: frontend}}
    protocol: TCP
    source: {selector: role == 'frontend', namespaceSelector: global()}
    destination: {ports: [6379, 8000:8100, "http"]}
  - {action: Log, ipVersion: 4, protocol: ICMP, icmp: {type: 8, code: 0}, notICMP: {type: 13}}
  - {action: Deny, notProtocol: 17, source: {notNets: [10.0.0.0/8], notSelector: has(a), notPorts: [1:2]}, protocol: 6}
  egress:
  - {action: Pass, destination: {services: {name: dns, namespace: kube-system}}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: pre-dnat}
spec: {order: 1, preDNAT: true, applyOnForward: true, selector: has(host), ingress: [{action: Deny}]}
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: tomorrow, namespace: production}
spec: {tier: security, order: 11, selector: has(web), egress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: gone}
spec: {tier: security, stagedAction: Delete}
---
apiVersion: projectcalico.org/v3
kind: StagedKubernetesNetworkPolicy
metadata: {name: web, namespace: production}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: 80, endPort: 90}]}]
  policyTypes: [Ingress]
---
apiVersion: projectcalico.org/v3
kind: KubernetesEndpointSlice
metadata: {name: dns-x7k2p, namespace: kube-system, labels: {kubernetes.io/service-name: dns}}
addressType: IPv4
endpoints: [{addresses: [10.65.0.7]}]
ports: [{name: dns, protocol: UDP, port: 53}]
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: bad-guys, namespace: production, labels: {role: bad}}
spec: {nets: [198.51.100.7/28, 203.0.113.0/24, "2001:db8::/48"]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: partners}
spec: {nets: [198.51.100.1]}
---
apiVersion: projectcalico.org/v3
kind: ClusterInformation
metadata: {name: default}
spec: {clusterGUID: 0123, datastoreReady: true}
---
apiVersion: projectcalico.org/v3
kind: CalicoNodeStatus
metadata: {name: s}
spec: {node: n1, classes: [Agent, BGP, Routes], updatePeriodSeconds: 10}
status: {lastUpdated: null, agent: {birdV4: {}, birdV6: {}}}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec:
  logSeverityScreen: Debug
  ipv6Support: true
  reportingInterval: 0s
  failsafeInboundHostPorts: [{protocol: tcp, port: 22}, {port: 179, net: 10.0.0.0/8}]
  kubeNodePortRanges: [30000:32767]
  natPortRange: 32768:65535
"""


def rule(**fields: Any) -> dict[str, Any]:
    return {"ingress": [{"action": "Allow", **fields}]}


TOR = {"action": "Accept", "matchOperator": "In", "cidr": "10.0.0.0/8"}
