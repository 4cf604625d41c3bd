"""The agent with real ExaBGP against every router we know: as a ToR over eBGP, and as a reflector above us."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from tests.conftest import EtcdServer
from tests.functional.bgp import site as sites
from tests.functional.bgp.fabric import wait_until
from tests.functional.bgp.pair import nothing_deleted
from tests.functional.bgp.routers import ROUTERS, Announced, Learnt, Neighbour, Setup
from tests.functional.bgp.site import (
    AS,
    BLOCK,
    FAR,
    NODE,
    OTHER_BLOCK,
    PASSWORD,
    ROUTER,
    SECOND,
    SECOND_BLOCK,
    SECRET,
    Site,
    neighbour,
)
from weft.model.bgp import BGPFilterRuleV4, CommunityMatch, PrefixAdvertisement

# A router's tests share a site, so one worker runs them all.
EACH = [pytest.param(name, marks=pytest.mark.xdist_group(f"router-{name}")) for name in ROUTERS]
pytestmark = [pytest.mark.root, pytest.mark.parametrize("shared", EACH, indirect=True, scope="module")]

PLAIN = Announced("203.0.113.0/24")
MARKED = Announced("198.51.100.0/24", ("65001:666",), ("65001:6:66",))
PLAIN6 = Announced("2001:db8:1::/48", ("65001:6",))


def counter(site: Site, name: str) -> int:
    """One of the kernel's TCP counters in the node's namespace."""
    text = site.node.netns.run(["nstat", "-asz", name])
    return int(text.split(name)[1].split()[0])


@pytest.fixture(scope="module")
def shared(
    request: pytest.FixtureRequest, etcd_server: EtcdServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    with sites.site(ROUTERS[request.param], etcd_server, tmp_path_factory.mktemp("site")) as made:
        made.store.configuration(node_to_node_mesh_enabled=False)
        yield made


@pytest.fixture
def site(shared: Site) -> Iterator[Site]:
    yield shared
    shared.settle()


def test_a_tor_learns_our_blocks_and_we_learn_what_its_communities_allow(site: Site) -> None:
    advertised = tuple(
        PrefixAdvertisement(cidr=ip_network(b), communities=("64512:7", "64512:8:9")) for b in BLOCK.values()
    )
    site.store.configuration(node_to_node_mesh_enabled=False, prefix_advertisements=advertised)
    refused = BGPFilterRuleV4(action="Reject", communities=CommunityMatch(values=("65001:666",)))
    site.store.filter("marked", import_v4=[refused])
    for version in (4, 6):
        site.peer(f"tor{version}", ROUTER[version], 65001, filters=("marked",))
    sessions = (neighbour(4), neighbour(6))
    router = site.start(Setup(asn=65001, neighbours=sessions, announced=(PLAIN, MARKED, PLAIN6)))
    wait_until("we have its routes", lambda: site.node.routes() == {PLAIN.prefix: {ROUTER[4]}})
    wait_until("of IPv6, too", lambda: set(site.node.routes("-6")) == {PLAIN6.prefix})
    assert site.node.routes("-6")[PLAIN6.prefix] <= site.router_addresses()
    for version in (4, 6):
        wait_until("it has our block", lambda version=version: router.learnt(NODE[version]) == {BLOCK[version]})
        said = Learnt(
            next_hop=NODE[version],
            as_path=(AS,),
            communities=frozenset({"64512:7"}),
            large_communities=frozenset({"64512:8:9"}),
        )
        assert router.path(NODE[version], BLOCK[version]) == said
    refusal = site.received(site.node, ROUTER[4])[MARKED.prefix]
    assert sorted(refusal["communities"]) == ["65001:666", "65001:6:66"]
    assert refusal["reason"] == "rejected by BGPFilter/marked importV4[0]"
    # Later changes, and everything once more.
    router.announce(Announced("192.0.2.0/24"))
    router.withdraw(PLAIN.prefix)
    wait_until("what it changes", lambda: site.node.routes() == {"192.0.2.0/24": {ROUTER[4]}})
    site.store.release_block("n1", BLOCK[4])
    wait_until("we withdraw", lambda: router.learnt(NODE[4]) == set())
    site.store.block("n1", BLOCK[4])
    wait_until("we announce again", lambda: router.learnt(NODE[4]) == {BLOCK[4]})
    site.store.configuration(node_to_node_mesh_enabled=False)


def test_a_passive_router_with_a_four_byte_as_number_beyond_a_hop(site: Site) -> None:
    site.peer("tor", FAR, 4200000001, local_as_number=4200000064)
    far = Neighbour(address=NODE[4], local=FAR, asn=4200000064, multihop=3, passive=True)
    router = site.start(Setup(asn=4200000001, neighbours=(far,), announced=(PLAIN,)))
    wait_until("we have its route", lambda: site.node.routes() == {PLAIN.prefix: {ROUTER[4]}})
    wait_until("it has our block", lambda: router.learnt(NODE[4]) == {BLOCK[4]})
    path = router.path(NODE[4], BLOCK[4])
    assert path is not None
    assert path.as_path[0] == 4200000064


def test_passwords_and_ttl_security_hold_in_both_families(site: Site) -> None:
    for version in (4, 6):
        site.peer(f"tor{version}", ROUTER[version], 65001, password=SECRET, ttl_security=1)
    mismatched = counter(site, "TcpExtTCPMD5Failure")
    wrong = (neighbour(4, password="another", gtsm=True), neighbour(6, password=PASSWORD))
    router = site.start(Setup(asn=65001, neighbours=wrong, announced=(PLAIN, PLAIN6)))
    wait_until("the kernel refuses the wrong password", lambda: counter(site, "TcpExtTCPMD5Failure") > mismatched)
    assert not router.established(NODE[4])
    assert not router.established(NODE[6])
    router.kill()
    right = (neighbour(4, password=PASSWORD, gtsm=True), neighbour(6, password=PASSWORD, gtsm=True))
    router = site.start(Setup(asn=65001, neighbours=right, announced=(PLAIN, PLAIN6)))
    wait_until("IPv4", lambda: router.learnt(NODE[4]) == {BLOCK[4]} and set(site.node.routes()) == {PLAIN.prefix})
    wait_until("IPv6", lambda: router.learnt(NODE[6]) == {BLOCK[6]} and set(site.node.routes("-6")) == {PLAIN6.prefix})


def test_a_reflector_above_us_gives_each_node_the_others_block_by_way_of_the_other(site: Site) -> None:
    both = [*NODE.items(), *SECOND.items()]
    clients = tuple(Neighbour(address=each, local=ROUTER[version], asn=AS, client=True) for version, each in both)
    for version in (4, 6):
        site.peer(f"reflector{version}", ROUTER[version], AS)
    router = site.start(Setup(asn=AS, neighbours=clients))
    site.second.start()
    for flag, version in (("-4", 4), ("-6", 6)):
        there, here = {SECOND_BLOCK[version]: {SECOND[version]}}, {BLOCK[version]: {NODE[version]}}
        wait_until("the second's block", lambda flag=flag, there=there: site.node.routes(flag) == there)
        wait_until("the first's block", lambda flag=flag, here=here: site.second.routes(flag) == here)
        reflected = site.received(site.node, ROUTER[version])[SECOND_BLOCK[version]]
        assert (reflected["originatorId"], reflected["clusterList"]) == (SECOND[4], [ROUTER[4]])
    site.store.release_block("n2", SECOND_BLOCK[4])
    wait_until("a withdrawal is reflected", lambda: site.node.routes() == {})
    site.store.block("n2", SECOND_BLOCK[4])
    router.shut_down(NODE[6])
    wait_until("a session that is shut down takes its routes along", lambda: site.node.routes("-6") == {})
    wait_until("the other one's is as it was", lambda: set(site.node.routes()) == {SECOND_BLOCK[4]})


def test_our_restart_costs_the_router_no_route(site: Site) -> None:
    site.peer("tor", ROUTER[4], 65001)
    router = site.start(Setup(asn=65001, neighbours=(neighbour(4),), announced=(PLAIN,)))
    wait_until("it has our block", lambda: router.learnt(NODE[4]) == {BLOCK[4]})
    wait_until("we have its route", lambda: set(site.node.routes()) == {PLAIN.prefix})
    speaker = site.node.speaker()
    assert speaker is not None
    with nothing_deleted(site.node.netns) as deleted:
        site.node.kill()
        os.kill(speaker, signal.SIGKILL)
        wait_until("it has noticed", lambda: not router.established(NODE[4]))
        assert router.learnt(NODE[4]) == {BLOCK[4]}
        site.store.block("n1", OTHER_BLOCK)
        site.store.release_block("n1", BLOCK[4])
        site.node.start()
        seen: list[set[str]] = []

        def caught_up() -> bool:
            seen.append(router.learnt(NODE[4]))
            return seen[-1] == {OTHER_BLOCK}

        wait_until("what changed meanwhile replaces what was kept", caught_up)
    assert all(seen), seen
    assert deleted == []
    site.own_blocks()
    wait_until("it has our block again", lambda: router.learnt(NODE[4]) == {BLOCK[4]})


def test_a_routers_restart_keeps_its_routes_and_its_shutdown_does_not(site: Site) -> None:
    site.peer("tor", ROUTER[4], 65001)
    setup = Setup(asn=65001, neighbours=(neighbour(4),), announced=(PLAIN, MARKED))
    router = site.start(setup)
    wait_until("we have its routes", lambda: set(site.node.routes()) == {PLAIN.prefix, MARKED.prefix})
    with nothing_deleted(site.node.netns) as deleted:
        router.kill()
        if router.restarts_gracefully:
            wait_until("the loss is noticed", lambda: "connection lost" in site.node.log().rsplit(" up\n", 1)[-1])
            assert set(site.node.routes()) == {PLAIN.prefix, MARKED.prefix}
        else:
            wait_until("its routes are gone", lambda: site.node.routes() == {})
        router.setup = Setup(asn=65001, neighbours=setup.neighbours, announced=(PLAIN,))
        router.start(restarted=True)
        wait_until("we have what it announces now", lambda: set(site.node.routes()) == {PLAIN.prefix})
    if router.restarts_gracefully:
        assert [line.split()[1] for line in deleted] == [MARKED.prefix]
    wait_until("it has our block", lambda: router.learnt(NODE[4]) == {BLOCK[4]})
    router.shut_down(NODE[4])
    wait_until("a shutdown withdraws", lambda: site.node.routes() == {})
    # What it keeps of ours is its own affair: GoBGP may take the end that it brought about itself for our restart.
    wait_until("on its side, too", lambda: not router.established(NODE[4]))
    router.enable(NODE[4])
    wait_until("all is back", lambda: set(site.node.routes()) == {PLAIN.prefix})


def test_a_router_that_announces_too_much_is_told_so(site: Site) -> None:
    limit = 3 if site.kind.sends_back else 2  # what we refuse counts as well
    site.peer("tor", ROUTER[4], 65001, {"weft/max-prefixes": str(limit)})
    router = site.start(Setup(asn=65001, neighbours=(neighbour(4),), announced=(PLAIN, MARKED)))
    wait_until("we have its routes", lambda: set(site.node.routes()) == {PLAIN.prefix, MARKED.prefix})
    wait_until("it has our block", lambda: router.learnt(NODE[4]) == {BLOCK[4]})
    router.announce(Announced("192.0.2.0/24"))
    wait_until("its routes are gone", lambda: site.node.routes() == {})
    wait_until("it has dropped ours: it was a NOTIFICATION", lambda: router.learnt(NODE[4]) == set())
    assert f"announced more than {limit} prefixes" in site.node.log()
