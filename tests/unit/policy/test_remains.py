"""What of a resource that cannot be read is still enforced: it may refuse, it never allows."""

import json
from math import inf
from typing import Any

import pytest

from weft.model.keys import ResourceKey
from weft.model.policy import Rule
from weft.policy.remains import Remains, remains

NP = ResourceKey("NetworkPolicy", "np", "one")
GNP = ResourceKey("GlobalNetworkPolicy", "gnp")
TIER = ResourceKey("Tier", "t")
PROFILE = ResourceKey("Profile", "p")
SET = ResourceKey("GlobalNetworkSet", "s")
SETTINGS = ResourceKey("FelixConfiguration", "default")

ALLOW, DENY = Rule(action="Allow"), Rule(action="Deny")
BAD = [{"action": "Permit"}]
GOOD = [{"action": "Allow"}]
CHOICE = {"selector": "app == 'a'"}


def left(key: ResourceKey, spec: object, **metadata: object) -> Remains:
    return remains(key, json.dumps({"kind": key.kind, "metadata": metadata, "spec": spec}).encode())


@pytest.mark.parametrize(
    ("key", "spec", "changed"),
    [
        pytest.param(
            NP, {**CHOICE, "ingress": BAD, "egress": GOOD}, {"ingress": (DENY,), "egress": (ALLOW,)}, id="an action"
        ),
        pytest.param(NP, {**CHOICE, "ingress": [*GOOD, *BAD]}, {"ingress": (DENY,)}, id="the second rule"),
        pytest.param(
            NP, {**CHOICE, "ingress": BAD, "egress": BAD}, {"ingress": (DENY,), "egress": (DENY,)}, id="both directions"
        ),
        pytest.param(
            GNP,
            {**CHOICE, "ingress": GOOD, "types": ["Both"]},
            {"ingress": (DENY,), "egress": (DENY,), "types": ("Ingress", "Egress")},
            id="types: both directions are denied",
        ),
        pytest.param(
            GNP,
            {**CHOICE, "ingress": GOOD, "order": "first"},
            {"ingress": (DENY,), "egress": (DENY,), "order": -inf},
            id="order: denied before all others",
        ),
        pytest.param(
            GNP, {**CHOICE, "ingress": GOOD, "performanceHints": ["Fast"]}, {"ingress": (ALLOW,)}, id="a mere hint"
        ),
        pytest.param(PROFILE, {"ingress": BAD, "egress": GOOD}, {"ingress": (DENY,), "egress": (ALLOW,)}, id="profile"),
        pytest.param(
            PROFILE,
            {"ingress": GOOD, "labelsToApply": 5},
            {"ingress": (DENY,), "egress": (DENY,), "labels_to_apply": {}},
            id="labels to apply",
        ),
        pytest.param(TIER, {"order": 5, "defaultAction": "Allow"}, {"order": 5, "default_action": "Deny"}, id="tier"),
        pytest.param(
            SETTINGS,
            {"defaultEndpointToHostAction": 5, "logPrefix": "x"},
            {"default_endpoint_to_host_action": "Drop", "log_prefix": "x"},
            id="to the host",
        ),
    ],
)
def test_what_can_be_read_stays_and_the_rest_denies(key: ResourceKey, spec: Any, changed: dict[str, object]) -> None:
    found = left(key, spec)
    assert found.value is not None
    assert {field: getattr(found.value.spec, field) for field in changed} == changed
    if "selector" in spec:
        assert found.value.spec.selector == spec["selector"]
    assert found.problems


@pytest.mark.parametrize(
    ("key", "spec"),
    [
        pytest.param(NP, {"selector": ["a"], "ingress": GOOD}, id="selector"),
        pytest.param(GNP, {"namespaceSelector": 1, "ingress": GOOD}, id="namespace selector"),
        pytest.param(NP, {"serviceAccountSelector": {}, "ingress": BAD}, id="service account selector"),
        pytest.param(NP, [], id="spec"),
        pytest.param(TIER, {"order": "first"}, id="order of a tier"),
        pytest.param(ResourceKey("IPPool", "pool"), {"cidr": "10.0.0.0/33"}, id="pool"),
        pytest.param(ResourceKey("WorkloadEndpoint", "w", "one"), {"ipNetworks": ["x"]}, id="endpoint"),
    ],
)
def test_nothing_is_left_where_it_is_not_known_whom_it_concerns(key: ResourceKey, spec: object) -> None:
    found = left(key, spec)
    assert found.value is None
    assert found.problems


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"5", b'{"spec": 1, "spec": []}', b"\xff"])
@pytest.mark.parametrize("key", [NP, GNP, TIER, PROFILE, SET, SETTINGS], ids=lambda key: key.kind)
def test_bytes_that_are_no_resource_at_all_leave_nothing_that_allows(key: ResourceKey, raw: bytes) -> None:
    found = remains(key, raw)
    if key is SETTINGS:
        assert found.value is not None
        assert found.value.spec.default_endpoint_to_host_action == "Drop"
    else:
        assert found.value is None
    assert found.problems


def test_metadata_that_cannot_be_read_takes_nothing_from_a_policy() -> None:
    found = left(NP, {**CHOICE, "ingress": GOOD}, annotations=5)
    assert found.value is not None
    assert found.value.spec.ingress == (ALLOW,)
    assert found.problems[0].startswith("metadata.annotations: ")


def test_of_a_network_set_only_the_wrong_prefixes_are_missing() -> None:
    nets = [f"10.0.{i // 256}.{i % 256}/32" for i in range(1000)]
    nets[3], nets[700] = "10.0.0.0/33", "example.org"
    found = left(SET, {"nets": nets}, labels={"role": "bad"})
    assert found.value is not None
    assert found.value.metadata.labels == {"role": "bad"}
    assert len(found.value.spec.nets) == 998
    assert [problem.partition(":")[0] for problem in found.problems] == ["spec.nets[3]", "spec.nets[700]"]


def test_a_network_set_whose_labels_cannot_be_read_is_in_no_set() -> None:
    assert left(SET, {"nets": ["10.0.0.0/8"]}, labels=5).value is None


SNP = ResourceKey("StagedNetworkPolicy", "snp", "one")
HOST = ResourceKey("HostEndpoint", "h")
SLICE = ResourceKey("KubernetesEndpointSlice", "s", "one")
INBOUND = "failsafeInboundHostPorts"


def test_a_staged_policy_is_left_as_the_policy_would_be() -> None:
    found = left(SNP, {**CHOICE, "ingress": BAD, "stagedAction": "Set"})
    assert found.value is not None
    assert found.value.spec.ingress == (DENY,)
    assert left(SNP, {"selector": 5, "ingress": GOOD}).value is None


def test_where_it_is_not_known_whether_forwarded_packets_are_meant_they_are() -> None:
    found = left(GNP, {**CHOICE, "ingress": GOOD, "applyOnForward": "maybe"})
    assert found.value is not None
    assert (found.value.spec.apply_on_forward, found.value.spec.ingress) == (True, (DENY,))


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"ports": [{"name": "web", "protocol": "TCP", "port": 70000}]}, True),
        ({"expectedIPs": ["x"]}, False),
        ({"profiles": 5}, False),
        ({"node": {}}, False),
    ],
)
def test_of_a_host_endpoint_only_ports_may_be_missing(change: dict[str, object], kept: bool) -> None:
    found = left(HOST, {"node": "n", "interfaceName": "eth0", **change})
    assert (found.value is not None) is kept
    assert found.problems[0].endswith("its ports have no names" if kept else "it protects no interface")


def test_a_host_endpoint_whose_labels_cannot_be_read_protects_nothing() -> None:
    assert left(HOST, {"node": "n", "interfaceName": "eth0"}, labels=5).value is None


def test_an_endpoint_slice_that_cannot_be_read_is_in_no_set() -> None:
    raw = json.dumps({"metadata": {}, "endpoints": [{"addresses": 5}]}).encode()
    found = remains(SLICE, raw)
    assert found.value is None
    assert found.problems[0].endswith("its addresses are in no set")


def _inbound(*entries: object) -> list[int]:
    found = left(SETTINGS, {INBOUND: list(entries), "logPrefix": "x"})
    assert found.value is not None
    assert found.value.spec.log_prefix == "x"
    assert all("failsafe ports are open" in problem for problem in found.problems)
    return [port.port for port in found.value.spec.failsafe_inbound_host_ports]


BUILT_IN = [22, 68, 179, 2379, 2380, 5473, 6443, 6666, 6667]


@pytest.mark.parametrize("wrong", ["x", 5, {}, {"port": 70000}, {"port": "ssh"}, {"port": 22, "net": "10.0.0.0/33"}])
def test_a_wrong_failsafe_port_closes_neither_the_readable_ones_nor_the_built_in_ones(wrong: object) -> None:
    assert _inbound({"protocol": "TCP", "port": 2222}, wrong) == [2222, *BUILT_IN]
    assert _inbound(wrong) == BUILT_IN


@pytest.mark.parametrize("wrong", ["tcp:22", 5, {"port": 22}])
def test_failsafe_ports_that_are_no_list_are_the_built_in_ones(wrong: object) -> None:
    found = left(SETTINGS, {INBOUND: wrong})
    assert found.value is not None
    assert [port.port for port in found.value.spec.failsafe_inbound_host_ports] == BUILT_IN


def test_settings_of_which_nothing_can_be_read_close_what_others_might_open_but_no_failsafe_port() -> None:
    spec = remains(SETTINGS, b"{").value.spec  # type: ignore[union-attr]
    assert spec.workload_source_spoofing == "Disabled"
    assert spec.allow_vxlan_packets_from_workloads is False
    assert [port.port for port in spec.failsafe_inbound_host_ports] == BUILT_IN


def test_a_flag_that_cannot_be_read_leaves_nothing_to_another_configuration() -> None:
    found = left(SETTINGS, {"allowIPIPPacketsFromWorkloads": "sometimes"})
    assert found.value is not None
    assert found.value.spec.allow_ipip_packets_from_workloads is False
