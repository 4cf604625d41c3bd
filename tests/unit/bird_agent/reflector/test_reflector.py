"""The reflector as a whole, without sockets: who is told what and when, and what a change costs."""

from __future__ import annotations

import tracemalloc
from ipaddress import IPv4Address, IPv4Network, ip_address

import pytest
from msgspec.structs import replace

from bird_agent.exabgp.events import AsSegment, PathAttributes
from bird_agent.reflector.framing import Message
from bird_agent.reflector.groups import Pieces
from bird_agent.reflector.outputs import EndOfRib
from bird_agent.reflector.prefixes import IPV4
from bird_agent.session_config import Password
from tests.unit.bird_agent.reflector.reflecting import (
    A,
    B,
    C,
    P,
    Q,
    R,
    X,
    a_filter,
    nlri,
    prefixes,
    three,
    updates,
    words,
)
from tests.unit.bird_agent.reflector.world import CLUSTER, LOCAL_AS, OURS, World, attributes, plan, raw, session
from weft.model.bgp import (
    AddCommunity,
    BGPFilterRuleV4,
    FilterOperation,
    PrependAsPath,
)

# What is told.


def test_the_end_of_rib_comes_behind_the_whole_table() -> None:
    world = World(three())
    a, b, _ = world.start()
    world.announce(a, [P, Q])
    world.lose(b)
    again = world.connect(B)
    assert prefixes(again) == {P, Q}
    assert isinstance(again.heard[-1], EndOfRib)
    assert [isinstance(each, EndOfRib) for each in again.heard].count(True) == 1


def test_prefixes_with_equal_attributes_are_one_message() -> None:
    world = World(three())
    a, b, _ = world.start()
    world.announce(a, [f"10.65.{number}.0/26" for number in range(200)])
    assert [len(each.announced) for each in updates(b)] == [200]


def test_the_source_is_told_nothing_of_its_own_and_is_rid_of_what_it_replaces() -> None:
    world = World(three())
    a, b, c = world.start()
    world.announce(a, [P], attributes(world.sets, local_preference=100))
    assert not prefixes(a)
    assert prefixes(b) == prefixes(c) == {P}
    world.announce(b, [P], attributes(world.sets, local_preference=200))
    assert prefixes(a) == prefixes(c) == {P}
    assert not prefixes(b), "its own path is the best one now: ours goes"
    world.withdraw(b, [P])
    assert prefixes(b) == prefixes(c) == {P}
    assert not prefixes(a)


def test_an_attribute_that_nobody_knows_is_passed_on_as_it_came() -> None:
    from bird_agent.reflector.attributes import OPTIONAL, PARTIAL, TRANSITIVE, RawAttribute

    world = World(three())
    a, b, _ = world.start()
    known = attributes(world.sets, local_preference=100)
    unknown = RawAttribute(OPTIONAL | TRANSITIVE, 200, b"what nobody knows")
    world.announce(a, [P], world.sets.of(known.path, [*raw(known.path), unknown]))
    got, _ = b.table[IPV4, nlri(P)]
    assert RawAttribute(OPTIONAL | TRANSITIVE | PARTIAL, 200, b"what nobody knows") in got.raw()


@pytest.mark.parametrize(
    ("mode", "asn", "next_hop", "told"),
    [
        ("Auto", LOCAL_AS, "192.0.2.9", "192.0.2.9"),
        ("Self", LOCAL_AS, "192.0.2.9", str(OURS)),
        ("Keep", LOCAL_AS, "192.0.2.9", "192.0.2.9"),
        ("Auto", 65001, "192.0.2.9", str(OURS)),
        ("Auto", 65001, "10.0.0.77", "10.0.0.77"),
        ("Self", 65001, "10.0.0.77", str(OURS)),
        ("Keep", 65001, "192.0.2.9", "192.0.2.9"),
    ],
)
def test_next_hops_go_by_the_mode_of_the_session(mode: str, asn: int, next_hop: str, told: str) -> None:
    sessions = session(A), session(X, client=False, asn=asn, next_hop_mode=mode)
    world = World(plan(*sessions, networks=(IPv4Network("10.0.0.0/24"),)))
    a, x = world.start()
    world.announce(a, [P], next_hop=next_hop)
    assert str(x.table[IPV4, nlri(P)][1]) == told


def test_what_leads_to_the_reflector_itself_is_not_passed_on() -> None:
    world = World(three())
    a, b, _ = world.start()
    world.announce(a, [P], next_hop=str(OURS))
    assert not prefixes(b)


def test_export_filters_decide_for_their_session_alone() -> None:
    reject = BGPFilterRuleV4(action="Reject", cidr=IPv4Network(R), match_operator="In")
    world = World(
        plan(session(A), session(B, filters=("no-r",)), session(C)), {"no-r": a_filter("no-r", export_v4=reject)}
    )
    a, b, c = world.start()
    world.announce(a, [P, R])
    assert prefixes(b) == {P}
    assert prefixes(c) == {P, R}


def test_import_filters_change_what_everybody_is_told() -> None:
    tag = BGPFilterRuleV4(action="Accept", operations=(FilterOperation(add_community=AddCommunity(value="64512:7")),))
    world = World(plan(session(A, filters=("tag",)), session(B)), {"tag": a_filter("tag", import_v4=tag)})
    a, b = world.start()
    world.announce(a, [P])
    assert b.table[IPV4, nlri(P)][0].path.communities == ((64512, 7),)


def test_a_filter_may_prepend_to_a_segment_that_is_full() -> None:
    operation = FilterOperation(prepend_as_path=PrependAsPath(prefix=(65001, 65002)))
    longer = BGPFilterRuleV4(action="Accept", operations=(operation,))
    world = World(plan(session(A, filters=("longer",)), session(B)), {"longer": a_filter("longer", import_v4=longer)})
    a, b = world.start()
    world.announce(a, [P], attributes(world.sets, as_path=[65100] * 255))
    told = b.table[IPV4, nlri(P)][0].path.as_path
    assert [len(each.numbers) for each in told] == [255, 2]
    assert told[0].numbers[:3] == (65001, 65002, 65100)


def test_a_path_that_is_about_to_go_is_the_last_choice() -> None:
    """GRACEFUL_SHUTDOWN, RFC 8326."""
    world = World(three())
    a, b, c = world.start()
    world.announce(a, [P], attributes(world.sets, local_preference=200, communities=((65535, 0),)))
    assert c.table[IPV4, nlri(P)][0].path.local_preference == 0
    world.announce(b, [P], attributes(world.sets, local_preference=50))
    assert c.table[IPV4, nlri(P)][0].path.local_preference == 50


# Changes of the plan.


def test_a_new_peer_disturbs_nobody() -> None:
    world = World(plan(session(A), session(B)))
    a, b = world.start()
    world.announce(a, [P])
    heard = len(b.heard)
    world.configure(three())
    c = world.connect(C)
    assert prefixes(c) == {P}
    assert [a.closed, b.closed] == [False, False]
    assert len(b.heard) == heard


def test_other_settings_reset_only_their_own_session() -> None:
    world = World(three())
    a, b, c = world.start()
    world.announce(a, [P])
    world.configure(plan(session(A), session(B, password=Password("new")), session(C)))
    assert b.closed
    assert [a.closed, c.closed] == [False, False]
    assert prefixes(world.connect(B)) == {P}


def test_a_peer_whose_settings_change_keeps_its_routes_until_it_is_back() -> None:
    world = World(three())
    a, _, c = world.start()
    world.announce(a, [P, Q])
    world.configure(plan(session(A, password=Password("new")), session(B), session(C)))
    assert a.closed
    assert prefixes(c) == {P, Q}
    back = world.connect(A)
    assert prefixes(c) == {P, Q}, "that it does not say that it kept forwarding means nothing: it did not restart"
    world.announce(back, [P])
    world.end_of_rib(back)
    assert prefixes(c) == {P}


def test_another_filter_or_role_changes_what_is_told_and_resets_nothing() -> None:
    reject = BGPFilterRuleV4(action="Reject", cidr=IPv4Network(P), match_operator="Equal")
    world = World(plan(session(A, client=False), session(B), session(C)), {"no-p": a_filter("no-p", export_v4=reject)})
    a, b, c = world.start()
    world.announce(a, [P, Q])
    world.configure(plan(session(A, client=False), session(B, filters=("no-p",)), session(C, client=False)))
    assert prefixes(b) == {Q}
    assert not prefixes(c), "neither of the two is a client now"
    world.configure(plan(session(A, client=False), session(B), session(C)))
    assert prefixes(b) == prefixes(c) == {P, Q}
    assert not any(script.closed for script in (a, b, c))


def test_what_is_withdrawn_while_a_peer_changes_groups_is_withdrawn_from_it_too() -> None:
    """It had the prefix from the group it was in, and in the new one there is no news of it."""
    reject = BGPFilterRuleV4(action="Reject", cidr=IPv4Network(R), match_operator="In")
    filters = {"no-r": a_filter("no-r", export_v4=reject)}
    world = World(three(), filters)
    a, b, _ = world.start()
    world.announce(a, [P, Q])
    b.reads = False
    world.announce(a, [R])
    world.configure(plan(session(A), session(B, filters=("no-r",)), session(C)))
    world.withdraw(a, [Q])
    world.configure(plan(session(A), session(B, client=False), session(C)))
    world.withdraw(a, [P])
    world.read(b)
    assert prefixes(b) == {R}


def test_another_cluster_id_is_told_without_a_reset() -> None:
    world = World(three())
    a, b, _ = world.start()
    world.announce(a, [P])
    world.configure(three(cluster_id=IPv4Address("9.9.9.9")))
    assert b.table[IPV4, nlri(P)][0].path.cluster_list == (IPv4Address("9.9.9.9"),)
    assert not b.closed


def test_a_peer_that_is_no_longer_wanted_takes_its_routes_along() -> None:
    world = World(three())
    a, b, _ = world.start()
    world.announce(a, [P])
    world.configure(plan(session(B), session(C)))
    assert a.closed
    assert (Message.NOTIFICATION, bytes((6, 3))) in [(kind, body[:2]) for kind, body in words(a)]
    assert not prefixes(b)


@pytest.mark.parametrize("enhanced", [True, False], ids=["enhanced", "plain"])
def test_a_refresh_tells_everything_again(enhanced: bool) -> None:
    world = World(three())
    a, b, _ = world.start(enhanced=enhanced)
    world.announce(a, [P, Q])
    b.heard.clear()
    world.refresh(b)
    assert {nlri for each in updates(b) for nlri in each.announced} == {nlri(P), nlri(Q)}
    marks = [body for kind, body in words(b) if kind is Message.REFRESH]
    assert marks == ([bytes((0, 1, 1, 1)), bytes((0, 1, 2, 1))] if enhanced else [])
    assert not any(each.withdrawn for each in updates(b))


def test_a_peers_own_refresh_sweeps_what_it_does_not_say_again() -> None:
    from bird_agent.reflector.exabgp_codec import write_refresh

    world = World(three())
    a, b, _ = world.start()
    world.announce(a, [P, Q])
    world.send(a, write_refresh(IPV4, 1))
    world.announce(a, [P])
    assert prefixes(b) == {P, Q}
    world.send(a, write_refresh(IPV4, 2))
    assert prefixes(b) == {P}


def test_clients_of_another_cluster_are_told_with_both_clusters_and_ours_not_again() -> None:
    """Two reflectors in a row: the path has passed another cluster, and does not come back through ours."""
    world = World(three())
    a, b, _ = world.start()
    other = attributes(
        world.sets,
        local_preference=100,
        originator_id=IPv4Address("10.0.9.9"),
        cluster_list=(IPv4Address("2.2.2.2"),),
    )
    world.announce(a, [P], other)
    got = b.table[IPV4, nlri(P)][0].path
    assert got.cluster_list == (CLUSTER, IPv4Address("2.2.2.2"))
    assert got.originator_id == IPv4Address("10.0.9.9")
    world.announce(a, [P], attributes(world.sets, local_preference=100, cluster_list=(CLUSTER,)))
    assert not prefixes(b)


def test_pieces_of_one_flush_are_shared_among_peers() -> None:
    world = World(three())
    a, b, c = world.start()
    b.reads = c.reads = False
    path = attributes(world.sets, local_preference=100)
    for message in a.encoder.encode(IPV4, path, a.address, [nlri(P)]):
        world.reflector.on_data(a.address, a.conn, message, world.now)
    world.reflector.choose(world.now)
    pieces: list[Pieces] = [world.reflector.advance(script.address) for script in (b, c)]
    assert pieces[0][0] is pieces[1][0]


def test_a_plan_without_sessions_ends_them_all() -> None:
    world = World(three())
    scripts = world.start()
    world.configure(replace(world.plan, sessions={}))
    assert all(script.closed for script in scripts)


def test_attribute_sets_that_no_route_has_any_more_take_no_memory() -> None:
    """However long and many they are: one peer with one prefix could otherwise fill the machine."""
    world = World(three())
    a, b, _ = world.start()
    tracemalloc.start()
    try:
        for number in range(600):
            path = AsSegment("as-sequence", (70000 + number, *range(100_000, 100_250)))
            known = PathAttributes(origin=0, as_path=(path,) * 3, local_preference=100)
            world.announce(a, [P], world.sets.of(known, raw(known)))
            a.heard.clear()
            b.heard.clear()
            world.peers[ip_address(C)].heard.clear()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert prefixes(b) == {P}
    assert used < 15_000_000
