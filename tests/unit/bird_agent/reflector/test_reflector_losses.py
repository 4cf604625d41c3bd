"""What a reflector does about peers that are lost, restarted, slow, wrong, or announce too much."""

from __future__ import annotations

from ipaddress import ip_address

from bird_agent.reflector.framing import Message, framed
from bird_agent.reflector.outputs import EndOfRib
from bird_agent.reflector.prefixes import IPV4
from bird_agent.reflector.reflector import COME_BACK_S, Reflector
from bird_agent.reflector.standing import STALLED_S
from tests.unit.bird_agent.reflector.reflecting import A, B, C, P, Q, R, nlri, prefixes, three, updates, words
from tests.unit.bird_agent.reflector.world import World, attributes, plan, session


def test_a_lost_peer_that_may_restart_keeps_its_routes_until_it_is_back_and_has_told_all() -> None:
    world = World(three())
    a, b, _ = world.start()
    world.announce(a, [P, Q])
    world.lose(a)
    assert prefixes(b) == {P, Q}
    back = world.connect(A, restarting=True)
    world.announce(back, [P])
    assert prefixes(b) == {P, Q}
    world.end_of_rib(back)
    assert prefixes(b) == {P}


def test_a_peer_that_is_back_and_did_not_keep_forwarding_loses_its_routes() -> None:
    world = World(three())
    a, b, _ = world.start()
    world.announce(a, [P])
    world.lose(a)
    world.connect(A, restarting=False)
    assert not prefixes(b)


def test_its_routes_go_when_its_time_is_over() -> None:
    world = World(three())
    a, b, _ = world.start()
    world.announce(a, [P])
    world.lose(a)
    world.wait(110)
    assert prefixes(b) == {P}
    world.wait(20)
    assert not prefixes(b)


def test_a_peer_that_cannot_restart_loses_its_routes_with_the_connection() -> None:
    world = World(three())
    a, b, _ = world.start(graceful=False)
    world.announce(a, [P])
    world.lose(a)
    assert not prefixes(b)


def test_a_path_that_bfd_finds_dead_takes_the_session_and_every_route_at_once() -> None:
    world = World(three())
    a, b, _ = world.start()
    world.announce(a, [P])
    assert prefixes(b) == {P}
    world.reflector.on_path_lost(a.address, "BFD: the path is dead", world.now)
    world.settle()
    assert not prefixes(b)
    assert a.closed
    assert a.heard[-1] == (Message.NOTIFICATION, bytes((6, 10)))
    assert any("BFD: the path is dead" in note for note in world.notes)
    world.reflector.on_path_lost(a.address, "BFD: the path is dead", world.now)  # it is down already
    world.settle()
    assert a.heard.count((Message.NOTIFICATION, bytes((6, 10)))) == 1


def test_nobody_is_told_anything_before_all_peers_have_told_everything() -> None:
    world = World(three())
    a, b, c = world.connect_all()
    world.announce(a, [P])
    world.end_of_rib(a)
    world.end_of_rib(b)
    assert not b.heard
    assert world.reflector.deferring
    world.end_of_rib(c)
    assert prefixes(b) == {P}
    assert isinstance(b.heard[-1], EndOfRib)


def test_a_peer_that_does_not_come_back_is_waited_for_a_moment_only() -> None:
    world = World(three())
    a, b = world.connect(A), world.connect(B)
    world.announce(a, [P])
    world.end_of_rib(a)
    world.end_of_rib(b)
    assert not b.heard
    world.wait(COME_BACK_S + 1)
    assert prefixes(b) == {P}


def test_peers_are_given_that_moment_from_when_they_are_known() -> None:
    world = World(plan())
    world.reflector = Reflector(world.now, lambda: 0.5)
    world.wait(2 * COME_BACK_S)
    world.configure(three())
    a, b = world.connect(A), world.connect(B)
    world.announce(a, [P])
    world.end_of_rib(a)
    world.end_of_rib(b)
    assert not b.heard, "the third may be on its way"
    world.wait(COME_BACK_S + 1)
    assert prefixes(b) == {P}


def test_two_that_were_restarted_do_not_wait_for_each_other() -> None:
    world = World(three())
    a, b = world.connect(A), world.connect(B)
    world.connect(C, restarting=True)
    world.announce(a, [P])
    world.end_of_rib(a)
    world.end_of_rib(b)
    assert prefixes(b) == {P}


# Back-pressure and refresh.


def test_a_peer_that_reads_nothing_delays_nobody_and_catches_up_with_what_is_true_then() -> None:
    world = World(three())
    a, b, c = world.start()
    b.reads = False
    for round_number in range(50):
        world.announce(a, [P, Q], attributes(world.sets, local_preference=100, med=round_number))
    world.withdraw(a, [Q])
    assert prefixes(c) == {P}
    assert sum(map(len, b.unread)) < 200, "one message waits in the socket, the rest is a position"
    before = len(updates(b))
    world.read(b)
    assert prefixes(b) == {P}
    assert b.table[IPV4, nlri(P)][0].path.med == 49
    assert len(updates(b)) - before <= 4


def test_a_peer_that_takes_nothing_for_too_long_is_given_up() -> None:
    world = World(three())
    a, b, c = world.start()
    b.reads = False
    world.announce(a, [P])
    world.wait(STALLED_S - 30)
    assert not b.closed
    world.wait(60)
    assert b.closed
    assert not c.closed
    world.wait(60)
    assert len([note for note in world.notes if "taken nothing" in note]) == 1
    assert not world.connect(B).closed


def test_a_peer_that_was_lost_while_it_took_nothing_is_not_given_up_later() -> None:
    world = World(three())
    _, b, _ = world.start()
    b.reads = False
    world.announce(world.peers[ip_address(A)], [P])
    world.lose(b)
    world.wait(STALLED_S + 30)
    assert not [note for note in world.notes if "taken nothing" in note]


def test_a_peer_that_is_wrong_in_ever_new_ways_does_not_fill_the_log() -> None:
    world = World(three())
    a, _, _ = world.start()
    world.announce(a, [P])
    for number in range(1000):
        body = b"\0\0\0\7" + bytes((0x40, 1, 1, 3 + number % 250, 0x40, 2, 0)) + nlri(P)
        world.send(a, framed(Message.UPDATE, body))
    assert len([note for note in world.notes if "ORIGIN" in note]) == 1
    world.wait(20)
    world.send(a, framed(Message.UPDATE, body))
    assert "999 more" in world.notes[-1]


# Limits.


def test_too_many_prefixes_end_the_session_and_keep_it_down_for_a_while() -> None:
    world = World(plan(session(A, max_prefixes=2), session(B)))
    a, b = world.start()
    world.announce(a, [P, Q])
    assert prefixes(b) == {P, Q}
    world.announce(a, [R])
    assert a.closed
    assert (Message.NOTIFICATION, bytes((6, 1))) in [(kind, body[:2]) for kind, body in words(a)]
    assert not prefixes(b)
    assert any("held down" in problem.text for problem in world.reflector.problems(world.now))
    assert world.reflector.peers[a.address].session.state.value == "Idle"
    world.wait(310)
    assert world.reflector.peers[a.address].session.state.value != "Idle"


def test_a_higher_limit_ends_the_time_that_a_session_is_held_down() -> None:
    world = World(plan(session(A, max_prefixes=1), session(B)))
    a, _ = world.start()
    world.announce(a, [P, Q])
    assert a.closed
    world.configure(plan(session(A, max_prefixes=2), session(B)))
    assert world.reflector.peers[a.address].session.state.value != "Idle"


def test_a_line_in_the_log_says_why_a_session_ended() -> None:
    world = World(three())
    a, _, _ = world.start()
    world.announce(a, [P])
    world.lose(a)
    assert any("10.0.0.11" in note and "lost" in note and "1 routes are kept" in note for note in world.notes)
