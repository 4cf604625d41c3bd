"""What a node could announce, what it announces by itself, and with which communities."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bird_agent.exports import Advertising, Exports, Networks, Source, Tagging, advertising
from weft.model.address import IPNetwork
from weft.model.base import Metadata
from weft.model.bgp import BGPConfiguration, BGPConfigurationSpec, Community, PrefixAdvertisement, ServiceBlock
from weft.model.node import Node
from weft.model.pool import IPPool, IPPoolSpec


def pool(cidr: str, **spec: Any) -> IPPool:
    return IPPool(metadata=Metadata(name="p"), spec=IPPoolSpec(cidr=ip_network(cidr), **spec))


def networks(*texts: str) -> frozenset[IPNetwork]:
    return frozenset(map(ip_network, texts))


def workloads(*texts: str) -> dict[IPNetwork, str]:
    return dict.fromkeys(networks(*texts), "cali0")


def said(*pools: IPPool, labels: dict[str, str] | None = None, **spec: Any) -> Advertising:
    node = Node(metadata=Metadata(name="n1", labels=labels or {}))
    default = BGPConfiguration(metadata=Metadata(name="default"), spec=BGPConfigurationSpec(**spec))
    return advertising(node, {"default": default}, pools)


@pytest.mark.parametrize(
    ("blocks", "addresses", "pools", "announced"),
    [
        pytest.param(["10.65.0.0/26"], ["10.65.0.1/32"], [pool("10.65.0.0/16")], ["10.65.0.0/26"], id="own block"),
        pytest.param(
            ["10.65.0.0/26"],
            ["10.65.9.1/32"],
            [pool("10.65.0.0/16")],
            ["10.65.0.0/26", "10.65.9.1/32"],
            id="borrowed address",
        ),
        pytest.param([], ["192.0.2.1/32"], [pool("10.65.0.0/16")], [], id="address outside all pools"),
        pytest.param(
            ["10.65.0.0/26", "10.66.0.0/26"],
            ["10.66.9.1/32"],
            [pool("10.65.0.0/16"), pool("10.66.0.0/16", disable_bgp_export=True)],
            ["10.65.0.0/26"],
            id="disableBGPExport",
        ),
        pytest.param(["10.65.0.0/26"], [], [], ["10.65.0.0/26"], id="block whose pool is gone"),
        pytest.param(
            ["fd65::/122"], ["fd65::1:0/128"], [pool("fd65::/64")], ["fd65::/122", "fd65::1:0/128"], id="IPv6"
        ),
    ],
)
def test_own_blocks_and_borrowed_addresses_are_announced_and_nothing_else(
    blocks: list[str], addresses: list[str], pools: list[IPPool], announced: list[str]
) -> None:
    first, second = Exports(), Exports()
    first.set_basis(networks(*blocks), said(*pools))
    assert first.announced() == networks(*blocks) & networks(*announced)
    first.change_workloads(workloads(*addresses), ())
    second.change_workloads(workloads(*addresses), ())
    second.set_basis(networks(*blocks), said(*pools))
    assert first.announced() == second.announced() == networks(*announced)
    assert first.candidates == second.candidates
    assert first.change_workloads({}, networks(*addresses)) == networks(*addresses)
    assert first.announced() == networks(*blocks) & networks(*announced)


@pytest.mark.parametrize(
    ("spec", "labels", "announced"),
    [
        pytest.param({"service_cluster_ips": ["10.96.0.0/12"]}, {}, ["10.96.0.0/12"], id="cluster addresses"),
        pytest.param({"service_cluster_ips": ["10.96.0.1/32"]}, {}, ["10.96.0.1/32"], id="one cluster address"),
        pytest.param(
            {"service_external_ips": ["192.0.2.0/24", "192.0.2.1/32", "fd96::/112"]},
            {},
            ["192.0.2.0/24", "fd96::/112"],
            id="single external addresses belong to their services",
        ),
        pytest.param({"service_load_balancer_ips": ["198.51.100.0/24"]}, {}, ["198.51.100.0/24"], id="load balancers"),
        pytest.param(
            {"service_load_balancer_ips": ["198.51.100.0/24"], "service_load_balancer_aggregation": "Disabled"},
            {},
            [],
            id="load balancers one by one",
        ),
        pytest.param(
            {"service_cluster_ips": ["10.96.0.0/12"]},
            {"node.kubernetes.io/exclude-from-external-load-balancers": "true"},
            [],
            id="a node that has no part in services",
        ),
    ],
)
def test_service_ranges_are_announced_by_every_node_that_has_a_part_in_services(
    spec: dict[str, Any], labels: dict[str, str], announced: list[str]
) -> None:
    for name, texts in spec.items():
        if isinstance(texts, list):
            spec = spec | {name: tuple(ServiceBlock(cidr=ip_network(text)) for text in texts)}
    exports = Exports()
    known = said(labels=labels, **spec)
    exports.set_basis(frozenset(), known)
    assert exports.announced() == networks(*announced)
    assert known.service_ranges >= exports.announced()
    exports.set_basis(frozenset(), said())
    assert exports.candidates == {}


def test_routes_of_the_kernel_are_candidates_that_nobody_announces_by_himself() -> None:
    exports = Exports()
    exports.set_basis(networks("10.65.0.0/26"), said(pool("10.65.0.0/16"), ignored_interfaces=("mgmt?",)))
    exports.change_workloads(workloads("10.65.0.1/32"), ())
    others = [
        (ip_network("10.1.0.0/24"), Source.CONNECTED, "up0", 0),
        (ip_network("10.2.0.0/24"), Source.CONNECTED, "mgmt0", 0),
        (ip_network("10.3.0.0/24"), Source.CONNECTED, "kube-ipvs0", 0),
        (ip_network("192.0.2.0/24"), Source.KERNEL, "up0", 50),
    ]
    assert exports.set_others(others) == networks("10.1.0.0/24", "192.0.2.0/24")
    assert exports.announced() == networks("10.65.0.0/26")
    found = {str(each.prefix): (each.source, each.interface, each.metric) for each in exports.candidates.values()}
    assert found == {
        "10.65.0.0/26": (Source.BLOCK, "", None),
        "10.65.0.1/32": (Source.WORKLOAD, "cali0", None),
        "10.1.0.0/24": (Source.CONNECTED, "up0", None),
        "192.0.2.0/24": (Source.KERNEL, "up0", 50),
    }
    assert exports.set_others(others) == set()
    assert exports.set_others([]) == networks("10.1.0.0/24", "192.0.2.0/24")


COMMUNITIES = (Community(name="std", value="100:6532"), Community(name="large", value="100:555:107"))


def advertisement(cidr: str, *communities: str) -> PrefixAdvertisement:
    return PrefixAdvertisement(cidr=ip_network(cidr), communities=communities)


def test_prefixes_are_tagged_with_communities_by_name_and_by_value() -> None:
    known = said(
        communities=COMMUNITIES,
        prefix_advertisements=(
            advertisement("192.168.0.0/16", "std", "5663:12", "large"),
            advertisement("192.168.9.0/24", "1:1", "std"),
            advertisement("fd00:96::/112", "large", "large", "nonsense"),
        ),
    )
    assert known.tagging.of(ip_network("192.168.1.0/26")) == ((100, 6532), (5663, 12), (100, 555, 107))
    assert known.tagging.of(ip_network("192.168.9.0/26")) == ((100, 6532), (5663, 12), (100, 555, 107), (1, 1))
    assert known.tagging.of(ip_network("192.168.0.0/15")) == ()
    assert known.tagging.of(ip_network("fd00:96::/122")) == ((100, 555, 107),)
    (problem,) = known.problems
    assert "'nonsense' is neither" in problem.text


def test_advertisements_of_the_node_replace_the_default_ones_and_their_names() -> None:
    node = Node(metadata=Metadata(name="n1"))

    def configured(name: str, value: str) -> BGPConfiguration:
        spec = BGPConfigurationSpec(
            communities=(Community(name="c", value=value),), prefix_advertisements=(advertisement("10.0.0.0/8", "c"),)
        )
        return BGPConfiguration(metadata=Metadata(name=name), spec=spec)

    both = {each.name: each for each in (configured("default", "1:1"), configured("node.n1", "2:2"))}
    assert advertising(node, both, ()).tagging == Tagging(((ip_network("10.0.0.0/8"), ((2, 2),)),))
    others = {each.name: each for each in (configured("default", "1:1"), configured("node.n2", "2:2"))}
    assert advertising(node, others, ()).tagging == Tagging(((ip_network("10.0.0.0/8"), ((1, 1),)),))


def test_a_change_of_communities_concerns_everything_that_is_announced() -> None:
    exports = Exports()
    exports.set_basis(networks("10.65.0.0/26"), said())
    tagged = said(prefix_advertisements=(advertisement("10.0.0.0/8", "1:1"),))
    assert exports.set_basis(networks("10.65.0.0/26"), tagged) == networks("10.65.0.0/26")
    assert exports.set_basis(networks("10.65.0.0/26"), tagged) == set()


prefixes = st.builds(
    lambda number, length: ip_network((number << 20, length), strict=False), st.integers(0, 4095), st.integers(0, 32)
)


@given(st.lists(prefixes, max_size=12), prefixes)
def test_covers_is_subnet_of_any(known: list[Any], asked: Any) -> None:
    assert Networks(known).covers(asked) == any(asked.subnet_of(each) for each in known)


few = st.sampled_from([ip_network(text) for text in ("10.65.0.0/26", "10.65.0.1/32", "10.65.9.9/32", "10.66.0.0/24")])
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("blocks"), st.frozensets(few)),
        st.tuples(st.just("add"), st.frozensets(few)),
        st.tuples(st.just("remove"), st.frozensets(few)),
        st.tuples(st.just("others"), st.frozensets(few)),
        st.tuples(st.just("pools"), st.sampled_from([(), (pool("10.65.0.0/16"),), (pool("10.0.0.0/8"),)])),
    ),
    max_size=12,
)


@given(CHANGES)
def test_candidates_depend_on_the_state_alone_and_every_change_is_reported(history: list[tuple[str, Any]]) -> None:
    exports, blocks, pools = Exports(), frozenset[IPNetwork](), ()
    present: set[Any] = set()
    others: frozenset[Any] = frozenset()
    for what, value in history:
        before = dict(exports.candidates)
        if what == "add":
            changed = exports.change_workloads(dict.fromkeys(value, "cali0"), ())
            present |= value
        elif what == "remove":
            changed = exports.change_workloads({}, value)
            present -= value
        elif what == "others":
            changed, others = exports.set_others((each, Source.KERNEL, "up0", 0) for each in value), value
        else:
            blocks, pools = (value, pools) if what == "blocks" else (blocks, value)
            changed = exports.set_basis(blocks, said(*pools))
        after = exports.candidates
        assert changed >= {each for each in before.keys() | after.keys() if before.get(each) != after.get(each)}
    fresh = Exports()
    fresh.set_others((each, Source.KERNEL, "up0", 0) for each in others)
    fresh.change_workloads(dict.fromkeys(present, "cali0"), ())
    fresh.set_basis(blocks, said(*pools))
    assert fresh.candidates == exports.candidates
