"""Manifests that people write: what is read, what is refused and with which words."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from ipaddress import IPv4Interface, ip_address, ip_network
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.model.base import Resource
from weft.model.bgp import BGPConfiguration, BGPFilter, BGPPeer, PeerAddress
from weft.model.codec import decode_manifests, decode_stored, encode_stored, to_manifest
from weft.model.endpoint import HostEndpoint, WorkloadEndpoint
from weft.model.errors import ValidationError
from weft.model.felix_configuration import FelixConfiguration
from weft.model.keys import ResourceKey, of
from weft.model.node import Node
from weft.model.policy import GlobalNetworkPolicy, NetworkPolicy, NetworkSet, Profile, Tier
from weft.model.pool import IPAMConfiguration, IPPool, IPReservation
from weft.model.resources import CLASSES
from weft.model.values import Duration, Port, Protocol


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


def test_manifests_of_every_kind_become_values() -> None:
    text = EVERYTHING.replace("clusterGUID: 0123", 'clusterGUID: "0123"')
    resources = {resource.kind: resource for resource in decode_manifests(text, "all.yaml")}
    assert resources.keys() == CLASSES.keys()
    node, peer, policy = resources["Node"], resources["BGPPeer"], resources["NetworkPolicy"]
    assert isinstance(node, Node)
    assert node.spec.bgp is not None
    assert node.spec.bgp.as_number == 64512 * 65536 + 1
    assert node.spec.bgp.ipv4_address == IPv4Interface("10.0.0.1/24")
    assert isinstance(peer, BGPPeer)
    assert peer.spec.peer_address == PeerAddress(ip_address("192.168.1.1"), 180)
    assert peer.spec.keepalive_time == Duration(seconds=10)
    assert isinstance(policy, NetworkPolicy)
    allow, log, _ = policy.spec.ingress
    assert allow.destination.ports == (Port(6379, 6379), Port(8000, 8100), Port(name="http"))
    assert allow.protocol == Protocol(6, "TCP")
    assert log.icmp is not None
    assert (log.icmp.type, log.icmp.code) == (8, 0)
    pool, configuration = resources["IPPool"], resources["IPAMConfiguration"]
    assert isinstance(pool, IPPool)
    assert (pool.spec.cidr, pool.spec.block_size) == (ip_network("10.65.0.0/16"), 26)
    assert isinstance(configuration, IPAMConfiguration)
    assert configuration.spec.auto_allocate_blocks
    nets = resources["NetworkSet"]
    assert isinstance(nets, NetworkSet)
    assert nets.spec.nets[0] == ip_network("198.51.100.0/28")
    reservation = resources["IPReservation"]
    assert isinstance(reservation, IPReservation)
    assert reservation.spec.reserved_cidrs == (ip_network("10.65.0.1/32"), ip_network("10.65.1.0/24"))


@pytest.mark.parametrize(
    "resource",
    decode_manifests(EVERYTHING.replace("0123}", '"0123"}').replace("0123,", '"0123",'), "e"),
    ids=lambda found: found.kind,
)
def test_what_is_printed_applies_again_and_what_is_stored_reads_again(resource: Resource) -> None:
    printed = yaml.safe_dump(to_manifest(resource))
    assert one(printed) == resource
    if resource.kind == "IPAMConfiguration":
        return
    assert decode_stored(of(resource), encode_stored(resource)) == resource


def bad(kind: str, spec: Any, field: str, expected: str, **metadata: Any) -> tuple[str, str, str]:
    return manifest(kind, spec, **metadata), field, expected


def rule(**fields: Any) -> dict[str, Any]:
    return {"ingress": [{"action": "Allow", **fields}]}


TOR = {"action": "Accept", "matchOperator": "In", "cidr": "10.0.0.0/8"}
BAD = {
    "action in lower case": bad(
        "NetworkPolicy", rule(action="allow"), "spec.ingress[0].action", "Allow, Deny, Log, Pass"
    ),
    "unknown field": bad("NetworkPolicy", {"selectors": "all()"}, "spec.selectors", "did you mean selector?"),
    "unknown field of a rule": bad("NetworkPolicy", rule(sources={}), "spec.ingress[0].sources", "source"),
    "field in another case": bad(
        "IPPool", {"cidr": "10.0.0.0/8", "natoutgoing": True}, "spec.natoutgoing", "natOutgoing"
    ),
    "unknown metadata": bad("Tier", {}, "metadata.lables", "labels", lables={}),
    "unknown type": bad("NetworkPolicy", {"types": ["ingress"]}, "spec.types[0]", "Egress, Ingress"),
    "type twice": bad("NetworkPolicy", {"types": ["Ingress", "Ingress"]}, "spec.types[1]", "once"),
    "selector that does not parse": bad("NetworkPolicy", {"selector": "a = 'b'"}, "spec.selector", "position 2"),
    "selector of a rule": bad("Profile", rule(source={"notSelector": "a"}), "spec.ingress[0].source.notSelector", "=="),
    "global() as a selector": bad("GlobalNetworkPolicy", {"selector": "global()"}, "spec.selector", "all()"),
    "global() with more": bad(
        "NetworkPolicy",
        rule(source={"namespaceSelector": "global() || has(a)"}),
        "spec.ingress[0].source.namespaceSelector",
        "on its own",
    ),
    "ports without a protocol": bad(
        "NetworkPolicy", rule(destination={"ports": [80]}), "spec.ingress[0].protocol", "TCP, UDP or SCTP"
    ),
    "ports of ICMP": bad(
        "NetworkPolicy", rule(protocol="ICMP", source={"notPorts": ["a"]}), "spec.ingress[0].protocol", "SCTP"
    ),
    "port range upside down": bad(
        "NetworkPolicy", rule(protocol="TCP", source={"ports": ["90:80"]}), "spec.ingress[0].source.ports[0]", "range"
    ),
    "port 0": bad(
        "NetworkPolicy", rule(protocol="TCP", source={"ports": [0]}), "spec.ingress[0].source.ports[0]", "1 to"
    ),
    "protocol": bad("NetworkPolicy", rule(protocol="IGMP"), "spec.ingress[0].protocol", "UDPLite"),
    "icmp without a protocol": bad("NetworkPolicy", rule(icmp={"type": 8}), "spec.ingress[0].protocol", "ICMP"),
    "notICMP without a protocol": bad(
        "NetworkPolicy", rule(notICMP={"type": 8}), "spec.ingress[0].protocol", "because notICMP"
    ),
    "icmp code alone": bad(
        "NetworkPolicy", rule(protocol="ICMP", icmp={"code": 8}), "spec.ingress[0].icmp.code", "type"
    ),
    "icmp type": bad("NetworkPolicy", rule(protocol="ICMP", icmp={"type": 255}), "spec.ingress[0].icmp.type", "254"),
    "icmpv6 in IPv4": bad("NetworkPolicy", rule(protocol="ICMPv6", ipVersion=4), "spec.ingress[0].ipVersion", "6"),
    "ip version": bad("NetworkPolicy", rule(ipVersion=5), "spec.ingress[0].ipVersion", "4, 6"),
    "net with host bits": bad(
        "NetworkPolicy", rule(source={"nets": ["10.0.0.1/8"]}), "spec.ingress[0].source.nets[0]", "10.0.0.0/8"
    ),
    "nets of both families": bad(
        "NetworkPolicy",
        rule(source={"nets": ["10.0.0.0/8"]}, destination={"nets": ["fd00::/8"]}),
        "spec.ingress[0].destination.nets[0]",
        "IPv4",
    ),
    "net of another family than the rule": bad(
        "NetworkPolicy", rule(ipVersion=6, source={"nets": ["10.0.0.0/8"]}), "spec.ingress[0].source.nets[0]", "IPv6"
    ),
    "everything excluded": bad(
        "NetworkPolicy", rule(source={"notNets": ["0.0.0.0/0"]}), "spec.ingress[0].source.notNets[0]", "smaller"
    ),
    "http": bad("NetworkPolicy", rule(http={"methods": ["GET"]}), "spec.ingress[0].http", "no http"),
    "http in a global policy": bad(
        "GlobalNetworkPolicy", {"egress": [{"action": "Allow", "http": {}}]}, "spec.egress[0].http", "no http"
    ),
    "http in a profile": bad("Profile", rule(http={}), "spec.ingress[0].http", "no http"),
    "services at the near end": bad(
        "NetworkPolicy",
        rule(destination={"services": {"name": "a"}}),
        "spec.ingress[0].destination.services",
        "source",
    ),
    "services beside a selector": bad(
        "NetworkPolicy",
        rule(source={"services": {"name": "a"}, "selector": "has(a)"}),
        "spec.ingress[0].source.selector",
        "services",
    ),
    "services without a namespace": bad(
        "GlobalNetworkPolicy",
        rule(source={"services": {"name": "a"}}),
        "spec.ingress[0].source.services.namespace",
        "namespace",
    ),
    "preDNAT without applyOnForward": bad("GlobalNetworkPolicy", {"preDNAT": True}, "spec.applyOnForward", "true"),
    "preDNAT with egress": bad(
        "GlobalNetworkPolicy",
        {"preDNAT": True, "applyOnForward": True, "types": ["Egress"]},
        "spec.types",
        "Ingress",
    ),
    "a field that only the global kind has": bad("NetworkPolicy", {"preDNAT": True}, "spec.preDNAT", "order"),
    "order": bad("Tier", {"order": "first"}, "spec.order", "number"),
    "order without end": bad("Tier", {"order": 10**400}, "spec.order", "finite"),
    "order of the default tier": bad("Tier", {"order": 5}, "spec.order", "1000000", name="default"),
    "the built-in profile": bad("Profile", {}, "metadata.name", "built in", name="projectcalico-default-allow"),
    "label of a namespace": bad(
        "NetworkSet", {}, "metadata.labels", "namespace", labels={"projectcalico.org/namespace": "a"}
    ),
    "label value": bad("Tier", {}, "metadata.labels.a", "63", labels={"a": "-"}),
    "label that is a fraction": bad("Tier", {}, "metadata.labels", "text", labels={"a": 1.5}),
    "label name": bad("Tier", {}, "metadata.labels", "label name", labels={"a b": "c"}),
    "annotation name": bad("Tier", {}, "metadata.annotations", "annotation name", annotations={"a b": "c"}),
    "name in upper case": bad("IPPool", {"cidr": "10.0.0.0/8"}, "metadata.name", "lower case", name="Pool"),
    "name of a tier": bad("Tier", {}, "metadata.name", "'-'", name="a.b"),
    "no name": bad("Tier", {}, "metadata.name", "has none", name=""),
    "namespace of a global kind": bad("Tier", {}, "metadata.namespace", "has none", namespace="a"),
    "pool without a cidr": bad("IPPool", {}, "spec.cidr", "must be given"),
    "pool with host bits": bad("IPPool", {"cidr": "10.65.0.1/16"}, "spec.cidr", "10.65.0.0/16"),
    "pool block size": bad("IPPool", {"cidr": "10.65.0.0/16", "blockSize": 19}, "spec.blockSize", "20 to 32"),
    "pool block size of IPv6": bad("IPPool", {"cidr": "fd00::/64", "blockSize": 115}, "spec.blockSize", "116 to 128"),
    "pool smaller than a block": bad("IPPool", {"cidr": "10.65.0.0/27"}, "spec.cidr", "/26"),
    "pool with both tunnels": bad(
        "IPPool", {"cidr": "10.0.0.0/8", "ipipMode": "Always", "vxlanMode": "Always"}, "spec.ipipMode", "vxlanMode"
    ),
    "ipip for IPv6": bad("IPPool", {"cidr": "fd00::/64", "ipipMode": "Always"}, "spec.ipipMode", "IPv6"),
    "pool in link local": bad("IPPool", {"cidr": "169.254.1.0/24"}, "spec.cidr", "link local"),
    "pool mode": bad("IPPool", {"cidr": "10.0.0.0/8", "ipipMode": "On"}, "spec.ipipMode", "Always, CrossSubnet, Never"),
    "pool node selector": bad("IPPool", {"cidr": "10.0.0.0/8", "nodeSelector": "a"}, "spec.nodeSelector", "=="),
    "load balancer pool": bad(
        "IPPool",
        {"cidr": "10.0.0.0/8", "allowedUses": ["LoadBalancer", "Workload"]},
        "spec.allowedUses",
        "alone",
    ),
    "IPAM configuration name": bad("IPAMConfiguration", {}, "metadata.name", "default"),
    "blocks below nothing": bad(
        "IPAMConfiguration", {"maxBlocksPerHost": -1}, "spec.maxBlocksPerHost", "0", name="default"
    ),
    "AS number": bad("BGPPeer", {"peerIP": "10.0.0.1", "asNumber": "x"}, "spec.asNumber", "AS number"),
    "peer address": bad("BGPPeer", {"peerIP": "10.0.0.1:0"}, "spec.peerIP", "10.0.0.1:180"),
    "peer by address and selector": bad(
        "BGPPeer", {"peerIP": "10.0.0.1", "peerSelector": "has(rr)"}, "spec.peerIP", "either"
    ),
    "peer by node and selector": bad("BGPPeer", {"node": "a", "nodeSelector": "has(a)"}, "spec.node", "either"),
    "AS number of selected peers": bad("BGPPeer", {"peerSelector": "has(a)", "asNumber": 1}, "spec.asNumber", "none"),
    "reachable by the other family": bad(
        "BGPPeer", {"peerIP": "10.0.0.1", "reachableBy": "fd00::1"}, "spec.reachableBy", "IPv4"
    ),
    "peer duration": bad("BGPPeer", {"peerIP": "10.0.0.1", "maxRestartTime": 120}, "spec.maxRestartTime", "5s"),
    "hops": bad("BGPPeer", {"peerIP": "10.0.0.1", "ttlSecurity": 256}, "spec.ttlSecurity", "255"),
    "community": bad(
        "BGPConfiguration",
        {"communities": [{"name": "a", "value": "1"}]},
        "spec.communities[0].value",
        "64512:100",
        name="default",
    ),
    "community that is not defined": bad(
        "BGPConfiguration",
        {"prefixAdvertisements": [{"cidr": "10.0.0.0/8", "communities": ["nobody"]}]},
        "spec.prefixAdvertisements[0].communities[0]",
        "spec.communities",
        name="default",
    ),
    "mesh of one node": bad(
        "BGPConfiguration", {"nodeToNodeMeshEnabled": False}, "spec.nodeToNodeMeshEnabled", "default", name="node.a"
    ),
    "BGP port": bad("BGPConfiguration", {"listenPort": 65536}, "spec.listenPort", "65535", name="default"),
    "filter without an operator": bad(
        "BGPFilter", {"importV4": [{"action": "Accept", "cidr": "10.0.0.0/8"}]}, "spec.importV4[0].matchOperator", "In"
    ),
    "filter of another family": bad("BGPFilter", {"importV6": [TOR]}, "spec.importV6[0].cidr", "IPv6"),
    "filter length": bad(
        "BGPFilter", {"exportV4": [{**TOR, "prefixLength": {"max": 33}}]}, "spec.exportV4[0].prefixLength.max", "32"
    ),
    "filter with two operations in one": bad(
        "BGPFilter",
        {"exportV4": [{**TOR, "operations": [{}]}]},
        "spec.exportV4[0].operations[0]",
        "exactly one",
    ),
    "operations on Reject": bad(
        "BGPFilter",
        {"exportV4": [{**TOR, "action": "Reject", "operations": [{"setPriority": {"value": 5}}]}]},
        "spec.exportV4[0].operations",
        "Accept",
    ),
    "endpoint with a network": bad("WorkloadEndpoint", {"ipNetworks": ["10.0.0.0/24"]}, "spec.ipNetworks[0]", "/32"),
    "endpoint named otherwise": bad(
        "WorkloadEndpoint",
        {"node": "n", "orchestrator": "cni", "containerID": "c", "endpoint": "e", "interfaceName": "cali"},
        "metadata.name",
        "n-cni-c-e",
    ),
    "endpoint without a node": bad("WorkloadEndpoint", {"interfaceName": "cali"}, "spec.node", "'-'"),
    "host endpoint without a node": bad("HostEndpoint", {"interfaceName": "eth0"}, "spec.node", "node"),
    "host endpoint without an interface": bad("HostEndpoint", {"node": "n"}, "spec.interfaceName", "expectedIPs"),
    "host endpoint port": bad(
        "HostEndpoint",
        {"node": "n", "interfaceName": "*", "ports": [{"name": "a", "protocol": "ICMP", "port": 1}]},
        "spec.ports[0].protocol",
        "TCP",
    ),
    "host endpoint address": bad(
        "HostEndpoint", {"node": "n", "expectedIPs": ["10.0.0.0/8"]}, "spec.expectedIPs[0]", "address"
    ),
    "empty bgp of a node": bad("Node", {"bgp": {}}, "spec.bgp", "at least one"),
    "node address of another family": bad(
        "Node", {"bgp": {"ipv4Address": "fd00::1/64"}}, "spec.bgp.ipv4Address", "IPv4"
    ),
    "felix word": bad("FelixConfiguration", {"logSeverityScreen": "loud"}, "spec.logSeverityScreen", "Debug"),
    "felix number": bad("FelixConfiguration", {"debugPort": 70000}, "spec.debugPort", "65535"),
    "felix pattern": bad("FelixConfiguration", {"mtuIfacePattern": "("}, "spec.mtuIfacePattern", "regular expression"),
    "felix flag": bad("FelixConfiguration", {"ipv6Support": "yes please"}, "spec.ipv6Support", "true or false"),
    "felix list": bad("FelixConfiguration", {"kubeNodePortRanges": "1:2"}, "spec.kubeNodePortRanges", "a list"),
    "felix selector on the default": bad(
        "FelixConfiguration", {"nodeSelector": "has(a)"}, "spec.nodeSelector", "default", name="default"
    ),
    "cluster information name": bad("ClusterInformation", {}, "metadata.name", "default"),
}


@pytest.mark.parametrize(("text", "field", "expected"), BAD.values(), ids=BAD.keys())
def test_a_mistake_is_named_with_its_field_and_what_would_be_right(text: str, field: str, expected: str) -> None:
    error = refused(text)
    assert error.field.startswith(field)
    assert expected in error.expected
    assert (error.source, error.document) == ("test.yaml", 0)


def test_a_mistake_carries_the_value_that_was_found() -> None:
    assert refused(manifest("NetworkPolicy", rule(action="allow"))).value == "allow"
    assert refused(manifest("IPPool", {"cidr": "10.0.0.1/8"})).value == "10.0.0.1/8"
    assert "test.yaml, document 0: spec.order" in str(refused(manifest("Tier", {"order": "first"})))


NO_RESOURCES = {
    "no version": ("kind: Tier\n", "apiVersion", "projectcalico.org/v3"),
    "an old version": ("apiVersion: v1\nkind: Tier\n", "apiVersion", "projectcalico.org/v3"),
    "no kind": ("apiVersion: projectcalico.org/v3\n", "kind", "one of"),
    "a kind misspelt": ("apiVersion: projectcalico.org/v3\nkind: IpPool\n", "kind", "IPPool"),
    "a list": ("- a\n", "$", "a resource"),
    "a number": ("7\n", "$", "a resource"),
    "broken YAML": ("a: [\n", "$", "YAML"),
    "broken JSON": ('{"a": ', "$", "YAML"),
    "a field twice": ("kind: Tier\nkind: Tier\n", "$", "twice"),
    "a key that is a list": ("? [a]\n: b\n", "$", "no text"),
    "itself": ("&a [*a]\n", "$", "a resource"),
    "ten thousand brackets": ("[" * 10_000 + "]" * 10_000, "$", ""),
    "spec is text": (manifest("Tier", "x"), "spec", "an object"),
    "items are no list": ("apiVersion: v1\nkind: List\nitems: {a: b}\n", "items", "a list"),
    "an item is text": ("apiVersion: v1\nkind: List\nitems: [x]\n", "items[0]", "a resource"),
}


@pytest.mark.parametrize(("text", "field", "expected"), NO_RESOURCES.values(), ids=NO_RESOURCES.keys())
def test_what_is_no_resource_is_refused(text: str, field: str, expected: str) -> None:
    error = refused(text)
    assert (error.field, expected in error.expected) == (field, True)


def test_the_document_of_a_mistake_is_counted_over_empty_ones() -> None:
    good = manifest("Tier", {})
    error = refused(f"---\n---\n{good}---\n{manifest('Tier', {'order': 'x'})}")
    assert error.document == 2
    assert error.field == "spec.order"


def test_lists_are_taken_apart_and_mistakes_in_them_say_which() -> None:
    tier = yaml.safe_load(manifest("Tier", {}))
    pool = yaml.safe_load(manifest("IPPool", {"cidr": "10.0.0.0/8"}))
    both = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [tier, pool]})
    assert [resource.kind for resource in decode_manifests(both, "f")] == ["Tier", "IPPool"]
    typed = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "TierList",
        "metadata": {},
        "items": [{"metadata": {"name": "a"}}],
    }
    assert one(yaml.safe_dump(typed)).metadata.name == "a"
    pool["spec"]["blockSize"] = 5
    assert refused(yaml.safe_dump({"kind": "List", "items": [tier, pool]})).field == "items[1].spec.blockSize"
    assert decode_manifests("kind: List\nitems: null\n", "f") == []


def test_what_a_server_adds_is_tolerated() -> None:
    text = """
apiVersion: projectcalico.org/v3
kind: Tier
metadata:
  name: a
  creationTimestamp: null
  deletionTimestamp: null
  managedFields: [{manager: kubectl, fieldsV1: {"f:spec": {}}}]
  resourceVersion: "12"
  uid: 0b1d7c9e-0000-4000-8000-000000000000
  generation: 3
  selfLink: /apis
spec: {order: null}
status: {conditions: []}
"""
    tier = one(text)
    assert isinstance(tier, Tier)
    assert (tier.metadata.resource_version, tier.metadata.generation) == ("12", 3)
    assert b"resourceVersion" not in encode_stored(tier)


def test_json_is_read_too() -> None:
    spec = {"egress": [{"action": "Allow"}]}
    tree = {"apiVersion": "projectcalico.org/v3", "kind": "Profile", "metadata": {"name": "a"}, "spec": spec}
    profile = one(json.dumps(tree))
    assert isinstance(profile, Profile)
    assert profile.spec.egress[0].action == "Allow"


def test_times_and_base_60_numbers_stay_text() -> None:
    text = manifest("NetworkPolicy", {}).replace(
        "spec: {}", "spec: {ingress: [{action: Allow, protocol: TCP, source: {ports: [20:30]}}]}"
    )
    assert one(text).spec.ingress[0].source.ports == (Port(20, 30),)
    created = one(manifest("Tier", {}).replace("name: x", "name: x\n  creationTimestamp: 2026-01-31T12:00:00Z"))
    assert created.metadata.creation_timestamp.isoformat() == "2026-01-31T12:00:00+00:00"


DERIVED_TYPES = {
    "no rules": ({}, ["Ingress"]),
    "ingress": ({"ingress": [{"action": "Allow"}]}, ["Ingress"]),
    "egress": ({"egress": [{"action": "Allow"}]}, ["Egress"]),
    "both": ({"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]}, ["Ingress", "Egress"]),
    "given": ({"types": ["Egress"], "ingress": [{"action": "Allow"}]}, ["Egress"]),
}


@pytest.mark.parametrize(("spec", "types"), DERIVED_TYPES.values(), ids=DERIVED_TYPES.keys())
@pytest.mark.parametrize("kind", ["NetworkPolicy", "GlobalNetworkPolicy"])
def test_a_policy_is_for_the_directions_it_has_rules_for(kind: str, spec: Any, types: list[str]) -> None:
    assert list(one(manifest(kind, spec)).spec.types) == types


def test_what_calicos_client_fills_in_is_filled_in() -> None:
    policy = one(manifest("NetworkPolicy", {}, name="default.allow"))
    assert isinstance(policy, NetworkPolicy)
    assert (policy.metadata.name, policy.metadata.namespace, policy.spec.tier) == (
        "default.allow",
        "default",
        "default",
    )
    assert policy.metadata.labels == {"projectcalico.org/tier": "default"}
    assert one(manifest("GlobalNetworkPolicy", {"tier": "a"}, name="a.b")).metadata.name == "a.b"
    assert one(manifest("Tier", {})).spec.order == 1_000_000
    (elsewhere,) = decode_manifests(manifest("NetworkSet", {}), "f", namespace="prod")
    assert elsewhere.metadata.namespace == "prod"
    endpoint = one(
        manifest(
            "WorkloadEndpoint",
            {"node": "n", "orchestrator": "k8s", "pod": "web-1", "endpoint": "eth0", "interfaceName": "cali1"},
            name="",
        )
    )
    assert isinstance(endpoint, WorkloadEndpoint)
    assert endpoint.metadata.name == "n-k8s-web--1-eth0"
    assert endpoint.metadata.labels["projectcalico.org/orchestrator"] == "k8s"


def test_good_manifests_of_the_delicate_kind_pass() -> None:
    text = "---\n".join(
        (
            manifest("FelixConfiguration", {"nodeSelector": "has(gpu)", "chainInsertMode": "Append"}, name="gpu"),
            manifest("BGPConfiguration", {"logSeverityScreen": "Info", "listenPort": 180}, name="node.a"),
            manifest("BGPPeer", {"localWorkloadSelector": "has(r)", "asNumber": 65000}),
            manifest("BGPFilter", {"importV4": [{"action": "Reject"}], "exportV6": [{**TOR, "cidr": "fd00::/8"}]}),
            manifest("IPPool", {"cidr": "10.65.0.0/30", "disabled": True}),
            manifest("IPPool", {"cidr": "10.9.0.0/16", "allowedUses": ["LoadBalancer"]}),
            manifest("NetworkPolicy", rule(destination={"ports": ["http"]})),
            manifest("NetworkPolicy", {}, name="knp.default.web.v2"),
            manifest("HostEndpoint", {"node": "n", "expectedIPs": ["10.0.0.1"]}),
        )
    )
    kinds = [type(resource) for resource in decode_manifests(text, "f")]
    assert kinds[:4] == [FelixConfiguration, BGPConfiguration, BGPPeer, BGPFilter]
    assert kinds[-1] is HostEndpoint


def test_a_global_policy_key_has_no_namespace() -> None:
    policy = one(manifest("GlobalNetworkPolicy", {}))
    assert isinstance(policy, GlobalNetworkPolicy)
    assert of(policy) == ResourceKey("GlobalNetworkPolicy", "x")


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where everything in a tree is."""
    if path:
        yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for step, inner in items:
        yield from _paths(inner, (*path, step))


DOCUMENTS = list(yaml.safe_load_all(EVERYTHING))
PLACES = [(index, path) for index, tree in enumerate(DOCUMENTS) for path in _paths(tree)]
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text("aA1.:/-*= '", max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["a", "name", "action"]), inner, max_size=2)
    ),
    max_leaves=3,
)


@settings(max_examples=150)
@given(st.sampled_from(PLACES), anything)
def test_any_change_of_a_good_manifest_gives_a_resource_or_says_what_is_wrong(
    place: tuple[int, tuple[Any, ...]], value: Any
) -> None:
    index, (*steps, last) = place
    tree = copy.deepcopy(DOCUMENTS[index])
    inner = tree
    for step in steps:
        inner = inner[step]
    inner[last] = value
    try:
        resources = decode_manifests(yaml.safe_dump(tree), "changed.yaml")
    except ValidationError as error:
        resources = []
        named = error.source
    else:
        named = "changed.yaml"
    assert named == "changed.yaml"
    for resource in resources:
        assert one(yaml.safe_dump(to_manifest(resource))) == resource


@pytest.mark.parametrize(
    ("written", "read"),
    [
        pytest.param("1", "1", id="whole number"),
        pytest.param("1337495556942031415926535", "1337495556942031415926535", id="many digits"),
        pytest.param("true", "true", id="true"),
        pytest.param("no", "false", id="false in YAML's other spelling"),
        pytest.param("'1'", "1", id="already text"),
    ],
)
def test_plain_numbers_and_booleans_are_text_where_text_belongs(written: str, read: str) -> None:
    text = (
        "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\n"
        f"metadata: {{name: n-k8s-p-eth0, labels: {{app: {written}}}}}\n"
        "spec: {node: n, orchestrator: k8s, pod: p, endpoint: eth0, interfaceName: cali1, "
        f"profiles: [a], containerID: {written}}}\n"
    )
    endpoint = one(text)
    assert endpoint.metadata.labels["app"] == read
    assert endpoint.spec.container_id == read


def test_a_fraction_is_not_guessed_to_be_text() -> None:
    error = refused(manifest("GlobalNetworkSet", {}, labels={"version": 1.10}))
    assert error.field.startswith("metadata.labels")


def test_an_unknown_field_among_very_many_is_not_answered_with_all_of_them() -> None:
    error = refused(manifest("FelixConfiguration", {"zzzz": 1}))
    assert error.field == "spec.zzzz"
    assert len(error.expected) < 100
