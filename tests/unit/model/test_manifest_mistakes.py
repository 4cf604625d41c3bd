"""A mistake in a manifest is named with its field, what was found and what would be right."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.unit.model.manifests import TOR, manifest, one, refused, rule
from weft.model.codec import decode_manifests


def bad(kind: str, spec: Any, field: str, expected: str, **metadata: Any) -> tuple[str, str, str]:
    return manifest(kind, spec, **metadata), field, expected


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
