"""Stored values: read leniently, written as Calico writes them, without losing what we do not know."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weft.model.base import Metadata
from weft.model.codec import decode_stored, encode_stored
from weft.model.errors import FieldError, ValidationError
from weft.model.ipam import (
    DEFAULT_CONFIG,
    AffinityValue,
    Attribute,
    BlockValue,
    HandleValue,
    IPAMConfigValue,
    empty_block,
    from_stored,
    to_stored,
)
from weft.model.keys import AffinityKey, BlockKey, HandleKey, IPAMConfigKey, Key, Owner, ResourceKey
from weft.model.node import Node
from weft.model.policy import NetworkPolicy, Tier, TierSpec
from weft.model.pool import IPAMConfiguration, IPAMConfigurationSpec, IPPool
from weft.model.stored import StoredValue

V4 = ipaddress.ip_network("10.65.0.0/30")
BLOCK_CIDR = ipaddress.ip_network("10.65.0.0/31")
CIDR = ipaddress.ip_network("10.65.0.0/32")


def decode(key: Key, value: Any) -> StoredValue:
    return decode_stored(key, json.dumps(value).encode())


def test_a_value_without_metadata_gets_its_name_from_the_key() -> None:
    node = decode(ResourceKey("Node", "n"), {"spec": {"bgp": {"asNumber": "1.10"}}})
    assert isinstance(node, Node)
    assert node.metadata.name == "n"
    assert node.spec.bgp is not None
    assert node.spec.bgp.as_number == 65546


def test_null_and_empty_text_mean_unset() -> None:
    pool = decode(
        ResourceKey("IPPool", "p"),
        {
            "metadata": {"name": "p", "creationTimestamp": None},
            "spec": {"cidr": "10.0.0.0/8", "ipipMode": "", "nodeSelector": "", "allowedUses": None, "vxlanMode": None},
        },
    )
    assert isinstance(pool, IPPool)
    assert (pool.spec.ipip_mode, pool.spec.vxlan_mode, pool.spec.block_size) == ("Never", "Never", 26)
    assert (pool.spec.node_selector, pool.spec.allowed_uses) == ("all()", ("Workload", "Tunnel"))


def test_host_bits_and_unknown_fields_do_not_make_a_value_unusable() -> None:
    policy = decode(
        ResourceKey("NetworkPolicy", "p", "n"),
        {
            "kind": "NetworkPolicy",
            "metadata": {"name": "p", "namespace": "n", "managedFields": []},
            "spec": {"ingress": [{"action": "Allow", "source": {"nets": ["10.0.0.1/8"]}, "new": 1}], "future": {}},
        },
    )
    assert isinstance(policy, NetworkPolicy)
    assert policy.spec.ingress[0].source.nets == (ipaddress.ip_network("10.0.0.0/8"),)


UNUSABLE: dict[str, tuple[Key, str, str]] = {
    "no JSON": (ResourceKey("Tier", "t"), "{", "$"),
    "not an object": (ResourceKey("Tier", "t"), "[]", "$"),
    "an action we do not know": (
        ResourceKey("NetworkPolicy", "p", "n"),
        '{"spec":{"ingress":[{"action":"Maybe"}]}}',
        "spec.ingress[0].action",
    ),
    "a pool without a cidr": (ResourceKey("IPPool", "p"), '{"spec":{}}', "spec.cidr"),
    "a block of another key": (
        BlockKey(CIDR),
        '{"cidr":"10.65.0.1/32","allocations":[null],"unallocated":[0]}',
        "cidr",
    ),
    "a block with too few entries": (
        BlockKey(BLOCK_CIDR),
        '{"cidr":"10.65.0.0/31","allocations":[null],"unallocated":[0]}',
        "allocations",
    ),
    "an ordinal outside the block": (
        BlockKey(CIDR),
        '{"cidr":"10.65.0.0/32","allocations":[null],"unallocated":[1]}',
        "unallocated",
    ),
    "an attribute that is not there": (
        BlockKey(CIDR),
        '{"cidr":"10.65.0.0/32","allocations":[0],"unallocated":[]}',
        "allocations",
    ),
    "an affinity to nobody": (
        BlockKey(CIDR),
        '{"cidr":"10.65.0.0/32","affinity":"nobody","allocations":[null],"unallocated":[0]}',
        "affinity",
    ),
    "an affinity state we do not know": (AffinityKey(Owner("host", "n"), CIDR), '{"state":"lost"}', "state"),
    "a handle below nothing": (HandleKey("h"), '{"block":{"10.65.0.0/32":-1}}', "block[10.65.0.0/32]"),
}


@pytest.mark.parametrize(("key", "raw", "field"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_what_cannot_be_understood_is_unusable_and_says_where(key: Key, raw: str, field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decode_stored(key, raw.encode())
    assert caught.value.field == field
    assert caught.value.source.startswith("/calico/")


POLICY_NAMES = {
    "plain": ("allow", "default", {}, "allow"),
    "with the default tier's prefix": ("default.allow", "default", {}, "allow"),
    "with no tier at all": ("default.allow", "", {}, "allow"),
    "of another tier": ("security.allow", "security", {}, "security.allow"),
    "plain in another tier": ("allow", "security", {}, "allow"),
    "kept in an annotation": ("default.allow", "default", {"projectcalico.org/metadata": '{"name":"mine"}'}, "mine"),
    "of a Kubernetes policy": ("knp.default.web", "default", {}, "knp.default.web"),
}


@pytest.mark.parametrize(("stored", "tier", "annotations", "name"), POLICY_NAMES.values(), ids=POLICY_NAMES.keys())
def test_policies_stored_by_older_releases_have_their_own_names(
    stored: str, tier: str, annotations: dict[str, str], name: str
) -> None:
    policy = decode(
        ResourceKey("NetworkPolicy", stored, "n"),
        {
            "metadata": {"name": stored, "namespace": "n", "annotations": {"a": "b", **annotations}},
            "spec": {"tier": tier},
        },
    )
    assert isinstance(policy, NetworkPolicy)
    assert policy.metadata.name == name
    assert policy.metadata.annotations == {"a": "b"}


@pytest.mark.parametrize("name", ["allow", "default.allow", "knp.default.web"])
def test_a_policy_is_stored_with_its_name_so_that_every_release_reads_the_same(name: str) -> None:
    policy = NetworkPolicy(metadata=Metadata(name=name, namespace="n", annotations={"a": "b"}))
    raw = encode_stored(policy)
    assert json.loads(raw)["metadata"]["annotations"] == {
        "a": "b",
        "projectcalico.org/metadata": f'{{"name":"{name}"}}',
    }
    assert decode_stored(ResourceKey("NetworkPolicy", name, "n"), raw) == policy


def test_a_block_has_exactly_calicos_json() -> None:
    block = BlockValue(
        cidr=BLOCK_CIDR,
        affinity="host:node-1",
        allocations=(None, 0),
        unallocated=(0,),
        attributes=(Attribute(handle_id="net.c", secondary={"node": "node-1"}),),
        sequence_number=7,
        sequence_number_for_allocation={1: 6},
    )
    assert json.loads(encode_stored(block)) == {
        "cidr": "10.65.0.0/31",
        "affinity": "host:node-1",
        "allocations": [None, 0],
        "unallocated": [0],
        "attributes": [{"handle_id": "net.c", "secondary": {"node": "node-1"}}],
        "sequenceNumber": 7,
        "sequenceNumberForAllocation": {"1": 6},
        "deleted": False,
    }
    assert decode_stored(BlockKey(BLOCK_CIDR), encode_stored(block)) == block


def test_an_empty_block_queues_its_addresses_in_order() -> None:
    block = empty_block(ipaddress.ip_network("10.65.0.0/26"), Owner("host", "n"))
    assert block.owner == Owner("host", "n")
    assert block.unallocated == tuple(range(64))
    assert json.loads(encode_stored(empty_block(CIDR, None)))["affinity"] is None
    assert block.ordinal(ipaddress.ip_address("10.65.0.63")) == 63
    assert block.ordinal(ipaddress.ip_address("10.65.0.64")) is None
    assert block.ordinal(ipaddress.ip_address("fd00::1")) is None


def test_a_block_written_before_calico_3_reads_as_one_of_today() -> None:
    block = decode(
        BlockKey(CIDR),
        {
            "cidr": "10.65.0.0/32",
            "hostAffinity": "n",
            "strictAffinity": False,
            "allocations": [None],
            "unallocated": [0],
            "attributes": None,
        },
    )
    assert isinstance(block, BlockValue)
    assert block.affinity == "host:n"
    assert "hostAffinity" not in json.loads(encode_stored(block))


def test_an_affinity_without_a_state_is_a_confirmed_one_of_an_old_release() -> None:
    key = AffinityKey(Owner("host", "n"), CIDR)
    assert decode_stored(key, b"") == decode_stored(key, b"{}") == AffinityValue(state="confirmed")
    assert decode_stored(key, b'{"state":"","deleted":false}') == AffinityValue()
    assert encode_stored(AffinityValue(state="pending")) == b'{"state":"pending","deleted":false}'


def test_handles_and_the_configuration_have_calicos_json() -> None:
    assert encode_stored(HandleValue(block={"10.65.0.0/26": 2})) == b'{"block":{"10.65.0.0/26":2},"deleted":false}'
    assert decode_stored(HandleKey("h"), b'{"block":null,"deleted":false}') == HandleValue()
    assert encode_stored(DEFAULT_CONFIG) == b'{"auto_allocate_blocks":true}'
    assert decode_stored(IPAMConfigKey(), b"{}") == IPAMConfigValue(auto_allocate_blocks=False)


def test_an_ipam_configuration_is_stored_in_the_short_form() -> None:
    spec = IPAMConfigurationSpec(
        strict_affinity=True, max_blocks_per_host=3, kube_virt_vm_address_persistence="Enabled"
    )
    resource = IPAMConfiguration(metadata=Metadata(name="default"), spec=spec)
    raw = encode_stored(resource)
    assert json.loads(raw) == {
        "strict_affinity": True,
        "auto_allocate_blocks": True,
        "maxBlocksPerHost": 3,
        "kubeVirtVMAddressPersistence": "Enabled",
    }
    stored = decode_stored(IPAMConfigKey(), raw)
    assert stored == to_stored(resource)
    assert isinstance(stored, IPAMConfigValue)
    assert from_stored(stored) == resource


def test_a_value_that_contradicts_itself_cannot_be_built() -> None:
    with pytest.raises(FieldError):
        BlockValue(cidr=V4, allocations=(None,), unallocated=())
    with pytest.raises(FieldError):
        empty_block(ipaddress.ip_network("10.0.0.0/8"), None)
    block = empty_block(CIDR, None)
    with pytest.raises(AttributeError):
        block.deleted = True  # type: ignore[misc]


def test_what_we_do_not_know_survives_a_rewrite() -> None:
    key = ResourceKey("NetworkPolicy", "p", "n")
    stored = {
        "kind": "NetworkPolicy",
        "apiVersion": "projectcalico.org/v3",
        "futureTop": {"a": [1]},
        "metadata": {"name": "p", "namespace": "n", "futureMeta": None},
        "spec": {
            "tier": "default",
            "futureSpec": 0,
            "ingress": [
                {"action": "Allow", "protocol": "TCP", "future": "tcp"},
                {"action": "Deny", "source": {"selector": "has(a)", "future": "deep"}},
            ],
        },
    }
    policy = decode(key, stored)
    assert isinstance(policy, NetworkPolicy)
    first, second = policy.spec.ingress
    new = msgspec.structs.replace(policy.spec, ingress=(second, first), order=5.0)
    changed = msgspec.structs.replace(policy, spec=new)
    written = json.loads(encode_stored(changed, json.dumps(stored).encode()))
    assert written["futureTop"] == {"a": [1]}
    assert written["metadata"]["futureMeta"] is None
    assert written["spec"]["futureSpec"] == 0
    assert written["spec"]["order"] == 5
    assert written["spec"]["ingress"] == [stored["spec"]["ingress"][1], stored["spec"]["ingress"][0]]  # type: ignore[index]


def test_a_known_field_that_was_removed_stays_removed() -> None:
    key = ResourceKey("IPPool", "p")
    stored = {
        "metadata": {"name": "p", "labels": {"a": "b"}},
        "spec": {"cidr": "10.0.0.0/8", "natOutgoing": True, "x": 1},
    }
    pool = decode(key, stored)
    assert isinstance(pool, IPPool)
    changed = msgspec.structs.replace(
        pool, spec=msgspec.structs.replace(pool.spec, nat_outgoing=False), metadata=Metadata(name="p")
    )
    written = json.loads(encode_stored(changed, json.dumps(stored).encode()))
    assert "natOutgoing" not in written["spec"]
    assert "labels" not in written["metadata"]
    assert written["spec"]["x"] == 1


def test_list_elements_with_a_name_keep_their_own_unknown_fields() -> None:
    stored = {
        "metadata": {"name": "h"},
        "spec": {
            "node": "n",
            "ports": [
                {"name": "a", "protocol": "TCP", "port": 1, "x": 1},
                {"name": "b", "protocol": "TCP", "port": 2, "x": 2},
            ],
        },
    }
    endpoint = decode(ResourceKey("HostEndpoint", "h"), stored)
    spec = endpoint.spec  # type: ignore[union-attr]
    ports = tuple(msgspec.structs.replace(port, port=port.port + 10) for port in reversed(spec.ports))
    changed = msgspec.structs.replace(endpoint, spec=msgspec.structs.replace(spec, ports=ports))
    written = json.loads(encode_stored(changed, json.dumps(stored).encode()))
    assert [(port["name"], port["port"], port["x"]) for port in written["spec"]["ports"]] == [
        ("b", 12, 2),
        ("a", 11, 1),
    ]


def test_a_previous_value_that_is_no_json_is_replaced() -> None:
    assert encode_stored(AffinityValue(), b"{") == encode_stored(AffinityValue())


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text("ab", max_size=2)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.text("xyz", min_size=1, max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)
unknown = st.dictionaries(st.sampled_from(["zUnknown", "zOther"]), json_values)


@given(unknown, unknown, unknown)
def test_a_rewrite_of_an_unchanged_value_changes_nothing_unknown(top: Any, spec: Any, attribute: Any) -> None:
    stored = {
        "cidr": "10.65.0.0/32",
        "affinity": None,
        "allocations": [0],
        "unallocated": [],
        "attributes": [{"handle_id": "h", "secondary": {"a": "b"}, **attribute}],
        "sequenceNumber": 1,
        "sequenceNumberForAllocation": {},
        "deleted": False,
        **top,
    }
    raw = json.dumps(stored).encode()
    assert json.loads(encode_stored(decode_stored(BlockKey(CIDR), raw), raw)) == stored
    pool = {"spec": {"cidr": "10.0.0.0/8", **spec}, "metadata": {"name": "p"}, **top}
    raw = json.dumps(pool).encode()
    written = json.loads(encode_stored(decode_stored(ResourceKey("IPPool", "p"), raw), raw))
    assert {name: written[name] for name in top} == top
    assert {name: written["spec"][name] for name in spec} == spec


_TIER = encode_stored(Tier(metadata=Metadata(name="t", labels={"a": "b"}), spec=TierSpec(order=1)))


@given(
    st.binary(max_size=30)
    | st.builds(
        lambda at, put: _TIER[:at] + put + _TIER[at + len(put) :], st.integers(0, len(_TIER)), st.binary(max_size=3)
    )
)
@example(b'{"spec": {"\x80": 1}}')
def test_any_bytes_give_a_value_or_a_validation_error(raw: bytes) -> None:
    for key in (ResourceKey("Tier", "t"), BlockKey(CIDR), HandleKey("h"), IPAMConfigKey()):
        try:
            decode_stored(key, raw)
        except ValidationError as error:
            found = error.source
        else:
            found = "/calico/"
        assert found.startswith("/calico/")
