"""Which packet is whose, what goes over the wire between agent and BFD process, and what a report means for BGP."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bird_agent.bfd.auth import Authentication, AuthType, Key
from bird_agent.bfd.engine import Engine, Transmission
from bird_agent.bfd.packet import Diagnostic, Packet, State, decode, encode
from bird_agent.bfd.session import BfdSettings
from bird_agent.bfd.wire import (
    Legacy,
    Program,
    Report,
    Trouble,
    Wanted,
    Watch,
    decode_legacy,
    decode_report,
    decode_wanted,
    encode_legacy,
    encode_report,
    encode_wanted,
)
from bird_agent.pathwatch import PathWatch
from bird_agent.session_config import SessionConfig, SessionKind

HERE, TOR, OTHER = ip_address("10.1.0.1"), ip_address("10.1.0.254"), ip_address("10.1.0.253")
NEAR = Wanted(TOR, HERE, False, BfdSettings(100_000, 3))
FAR = Wanted(OTHER, HERE, True, BfdSettings(300_000, 3))


def engine(*wanted: Wanted) -> Engine:
    made = Engine(lambda: 0.5, 7)
    assert made.set_wanted(wanted, 0.0) == []
    return made


def heard(state: State = State.DOWN, yours: int = 0) -> bytes:
    packet = Packet(
        state=state,
        my_discriminator=99,
        your_discriminator=yours,
        desired_min_tx_us=100_000,
        required_min_rx_us=100_000,
        detect_multiplier=3,
    )
    return encode(packet)


def states(made: Engine) -> dict[str, State]:
    return {str(report.peer): report.state for report in made.reports()}


def test_a_session_comes_up_and_says_so() -> None:
    made = engine(NEAR, FAR)
    sent, _ = made.on_time(0.0)
    assert {(one.session, decode(one.payload).my_discriminator) for one in sent} == {(NEAR, 7), (FAR, 8)}
    made.on_datagram(heard(), TOR, 255, False, 0.1)
    _, reports = made.on_datagram(heard(State.UP, 7), TOR, 255, False, 0.2)
    assert reports == [Report(TOR, State.UP, Diagnostic.NONE)]
    assert states(made) == {"10.1.0.254": State.UP, "10.1.0.253": State.DOWN}
    _, reports = made.on_time(0.55)
    assert reports == [Report(TOR, State.DOWN, Diagnostic.DETECTION_TIME_EXPIRED)]


def test_of_many_sessions_each_is_served_when_it_is_due_and_one_that_is_gone_never_again() -> None:
    peers = [ip_address(f"10.2.0.{number}") for number in range(1, 51)]
    wanted = [Wanted(peer, HERE, False, BfdSettings(100_000, 3)) for peer in peers]
    made = engine(*wanted)
    made.on_time(0.0)
    now, last = 0.0, dict.fromkeys(wanted, 0.0)
    for one in range(400):
        if one == 200:
            made.set_wanted(wanted[:20], now)
        elif one % 5 == 0:
            made.on_datagram(heard(), peers[one % 50], 255, False, now + 0.001)
        now = made.due
        sent, changed = made.on_time(now)
        assert sent or changed or one % 5 == 0  # the end of a silence may have nothing to say
        assert made.due > now
        for each in sent:
            assert now - last[each.session] <= 1.0
            last[each.session] = now
        assert one <= 200 or {each.session for each in sent} <= set(wanted[:20])
    assert all(now - last[each] <= 1.0 for each in wanted[:20])


@given(st.lists(st.sampled_from(["here", "there"]), max_size=4), st.integers(0, 60))
def test_whoever_goes_on_for_a_process_in_the_middle_of_anything_is_not_noticed(ends: list[str], steps: int) -> None:
    """Two processes on a good line, in steps of 20 ms; now and then one of them is replaced by its successor."""
    there = Wanted(HERE, TOR, False, BfdSettings(100_000, 3))
    both = {"here": (engine(NEAR), HERE), "there": (Engine(lambda: 0.5, 99), TOR)}
    both["there"][0].set_wanted([there], 0.0)
    now, changes = 0.0, []

    def run(count: int) -> None:
        nonlocal now
        for _ in range(count):
            now += 0.02
            for mine, other in (("here", "there"), ("there", "here")):
                sent, said = both[mine][0].on_time(now)
                changes.extend(said)
                for one in sent:
                    answers, said = both[other][0].on_datagram(one.payload, both[mine][1], 255, False, now)
                    changes.extend(said)
                    for answer in answers:
                        changes.extend(both[mine][0].on_datagram(answer.payload, both[other][1], 255, False, now)[1])

    run(steps)
    for end in ends:
        old, address = both[end]
        words = encode_legacy(Legacy(tuple(old.standings()), 3, {(ip_address("10.1.0.1"), 3784): 4}, (5,)))
        new = Engine(lambda: 0.5, 1)
        new.resume(decode_legacy(words).sessions, now)
        assert new.standings() == old.standings()
        both[end] = (new, address)
        run(7)
    run(200)
    assert {state for made, _ in both.values() for state in states(made).values()} == {State.UP}
    assert [report.state for report in changes if report.state is State.DOWN] == []


def test_what_a_standby_has_to_know_again_is_said_once() -> None:
    made = engine(NEAR)
    assert made.take_changed()
    made.on_time(0.0)
    assert not made.take_changed()
    made.on_datagram(heard(), TOR, 255, False, 0.1)
    assert made.take_changed()
    made.on_datagram(heard(State.UP, 7), TOR, 255, False, 0.2)
    assert made.take_changed()
    made.on_datagram(heard(State.UP, 7), TOR, 255, False, 0.3)
    assert not made.take_changed()


def test_silence_is_timed_anew_by_whoever_goes_on() -> None:
    made = engine(NEAR)
    made.on_datagram(heard(), TOR, 255, False, 0.1)
    made.on_datagram(heard(State.UP, 7), TOR, 255, False, 0.2)
    made.resume(made.standings(), 10.0)
    sent, reports = made.on_time(10.0)
    assert ([decode(one.payload).my_discriminator for one in sent], reports) == ([7], [])
    _, reports = made.on_time(10.31)
    assert [report.state for report in reports] == [State.DOWN]


@pytest.mark.parametrize(
    ("data", "source", "ttl", "multihop"),
    [
        pytest.param(heard(), TOR, 254, False, id="from beyond one hop"),
        pytest.param(heard(), TOR, None, False, id="TTL not known"),
        pytest.param(heard(), OTHER, 255, False, id="from a stranger"),
        pytest.param(heard(), TOR, 255, True, id="to the other port"),
        pytest.param(heard(State.UP, 8), TOR, 255, False, id="for another session"),
        pytest.param(b"nonsense", TOR, 255, False, id="no packet"),
    ],
)
def test_what_is_not_for_a_session_of_ours_is_forgotten(
    data: bytes, source: object, ttl: int | None, multihop: bool
) -> None:
    made = engine(NEAR)
    assert made.on_datagram(data, source, ttl, multihop, 0.1) == ([], [])  # type: ignore[arg-type]
    assert made.discarded == 1
    assert states(made) == {"10.1.0.254": State.DOWN}


def test_a_path_of_several_hops_does_not_ask_for_the_ttl() -> None:
    made = engine(FAR)
    made.on_datagram(heard(), OTHER, 60, True, 0.1)
    assert states(made) == {"10.1.0.253": State.INIT}


def test_a_session_that_goes_says_that_it_is_closed_by_will_and_others_go_on() -> None:
    made = engine(NEAR, FAR)
    made.on_datagram(heard(), TOR, 255, False, 0.1)
    (last_word,) = made.set_wanted([FAR], 0.2)
    assert last_word.session == NEAR
    packet = decode(last_word.payload)
    assert (packet.state, packet.diagnostic, packet.your_discriminator) == (State.ADMIN_DOWN, 7, 99)
    assert made.wanted == [FAR]
    assert isinstance(made.close()[0], Transmission)
    assert (made.wanted, made.due) == ([], float("inf"))


def test_other_settings_change_a_session_and_another_address_of_ours_begins_it_anew() -> None:
    made = engine(NEAR)
    made.on_datagram(heard(), TOR, 255, False, 0.1)
    slower = replace(NEAR, settings=BfdSettings(400_000, 3))
    assert made.set_wanted([slower], 0.2) == []
    assert states(made) == {"10.1.0.254": State.INIT}
    elsewhere = replace(slower, local=ip_address("10.1.0.2"))
    assert len(made.set_wanted([elsewhere], 0.3)) == 1
    assert states(made) == {"10.1.0.254": State.DOWN}


def number(key: Key) -> int:
    return key.number


ADDRESSES = st.sampled_from([HERE, TOR, ip_address("fd00::1")])
KEYS = st.lists(
    st.builds(Key, st.integers(0, 255), st.binary(min_size=1, max_size=16)), min_size=1, unique_by=number
).map(tuple)
WANTED = st.builds(
    Wanted,
    ADDRESSES,
    ADDRESSES,
    st.booleans(),
    st.builds(BfdSettings, st.integers(10_000, 10**7), st.integers(1, 255)),
    st.none() | st.builds(Authentication, st.sampled_from(AuthType), KEYS),
)
REPORTS = st.builds(Report, ADDRESSES, st.sampled_from(State), st.sampled_from(Diagnostic), st.booleans(), st.text())


@given(st.lists(WANTED), REPORTS | st.builds(Trouble, st.text()))
def test_what_is_said_is_what_is_heard(wanted: list[Wanted], report: Report | Trouble) -> None:
    assert decode_wanted(encode_wanted(wanted)) == wanted
    line = encode_report(report)
    assert line.count(b"\n") == 1
    assert decode_report(line) == report


UP, DEAD = Report(TOR, State.UP, Diagnostic.NONE), Report(TOR, State.DOWN, Diagnostic.DETECTION_TIME_EXPIRED)


@pytest.mark.parametrize(
    ("before", "report", "why"),
    [
        pytest.param([UP], DEAD, "BFD: the path is dead", id="silence"),
        pytest.param(
            [UP],
            Report(TOR, State.DOWN, Diagnostic.NEIGHBOR_SIGNALED_DOWN),
            "BFD: the peer no longer hears us",
            id="the other side is deaf",
        ),
        pytest.param([UP], Report(TOR, State.DOWN, Diagnostic.NEIGHBOR_SIGNALED_DOWN, True), None, id="by will"),
        pytest.param([], DEAD, None, id="never up"),
        pytest.param([UP, DEAD], DEAD, None, id="down already"),
        pytest.param([Report(OTHER, State.UP, Diagnostic.NONE)], DEAD, None, id="another path"),
    ],
)
def test_when_a_path_is_lost(before: list[Report], report: Report, why: str | None) -> None:
    watch = PathWatch()
    for one in before:
        watch.on_report(one)
    assert watch.on_report(report) == why


def test_the_end_of_the_bfd_process_is_no_lost_path() -> None:
    watch = PathWatch()
    watch.on_report(UP)
    watch.on_lost()
    assert watch.state(TOR) is None
    assert watch.on_report(DEAD) is None


def test_paths_to_neighbours_are_watched_over_one_hop_and_others_over_several() -> None:
    def session(peer: object, bfd: Watch | None) -> SessionConfig:
        return SessionConfig(
            peer=peer,  # type: ignore[arg-type]
            peer_as=1,
            local=HERE,
            local_as=2,
            kind=SessionKind.GLOBAL,
            resource="BGPPeer/x",
            bfd=bfd,
        )

    wish = Watch(BfdSettings(100_000, 3))
    far = ip_address("192.0.2.1")
    sessions = [
        session(TOR, wish),
        session(OTHER, replace(wish, multihop=True)),
        session(far, wish),
        session(HERE, None),
    ]
    wanted = PathWatch().wanted(sessions, lambda peer: peer != far)
    assert [(one.peer, one.multihop) for one in wanted] == [(TOR, False), (OTHER, True), (far, True)]


def test_the_process_says_which_version_it_is() -> None:
    assert decode_report(encode_report(Program("1.2.3"))) == Program("1.2.3")
