"""What is wrong in a Kubernetes document is refused by the field that its author wrote."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.unit.kubernetes.documents import (
    Tree,
    admin_policy,
    baseline_policy,
    cluster_policy,
    document,
    namespace,
    pod,
    policy,
)
from tests.unit.kubernetes.pieces import (
    ADMIN,
    ALL,
    CLUSTER,
    admin_rule,
    at,
    block,
    cluster_rule,
    expression,
    let_in,
    selecting,
    serving,
    without,
)
from weft.kubernetes import decode_manifests
from weft.model.errors import ValidationError


def refused(tree: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        decode_manifests(yaml.safe_dump(tree), "k8s.yaml")
    return caught.value


BLOCK = "spec.ingress[0].from[0].ipBlock"


PORT = "spec.egress[0].ports[0]"


KEY = "spec.podSelector.matchExpressions[0]"


CONTAINER_PORT = "spec.containers[0].ports[0]"


POLICIES: dict[str, tuple[Tree, str, str]] = {
    "no name": (policy({}, name=""), "metadata.name", "a name"),
    "a name in capitals": (policy({}, name="Web"), "metadata.name", "lower case"),
    "a namespace that cannot be": (policy({}, namespace="a_b"), "metadata.namespace", "lower case"),
    "a label that is a number": (
        document("networking.k8s.io/v1", "NetworkPolicy", "p", labels={"a": 1}),
        "metadata.labels.a",
        "text",
    ),
    "a field of Calico's": (policy({"selector": "all()"}), "spec.selector", "did you mean podSelector?"),
    "a misspelt field": (policy({"podSelectors": {}}), "spec.podSelectors", "did you mean podSelector?"),
    "a misspelt field of metadata": (
        document("networking.k8s.io/v1", "NetworkPolicy", "p") | {"metadata": {"name": "p", "lables": {}}},
        "metadata.lables",
        "did you mean labels?",
    ),
    "a field beside spec": (policy({}) | {"specs": {}}, "specs", "did you mean spec?"),
    "a spec that is a list": (policy([]), "spec", "an object"),  # type: ignore[arg-type]
    "a selector that is text": (policy({"podSelector": "a == 'b'"}), "spec.podSelector", "an object"),
    "a label name that cannot be": (selecting(matchLabels={"-a": "b"}), "spec.podSelector.matchLabels", "a label name"),
    "a label value that cannot be": (
        selecting(matchLabels={"a": "it's"}),
        "spec.podSelector.matchLabels.a",
        "at most 63",
    ),
    "a label value that is a number": (selecting(matchLabels={"a": 1}), "spec.podSelector.matchLabels.a", "text"),
    "labels as a list": (selecting(matchLabels=["a"]), "spec.podSelector.matchLabels", "a map"),
    "a misspelt part of a selector": (selecting(matchLabel={}), "spec.podSelector.matchLabel", "matchLabels?"),
    "an expression without a key": (expression(operator="Exists"), f"{KEY}.key", "must be given"),
    "an expression without an operator": (expression(key="a"), f"{KEY}.operator", "must be given"),
    "an unknown operator": (expression(key="a", operator="Equals", values=["b"]), f"{KEY}.operator", "In, NotIn"),
    "In without values": (expression(key="a", operator="In"), f"{KEY}.values", "at least one value"),
    "NotIn without values": (expression(key="a", operator="NotIn", values=[]), f"{KEY}.values", "at least one value"),
    "Exists with values": (expression(key="a", operator="Exists", values=["b"]), f"{KEY}.values", "no values"),
    "a key that cannot be": (expression(key="a b", operator="Exists"), f"{KEY}.key", "a label name"),
    "a value that cannot be": (
        expression(key="a", operator="In", values=["ok", "not ok"]),
        f"{KEY}.values[1]",
        "at most 63",
    ),
    "an unknown type": (policy({"policyTypes": ["ingress"]}), "spec.policyTypes[0]", "one of Egress, Ingress"),
    "too many types": (policy({"policyTypes": ["Ingress"] * 3}), "spec.policyTypes", "both"),
    "rules as an object": (policy({"ingress": {}}), "spec.ingress", "a list"),
    "a rule that is null": (policy({"ingress": [None]}), "spec.ingress[0]", "an object"),
    "an egress rule with from": (policy({"egress": [{"from": []}]}), "spec.egress[0].from", "one of ports, to"),
    "a rule with an action": (policy({"ingress": [{"action": "Deny"}]}), "spec.ingress[0].action", "from, ports"),
    "an empty peer": (let_in({}), "spec.ingress[0].from[0]", "a podSelector"),
    "a peer whose selector is null": (let_in({"podSelector": None}), "spec.ingress[0].from[0]", "a podSelector"),
    "a peer that is text": (let_in("all"), "spec.ingress[0].from[0]", "an object"),
    "a misspelt peer": (
        let_in({"namespaceselector": {}}),
        "spec.ingress[0].from[0].namespaceselector",
        "namespaceSelector",
    ),
    "a block beside a selector": (
        let_in({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}),
        "spec.ingress[0].from[0].podSelector",
        "no selector beside ipBlock",
    ),
    "a block beside a namespace selector, of egress": (
        policy({"egress": [{}, {"to": [{"ipBlock": {"cidr": "::/0"}, "namespaceSelector": {}}]}]}),
        "spec.egress[1].to[0].namespaceSelector",
        "no selector beside ipBlock",
    ),
    "a wrong selector of a peer": (
        let_in({"podSelector": {}}, {"namespaceSelector": {"matchLabels": {"a": "!"}}}),
        "spec.ingress[0].from[1].namespaceSelector.matchLabels.a",
        "at most 63",
    ),
    "a block without a prefix": (let_in({"ipBlock": {}}), f"{BLOCK}.cidr", "must be given"),
    "a block that is an address": (block("10.0.0.1"), f"{BLOCK}.cidr", "with its length"),
    "a block with a netmask": (block("10.0.0.0/255.0.0.0"), f"{BLOCK}.cidr", "with its length"),
    "a block that is no prefix": (block("10.0.0/8"), f"{BLOCK}.cidr", "a prefix"),
    "a block with a length too long": (block("10.0.0.0/33"), f"{BLOCK}.cidr", "a prefix"),
    "a block that is a number": (block(10), f"{BLOCK}.cidr", "a prefix"),
    "a hole that is no prefix": (block("10.0.0.0/8", "10.1.0.0/16", "x"), f"{BLOCK}.except[1]", "a prefix"),
    "a hole outside": (block("10.0.0.0/8", "11.0.0.0/16"), f"{BLOCK}.except[0]", "inside of 10.0.0.0/8"),
    "a hole as large as the block": (block("10.0.0.0/8", "10.0.0.0/8"), f"{BLOCK}.except[0]", "smaller"),
    "a hole around the block": (block("10.0.0.0/8", "0.0.0.0/0"), f"{BLOCK}.except[0]", "inside of 10.0.0.0/8"),
    "a hole of the other family": (block("10.0.0.0/8", "fd00::/16"), f"{BLOCK}.except[0]", "inside of 10.0.0.0/8"),
    "an unknown protocol": (at({"protocol": "ICMP"}), f"{PORT}.protocol", "one of SCTP, TCP, UDP"),
    "a protocol in lower case": (at({"protocol": "tcp", "port": 80}), f"{PORT}.protocol", "one of SCTP, TCP, UDP"),
    "a protocol by number": (at({"protocol": 6}), f"{PORT}.protocol", ""),
    "port 0": (at({"port": 0}), f"{PORT}.port", "1 to 65535"),
    "a negative port": (at({"port": -1}), f"{PORT}.port", "1 to 65535"),
    "a port too high": (at({"port": 65536}), f"{PORT}.port", "1 to 65535"),
    "a port that is a fraction": (at({"port": 80.5}), f"{PORT}.port", "a port number"),
    "a port that is a boolean": (at({"port": True}), f"{PORT}.port", "a port number"),
    "a port number in quotes": (at({"port": "80"}), f"{PORT}.port", "without quotes"),
    "a range in one word": (at({"port": "80:90"}), f"{PORT}.port", ""),
    "a port name in capitals": (at({"port": "HTTP"}), f"{PORT}.port", "lower case"),
    "a port name too long": (at({"port": "a" * 16}), f"{PORT}.port", "at most 15"),
    "a port name without a letter": (at({"port": "8-0"}), f"{PORT}.port", "a letter"),
    "a port name with two dashes": (at({"port": "a--b"}), f"{PORT}.port", "single '-'"),
    "an empty port name": (at({"port": ""}), f"{PORT}.port", "a port number"),
    "an end without a port": (at({"endPort": 80}), f"{PORT}.endPort", "without a port number"),
    "an end after a name": (at({"port": "web", "endPort": 80}), f"{PORT}.endPort", "without a port number"),
    "an end before the port": (at({"port": 80, "endPort": 79}), f"{PORT}.endPort", "from 80"),
    "an end too high": (at({"port": 80, "endPort": 65536}), f"{PORT}.endPort", "to 65535"),
    "an end that is text": (at({"port": 80, "endPort": "90"}), f"{PORT}.endPort", "a whole number"),
    "a misspelt port": (at({"ports": 80}), f"{PORT}.ports", "did you mean port?"),
    "the second port of the second rule": (
        policy({"ingress": [{}, {"ports": [{"port": 1}, {"port": 0}]}]}),
        "spec.ingress[1].ports[1].port",
        "1 to 65535",
    ),
}


OBJECTS: dict[str, tuple[Tree, str, str]] = {
    "an unknown kind": (document("v1", "Service", "s"), "kind", "one of Namespace, ServiceAccount, Pod"),
    "a misspelt kind": (document("v1", "Namespaces", "s"), "kind", "did you mean Namespace?"),
    "a kind that is no text": ({"apiVersion": "v1", "kind": 1}, "kind", "one of"),
    "a kind of another API": (document("networking.k8s.io/v1", "Ingress", "i"), "kind", "one of NetworkPolicy"),
    "an older API": (document("extensions/v1beta1", "NetworkPolicy", "p"), "apiVersion", "networking.k8s.io/v1"),
    "no API": ({"kind": "Pod", "metadata": {"name": "a"}}, "apiVersion", "one of projectcalico.org/v3, v1"),
    "no metadata": ({"apiVersion": "v1", "kind": "Namespace"}, "metadata", "must be given"),
    "a namespace in a namespace": (document("v1", "Namespace", "a", "b"), "metadata.namespace", "no namespace"),
    "a label of a namespace": (namespace("a", x="_"), "metadata.labels.x", "at most 63"),
    "a misspelt part of a pod": (pod("a") | {"stats": {}}, "stats", "did you mean status?"),
    "a node that cannot be": (pod("a", spec={"nodeName": "A"}), "spec.nodeName", "lower case"),
    "an account that cannot be": (pod("a", spec={"serviceAccountName": "A"}), "spec.serviceAccountName", "lower case"),
    "containers as an object": (pod("a", spec={"containers": {}}), "spec.containers", "a list"),
    "a container's port of 0": (serving(containerPort=0), f"{CONTAINER_PORT}.containerPort", "1 to 65535"),
    "a container's port too high": (serving(containerPort=70000), f"{CONTAINER_PORT}.containerPort", "1 to 65535"),
    "no container's port": (serving(name="web"), f"{CONTAINER_PORT}.containerPort", "must be given"),
    "a container's port in quotes": (serving(containerPort="80"), f"{CONTAINER_PORT}.containerPort", "a whole number"),
    "a name of a port": (serving(containerPort=80, name="Web"), f"{CONTAINER_PORT}.name", "lower case"),
    "a protocol of a port": (serving(containerPort=80, protocol="udp"), f"{CONTAINER_PORT}.protocol", "UDP"),
    "a port of the host": (serving(containerPort=80, hostPort=-1), f"{CONTAINER_PORT}.hostPort", "0 to 65535"),
    "a port of an init container": (
        pod("a", spec={"initContainers": [{}, {"ports": [{"containerPort": 0}]}]}),
        "spec.initContainers[1].ports[0].containerPort",
        "1 to 65535",
    ),
    "an address of a pod": (pod("a", "shop", "10.0.0.1", "10.0.0.256"), "status.podIPs[1].ip", "an IPv4 or IPv6"),
    "the one address of a pod": (pod("a", status={"podIP": "x"}), "status.podIP", "an IPv4 or IPv6"),
    "an address in an annotation": (
        pod("a", annotations={"cni.projectcalico.org/podIP": "10.0.0.0/8"}),
        "metadata.annotations.cni.projectcalico.org/podIP",
        "a single address",
    ),
    "floating addresses": (
        pod("a", "shop", "10.0.0.1", annotations={"cni.projectcalico.org/floatingIPs": "203.0.113.1"}),
        "metadata.annotations.cni.projectcalico.org/floatingIPs",
        "a JSON list",
    ),
    "source prefixes": (
        pod("a", annotations={"cni.projectcalico.org/allowedSourcePrefixes": '["10.0.0.1"]'}),
        "metadata.annotations.cni.projectcalico.org/allowedSourcePrefixes",
        "with its length",
    ),
    "an address of a slice": (
        document("discovery.k8s.io/v1", "EndpointSlice", "s", addressType="IPv4", endpoints=[{"addresses": ["::1"]}]),
        "endpoints[0].addresses[0]",
        "an IPv4 address",
    ),
    "a slice without a family": (document("discovery.k8s.io/v1", "EndpointSlice", "s"), "addressType", "given"),
    "an endpoint of a slice without addresses": (
        document("discovery.k8s.io/v1", "EndpointSlice", "s", addressType="FQDN", endpoints=[{"addresses": []}]),
        "endpoints[0].addresses",
        "at least one",
    ),
    "a port of a slice": (
        document("discovery.k8s.io/v1", "EndpointSlice", "s", addressType="IPv6", ports=[{"port": 65536}]),
        "ports[0].port",
        "1 to 65535",
    ),
}


OF_THE_CLUSTER: dict[str, tuple[Tree, str, str]] = {
    "no spec": (document("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "p"), "spec", "must be given"),
    "in a namespace": (
        document("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "p", "shop", spec=CLUSTER),
        "metadata.namespace",
        "no namespace",
    ),
    "of the other version": (
        document("policy.networking.k8s.io/v1alpha1", "ClusterNetworkPolicy", "p", spec=CLUSTER),
        "kind",
        "AdminNetworkPolicy",
    ),
    "no tier": (cluster_policy(without(CLUSTER, "tier")), "spec.tier", "must be given"),
    "an unknown tier": (cluster_policy(CLUSTER | {"tier": "default"}), "spec.tier", "one of Admin, Baseline"),
    "no priority": (admin_policy(without(ADMIN, "priority")), "spec.priority", "must be given"),
    "a priority too low": (admin_policy(ADMIN | {"priority": -1}), "spec.priority", "0 to 1000"),
    "a priority too high": (cluster_policy(CLUSTER | {"priority": 1001}), "spec.priority", "0 to 1000"),
    "a priority in quotes": (cluster_policy(CLUSTER | {"priority": "1"}), "spec.priority", "a whole number"),
    "no subject": (cluster_policy(without(CLUSTER, "subject")), "spec.subject", "must be given"),
    "an empty subject": (admin_policy(ADMIN | {"subject": {}}), "spec.subject", "exactly one of namespaces, pods"),
    "two subjects": (
        cluster_policy(CLUSTER | {"subject": ALL | {"pods": {}}}),
        "spec.subject",
        "exactly one of namespaces, pods",
    ),
    "a label of the subject": (
        cluster_policy(CLUSTER | {"subject": {"pods": {"podSelector": {"matchLabels": {"a": "!"}}}}}),
        "spec.subject.pods.podSelector.matchLabels.a",
        "at most 63",
    ),
    "a second baseline": (
        document(
            "policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", "other", spec={"subject": ALL}
        ),
        "metadata.name",
        "default",
    ),
    "a baseline with a priority": (baseline_policy(ADMIN), "spec.priority", "egress, ingress, subject"),
    "a baseline that passes": (
        baseline_policy({"subject": ALL, "ingress": [{"action": "Pass", "from": [ALL]}]}),
        "spec.ingress[0].action",
        "one of Allow, Deny",
    ),
    "no action": (
        cluster_policy(CLUSTER | {"ingress": [{"from": [ALL]}]}), "spec.ingress[0].action", "must be given"
    ),
    "an action of the older version": (cluster_rule(action="Allow"), "spec.egress[0].action", "one of Accept"),
    "an action of the newer version": (admin_rule(action="Accept"), "spec.ingress[0].action", "one of Allow"),
    "a name too long": (cluster_rule(name="a" * 101), "spec.egress[0].name", "at most 100"),
    "no peers": (cluster_rule(to=[]), "spec.egress[0].to", "at least one peer"),
    "peers left out": (
        admin_policy(ADMIN | {"ingress": [{"action": "Deny"}]}), "spec.ingress[0].from", "at least one peer"
    ),
    "an empty peer": (cluster_rule(to=[ALL, {}]), "spec.egress[0].to[1]", "exactly one of"),
    "a peer that is two": (cluster_rule(to=[ALL | {"networks": ["::/0"]}]), "spec.egress[0].to[0]", "exactly one of"),
    "networks in ingress": (
        admin_rule(**{"from": [{"networks": ["::/0"]}]}), "spec.ingress[0].from[0].networks", "pods"
    ),
    "no networks": (cluster_rule(to=[{"networks": []}]), "spec.egress[0].to[0].networks", "at least one"),
    "a network that is an address": (
        cluster_rule(to=[{"networks": ["::/0", "10.0.0.1"]}]),
        "spec.egress[0].to[0].networks[1]",
        "with its length",
    ),
    "nodes": (cluster_rule(to=[{"nodes": {}}]), "spec.egress[0].to[0].nodes", "cannot be chosen by label"),
    "names": (
        cluster_rule(to=[{"domainNames": ["example.com"]}]), "spec.egress[0].to[0].domainNames", "not resolved"
    ),
    "ports of the older version": (cluster_rule(ports=[]), "spec.egress[0].ports", ""),
    "protocols of the newer version": (admin_rule(protocols=[]), "spec.ingress[0].protocols", ""),
    "an empty protocol": (cluster_rule(protocols=[{}]), "spec.egress[0].protocols[0]", "exactly one of tcp"),
    "two protocols in one": (
        cluster_rule(protocols=[{"tcp": {}, "udp": {}}]), "spec.egress[0].protocols[0]", "exactly one of tcp"
    ),
    "an unknown protocol": (cluster_rule(protocols=[{"icmp": {}}]), "spec.egress[0].protocols[0].icmp", "tcp"),
    "an empty port": (
        cluster_rule(protocols=[{"tcp": {"destinationPort": {}}}]),
        "spec.egress[0].protocols[0].tcp.destinationPort",
        "exactly one of number, range",
    ),
    "a number too high": (
        cluster_rule(protocols=[{"udp": {"destinationPort": {"number": 65536}}}]),
        "spec.egress[0].protocols[0].udp.destinationPort.number",
        "1 to 65535",
    ),
    "a range that ends before it starts": (
        cluster_rule(protocols=[{"sctp": {"destinationPort": {"range": {"start": 9, "end": 9}}}}]),
        "spec.egress[0].protocols[0].sctp.destinationPort.range.end",
        "above 9",
    ),
    "a range without an end": (
        cluster_rule(protocols=[{"sctp": {"destinationPort": {"range": {"start": 9}}}}]),
        "spec.egress[0].protocols[0].sctp.destinationPort.range.end",
        "must be given",
    ),
    "a name of a port": (
        cluster_rule(protocols=[{"destinationNamedPort": "80"}]),
        "spec.egress[0].protocols[0].destinationNamedPort",
        "a letter",
    ),
    "an empty port of the older version": (admin_rule(ports=[{}]), "spec.ingress[0].ports[0]", "exactly one of"),
    "a port number of the older version": (
        admin_rule(ports=[{"portNumber": {"port": 0}}]), "spec.ingress[0].ports[0].portNumber.port", "1 to 65535"
    ),
    "a range of the older version": (
        admin_rule(ports=[{"portRange": {"start": 0, "end": 9}}]),
        "spec.ingress[0].ports[0].portRange.start",
        "1 to 65535",
    ),
    "a protocol of the older version": (
        admin_rule(ports=[{"portNumber": {"port": 1, "protocol": "ICMP"}}]),
        "spec.ingress[0].ports[0].portNumber.protocol",
        "TCP",
    ),
    "a named port of the older version": (
        admin_rule(ports=[{"namedPort": "Web"}]), "spec.ingress[0].ports[0].namedPort", "lower case"
    ),
}  # fmt: skip


EVERYTHING_WRONG = {**POLICIES, **OBJECTS, **{f"cluster: {name}": case for name, case in OF_THE_CLUSTER.items()}}


@pytest.mark.parametrize(("tree", "field", "expected"), EVERYTHING_WRONG.values(), ids=EVERYTHING_WRONG)
def test_the_field_that_is_wrong_is_named_with_what_would_be_right(tree: Tree, field: str, expected: str) -> None:
    error = refused(tree)
    assert (error.source, error.document) == ("k8s.yaml", 0)
    assert error.field == field
    assert expected in error.expected
    assert error.expected


@pytest.mark.parametrize(("tree", "field", "expected"), list(EVERYTHING_WRONG.values())[::7])
def test_inside_a_list_the_item_is_named_too(tree: Tree, field: str, expected: str) -> None:
    error = refused({"apiVersion": "v1", "kind": "List", "items": [namespace("a"), tree]})
    assert error.field == f"items[1].{field}"
