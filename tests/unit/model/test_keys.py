"""Datastore keys: Calico's paths, and that reading is the inverse of writing."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.model import kinds
from weft.model.base import Metadata
from weft.model.errors import FieldError
from weft.model.keys import (
    REFLECTORS,
    WEFT,
    Addressee,
    AffinityKey,
    BlockKey,
    HandleKey,
    IPAMConfigKey,
    Key,
    Owner,
    QuestionKey,
    ReflectorKey,
    ResourceKey,
    affinities_prefix,
    affinity_prefix,
    block_prefix,
    of,
    parse,
    parse_owner,
    path,
    prefix,
    questions_prefix,
)
from weft.model.node import Node
from weft.model.pool import IPAMConfiguration

V4 = ipaddress.ip_network("10.65.0.0/26")
V6 = ipaddress.ip_network("fd00:65::80/122")

PATHS: dict[str, tuple[Key, str]] = {
    "a resource": (ResourceKey("IPPool", "pool-1"), "/calico/resources/v3/projectcalico.org/ippools/pool-1"),
    "a resource in a namespace": (
        ResourceKey("NetworkPolicy", "allow", "prod"),
        "/calico/resources/v3/projectcalico.org/networkpolicies/prod/allow",
    ),
    "a BGP filter": (ResourceKey("BGPFilter", "f"), "/calico/resources/v3/projectcalico.org/bgpfilters/f"),
    "a workload endpoint": (
        ResourceKey("WorkloadEndpoint", "node--1-cni-abc-eth0", "default"),
        "/calico/resources/v3/projectcalico.org/workloadendpoints/default/node--1-cni-abc-eth0",
    ),
    "an IPv4 block": (BlockKey(V4), "/calico/ipam/v2/assignment/ipv4/block/10.65.0.0-26"),
    "an IPv6 block keeps its colons": (BlockKey(V6), "/calico/ipam/v2/assignment/ipv6/block/fd00:65::80-122"),
    "a node's affinity": (
        AffinityKey(Owner("host", "node-1"), V4),
        "/calico/ipam/v2/host/node-1/ipv4/block/10.65.0.0-26",
    ),
    "a virtual owner's affinity": (
        AffinityKey(Owner("virtual", "load-balancer"), V6),
        "/calico/ipam/v2/virtual/load-balancer/ipv6/block/fd00:65::80-122",
    ),
    "a handle": (HandleKey("net.0a1b"), "/calico/ipam/v2/handle/net.0a1b"),
    "the IPAM configuration": (IPAMConfigKey(), "/calico/ipam/v2/config"),
    "settings of automatic reflectors": (ReflectorKey("settings"), "/calico/weft/v1/reflectors/settings"),
    "their state": (ReflectorKey("state"), "/calico/weft/v1/reflectors/state"),
    "a reflector": (ReflectorKey("serving", "n1"), "/calico/weft/v1/reflectors/serving/n1"),
    "a client": (ReflectorKey("attached", "n1"), "/calico/weft/v1/reflectors/attached/n1"),
    "a question": (
        QuestionKey(Addressee("agent", "n1"), "0a1b"),
        "/calico/weft/v1/questions/agent/n1/0a1b",
    ),
    "a sign of life": (ReflectorKey("beats", "n1"), "/calico/weft/v1/reflector-beats/n1"),
}


@pytest.mark.parametrize(("key", "text"), PATHS.values(), ids=PATHS.keys())
def test_a_key_has_calicos_path(key: Key, text: str) -> None:
    assert path(key) == text
    assert parse(text) == key


@pytest.mark.parametrize(
    "text",
    [
        "/calico/resources/v3/projectcalico.org/ippools",
        "/calico/resources/v3/projectcalico.org/ippools/",
        "/calico/resources/v3/projectcalico.org/ippools/a/b",
        "/calico/resources/v3/projectcalico.org/networkpolicies/a",
        "/calico/resources/v3/projectcalico.org/networkpolicies//a",
        "/calico/resources/v3/projectcalico.org/kubecontrollersconfigurations/a",
        "/calico/resources/v3/other.org/ippools/a",
        "/calico/ipam/v2/assignment/ipv6/block/10.65.0.0-26",
        "/calico/ipam/v2/assignment/ipv4/block/10.65.0.1-26",
        "/calico/ipam/v2/assignment/ipv4/block/10.65.0.0/26",
        "/calico/ipam/v2/host//ipv4/block/10.65.0.0-26",
        "/calico/ipam/v2/other/n/ipv4/block/10.65.0.0-26",
        "/calico/ipam/v2/handle/",
        "/calico/ipam/v2/handle/a/b",
        "/calico/felix/v2/no-region/host/n/status",
        "/calico/weft/v1/questions/felix/n1/0a1b",
        "/calico/weft/v1/questions/agent/n1/",
        "/calico/weft/v1/answers/agent/n1/0a1b/1/ending",
        "/weft/anything",
        "",
    ],
    ids=str,
)
def test_a_path_that_is_none_of_ours_is_none(text: str) -> None:
    assert parse(text) is None


segments = st.text(st.characters(exclude_characters="/", codec="utf-8"), min_size=1, max_size=20)
blocks = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(20, 32)).map(
        lambda found: ipaddress.ip_network((found[0], found[1]), strict=False)
    ),
    st.tuples(st.integers(0, 2**128 - 1), st.integers(116, 128)).map(
        lambda found: ipaddress.IPv6Network((found[0], found[1]), strict=False)
    ),
)
owners = st.builds(Owner, st.sampled_from(["host", "virtual"]), segments)


@st.composite
def resource_keys(draw: st.DrawFn) -> ResourceKey:
    kind = draw(st.sampled_from(list(kinds.KINDS.values())))
    return ResourceKey(kind.name, draw(segments), draw(segments) if kind.namespaced else "")


any_key = st.one_of(
    resource_keys(),
    st.builds(BlockKey, blocks),
    st.builds(AffinityKey, owners, blocks),
    st.builds(HandleKey, segments),
    st.just(IPAMConfigKey()),
    st.sampled_from([ReflectorKey("settings"), ReflectorKey("state")]),
    st.builds(QuestionKey, st.builds(Addressee, st.sampled_from(["agent", "reflector"]), segments), segments),
    st.builds(ReflectorKey, st.sampled_from(["serving", "attached", "beats"]), segments),
)


@given(any_key)
def test_reading_a_path_is_the_inverse_of_writing_it(key: Key) -> None:
    assert parse(path(key)) == key
    assert hash(parse(path(key))) == hash(key)


@given(any_key)
def test_every_key_lies_under_the_prefix_that_lists_its_kind(key: Key) -> None:
    match key:
        case ResourceKey(kind, _, namespace):
            assert path(key).startswith(prefix(kind))
            assert path(key).startswith(prefix(kind, namespace))
        case BlockKey(cidr):
            assert path(key).startswith(block_prefix(cidr.version))
        case AffinityKey(owner, cidr):
            assert path(key).startswith(affinity_prefix(owner, cidr.version))
            assert path(key).startswith(affinity_prefix(owner))
            assert path(key).startswith(affinities_prefix(owner.kind))
        case QuestionKey(addressee):
            assert path(key).startswith(questions_prefix(addressee))
            assert not path(key).startswith(REFLECTORS)
        case ReflectorKey("beats"):
            assert path(key).startswith(WEFT)
            assert not path(key).startswith(REFLECTORS)
        case ReflectorKey():
            assert path(key).startswith(REFLECTORS)
        case _:
            assert path(key).startswith("/calico/ipam/v2/")


def test_one_nodes_prefix_does_not_hold_another_nodes_keys() -> None:
    assert not path(AffinityKey(Owner("host", "node-10"), V4)).startswith(affinity_prefix(Owner("host", "node-1")))


@pytest.mark.parametrize(
    "build",
    [
        lambda: ResourceKey("Nothing", "a"),
        lambda: ResourceKey("IPPool", "a", "namespace"),
        lambda: ResourceKey("NetworkPolicy", "a"),
        lambda: ResourceKey("IPPool", "a/b"),
        lambda: HandleKey("a/b"),
        lambda: HandleKey(""),
        lambda: Owner("host", ""),
        lambda: parse_owner("node-1"),
    ],
)
def test_a_key_that_would_be_ambiguous_cannot_be_built(build: object) -> None:
    assert callable(build)
    with pytest.raises(FieldError):
        build()


def test_an_owner_prints_as_a_blocks_affinity() -> None:
    assert str(Owner("host", "node-1")) == "host:node-1"
    assert parse_owner("virtual:load-balancer") == Owner("virtual", "load-balancer")


def test_an_ipam_configuration_is_stored_as_the_ipam_configuration() -> None:
    assert of(IPAMConfiguration(metadata=Metadata(name="default"))) == IPAMConfigKey()
    assert of(Node(metadata=Metadata(name="n"))) == ResourceKey("Node", "n")


@pytest.mark.parametrize("word", ["IPPool", "ippools", "pool", "IPP"])
def test_people_may_call_a_kind_by_several_words(word: str) -> None:
    found = kinds.find(word)
    assert found is not None
    assert found.name == "IPPool"


def test_no_word_means_two_kinds() -> None:
    words = [alias for kind in kinds.KINDS.values() for alias in set(kind.aliases)]
    assert len(words) == len(set(words))
    assert kinds.find("cat") is None
