"""Which pools may serve, and the node's own order of their blocks."""

from ipaddress import IPv6Address, ip_network
from itertools import islice

import pytest

from tests.unit.ipam.surroundings import FixedContext, pool
from weft.ipam.pools import block_of, blocks_in_order, pool_of, usable_pools
from weft.model.errors import NoFreeAddressError

BLUE = pool("10.1.0.0/16", "blue", node_selector="colour == 'blue'")
PLAIN = pool("10.2.0.0/16", "plain")
OFF = pool("10.3.0.0/16", "off", disabled=True)
TUNNEL = pool("10.4.0.0/16", "tunnel", allowed_uses=("Tunnel",))
MANUAL = pool("10.5.0.0/16", "manual", assignment_mode="Manual")
TEAM = pool("10.6.0.0/16", "team", namespace_selector="team == 'a'")
SIX = pool("fd00::/48", "six")
ALL = [TEAM, MANUAL, TUNNEL, OFF, PLAIN, BLUE, SIX]


@pytest.mark.parametrize(
    ("labels", "version", "use", "requested", "namespace", "expected"),
    [
        pytest.param({}, 4, "Workload", [], None, [PLAIN], id="selectors-and-uses"),
        pytest.param({"colour": "blue"}, 4, "Workload", [], None, [BLUE, PLAIN], id="node-selector-matches"),
        pytest.param({}, 4, "Workload", [], {"team": "a"}, [PLAIN, TEAM], id="namespace-selector-matches"),
        pytest.param({}, 4, "Tunnel", [], None, [PLAIN, TUNNEL], id="tunnel"),
        pytest.param({}, 6, "Workload", [], None, [SIX], id="ipv6"),
        pytest.param({}, 4, "Workload", ["10.1.0.0/16"], None, [BLUE], id="asked-for-overrides-selectors"),
        pytest.param({}, 4, "Workload", ["10.5.0.0/16"], None, [MANUAL], id="manual-pool-only-when-asked-for"),
    ],
)
def test_the_pools_that_may_serve(labels, version, use, requested, namespace, expected) -> None:  # type: ignore[no-untyped-def]
    context = FixedContext(pools=ALL, labels=labels).value
    assert list(usable_pools(context, version, use, list(map(ip_network, requested)), namespace)) == expected


@pytest.mark.parametrize(
    ("pools", "requested", "why"),
    [
        pytest.param([OFF], [], "no enabled pool selects node n1", id="all-disabled"),
        pytest.param([OFF], ["10.3.0.0/16"], "does not exist or is disabled", id="asked-for-disabled"),
        pytest.param([PLAIN], ["10.9.0.0/16"], "does not exist or is disabled", id="asked-for-unknown"),
        pytest.param([TUNNEL], [], "no pool allows the use Workload", id="wrong-use"),
    ],
)
def test_why_no_pool_may_serve(pools, requested, why) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NoFreeAddressError, match=why):
        usable_pools(FixedContext(pools=pools).value, 4, "Workload", list(map(ip_network, requested)))


@pytest.mark.parametrize("cidr", ["10.0.0.0/24", "10.0.0.0/26", "fd00::/118"])
def test_the_order_names_every_block_of_a_pool_once(cidr: str) -> None:
    one = pool(cidr)
    blocks = list(blocks_in_order(one, "n1"))
    assert sorted(blocks, key=str) == sorted(one.spec.cidr.subnets(new_prefix=one.spec.block_size), key=str)


def test_nodes_begin_in_different_places_and_always_in_the_same() -> None:
    first = {node: next(blocks_in_order(PLAIN, node)) for node in (f"n{i}" for i in range(50))}
    assert len(set(first.values())) > 45
    assert first["n1"] == next(blocks_in_order(PLAIN, "n1"))


def test_a_huge_pool_is_never_listed() -> None:
    assert all(block.prefixlen == 122 for block in islice(blocks_in_order(SIX, "n1"), 100))


def test_an_address_has_one_block() -> None:
    assert pool_of(ALL, IPv6Address("fd00::1:2")) == SIX
    assert block_of(SIX, IPv6Address("fd00::1:7f")) == ip_network("fd00::1:40/122")
