"""BFD: packets, the state machine, timers, and two sessions that talk to each other over a bad line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bird_agent.bfd.packet import Diagnostic, Packet, PacketError, State, decode, encode
from bird_agent.bfd.session import TRANSITIONS, BfdSession, BfdSettings, StateChange

FAST = BfdSettings(100_000, 3)
U32 = st.integers(0, (1 << 32) - 1)
PACKETS = st.builds(
    Packet,
    state=st.sampled_from(State),
    my_discriminator=st.integers(1, (1 << 32) - 1),
    your_discriminator=st.integers(1, (1 << 32) - 1),
    desired_min_tx_us=U32,
    required_min_rx_us=U32,
    detect_multiplier=st.integers(1, 255),
    diagnostic=st.integers(0, 31),
    poll=st.booleans(),
    final=st.booleans(),
    demand=st.booleans(),
    control_plane_independent=st.booleans(),
    required_min_echo_rx_us=U32,
)


def session(settings: BfdSettings = FAST, number: int = 1, now: float = 0.0) -> BfdSession:
    return BfdSession(settings, number, lambda: 0.5, now)


def heard(state: State, yours: int = 1, **values: object) -> Packet:
    base = Packet(
        state=state,
        my_discriminator=2,
        your_discriminator=yours,
        desired_min_tx_us=100_000,
        required_min_rx_us=100_000,
        detect_multiplier=3,
    )
    return replace(base, **values)  # type: ignore[arg-type]


def up(settings: BfdSettings = FAST, **values: object) -> BfdSession:
    """A session that has just come up, at 1.0 s."""
    made = session(settings)
    made.on_packet(heard(State.DOWN), 1.0)
    made.on_packet(heard(State.UP, **values), 1.0)
    assert made.state is State.UP
    return made


@given(PACKETS)
def test_what_is_encoded_is_decoded(packet: Packet) -> None:
    assert decode(encode(packet)) == packet
    assert decode(encode(packet) + b"padding") == packet


@given(st.binary(max_size=40))
def test_no_bytes_do_anything_but_make_a_packet_or_be_refused(data: bytes) -> None:
    try:
        packet = decode(data)
    except PacketError:
        return
    assert decode(encode(packet)) == replace(packet, section=None)


@given(st.binary(max_size=40))
def test_what_is_behind_an_authenticated_packet_is_a_section_or_is_refused(data: bytes) -> None:
    whole = bytearray(GOOD + data)
    whole[1] |= 4
    whole[3] = len(whole)
    try:
        section = decode(bytes(whole)).section
    except PacketError:
        assert len(data) < 2 or not 2 <= data[1] <= len(data)
        return
    assert section is not None
    assert (section.type, section.content) == (data[0], data[3 : data[1]])


GOOD = encode(heard(State.UP))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(GOOD[:-1], "too few", id="short"),
        pytest.param(bytes([0x40]) + GOOD[1:], "version 2", id="version"),
        pytest.param(GOOD[:3] + b"\x17" + GOOD[4:], "length", id="length below the minimum"),
        pytest.param(GOOD[:3] + b"\x19" + GOOD[4:], "length", id="length beyond the end"),
        pytest.param(GOOD[:1] + bytes([GOOD[1] | 4]) + GOOD[2:], "no room", id="authenticated by nothing"),
        pytest.param(GOOD[:1] + bytes([GOOD[1] | 1]) + GOOD[2:], "multipoint", id="multipoint"),
        pytest.param(GOOD[:2] + b"\0" + GOOD[3:], "multiplier", id="multiplier"),
        pytest.param(GOOD[:4] + bytes(4) + GOOD[8:], "discriminator", id="discriminator"),
        pytest.param(GOOD[:8] + bytes(4) + GOOD[12:], "claims to be UP", id="up with nobody"),
    ],
)
def test_what_is_discarded(data: bytes, why: str) -> None:
    with pytest.raises(PacketError, match=why):
        decode(data)


RFC_5880_6_2 = {
    State.DOWN: {State.DOWN: State.INIT, State.INIT: State.UP},
    State.INIT: {State.ADMIN_DOWN: State.DOWN, State.INIT: State.UP, State.UP: State.UP},
    State.UP: {State.ADMIN_DOWN: State.DOWN, State.DOWN: State.DOWN},
}


@pytest.mark.parametrize(
    ("ours", "theirs"), [pytest.param(a, b, id=f"{a.name} hears {b.name}") for a, b in product(State, State)]
)
def test_transitions(ours: State, theirs: State) -> None:
    made = session()
    made.state = ours
    expected = RFC_5880_6_2.get(ours, {}).get(theirs, ours)
    assert TRANSITIONS.get((ours, theirs), ours) == expected
    _, changes = made.on_packet(heard(theirs), 1.0)
    assert made.state is expected
    assert [change.state for change in changes] == ([] if expected is ours else [expected])


def test_it_is_slow_until_it_is_up_and_then_asks_with_a_poll() -> None:
    made = session()
    (first,), _ = made.on_time(0.0)
    assert (first.state, first.your_discriminator, first.desired_min_tx_us) == (State.DOWN, 0, 1_000_000)
    assert made.on_time(0.5) == ([], [])
    assert 0.75 <= made.due <= 1.0
    made.on_packet(heard(State.DOWN, yours=0), 0.6)
    assert made.state is State.INIT
    _, changes = made.on_packet(heard(State.INIT), 0.7)
    assert changes == [StateChange(State.UP, Diagnostic.NONE)]
    (now,), _ = made.on_time(0.7)
    assert (now.state, now.your_discriminator, now.desired_min_tx_us, now.poll) == (State.UP, 2, 100_000, True)
    made.on_packet(heard(State.UP, final=True), 0.8)
    (after,), _ = made.on_time(0.9)
    assert not after.poll


def test_a_poll_is_answered_at_once() -> None:
    (answer,), _ = up().on_packet(heard(State.UP, poll=True), 1.1)
    assert (answer.final, answer.poll) == (True, False)


def test_silence_of_the_detection_time_is_the_end() -> None:
    made = up(desired_min_tx_us=200_000, detect_multiplier=4, required_min_rx_us=10_000_000)
    assert made.detection_time_us == 800_000
    assert made.on_time(1.79)[1] == []
    _, changes = made.on_time(1.81)
    assert changes == [StateChange(State.DOWN, Diagnostic.DETECTION_TIME_EXPIRED)]
    (packet,), _ = made.on_time(1.81) if made.due <= 1.81 else ([made._packet()], [])
    assert (packet.your_discriminator, packet.diagnostic) == (0, 1)


def test_a_neighbour_that_closes_the_session_says_nothing_about_the_path() -> None:
    _, changes = up().on_packet(heard(State.ADMIN_DOWN), 1.1)
    assert changes == [StateChange(State.DOWN, Diagnostic.NEIGHBOR_SIGNALED_DOWN, by_will=True)]
    _, changes = up().on_packet(heard(State.DOWN), 1.1)
    assert changes == [StateChange(State.DOWN, Diagnostic.NEIGHBOR_SIGNALED_DOWN)]


def test_a_packet_for_another_session_is_none_of_ours() -> None:
    made = up()
    assert made.on_packet(heard(State.DOWN, yours=9), 1.1) == ([], [])
    assert made.state is State.UP


@pytest.mark.parametrize(
    ("values", "interval_us"),
    [
        pytest.param({}, 100_000, id="both alike"),
        pytest.param({"required_min_rx_us": 300_000}, 300_000, id="the other side is slower"),
        pytest.param({"required_min_rx_us": 0}, 0, id="the other side wants none"),
    ],
)
def test_how_often_packets_are_sent(values: dict[str, object], interval_us: int) -> None:
    made = up(**values)
    assert made.tx_interval_us == interval_us
    made.on_packet(heard(State.UP, final=True, **values), 1.0)
    sent = [
        moment
        for moment in range(1000, 4000)
        if made.on_packet(heard(State.UP, **values), moment / 1000)[0] or made.on_time(moment / 1000)[0]
    ]
    if interval_us == 0:
        assert sent == []
    else:
        gaps = [after - before for before, after in pairwise(sent[1:])]
        assert all(interval_us * 0.74 <= gap * 1000 <= interval_us * 1.01 for gap in gaps)


def test_demand_mode_stops_periodic_packets_and_nothing_else() -> None:
    made = up()
    made.on_packet(heard(State.UP, final=True, demand=True), 1.0)
    assert made.on_time(1.2)[0] == []
    (answer,), _ = made.on_packet(heard(State.UP, poll=True, demand=True), 1.25)
    assert answer.final
    assert made.due == pytest.approx(1.55)


def test_slower_settings_hold_when_the_other_side_has_agreed() -> None:
    made = up()
    made.on_packet(heard(State.UP, final=True), 1.0)
    made.set(BfdSettings(400_000, 3), 1.0)
    (asking,), _ = made.on_time(1.0)
    assert (asking.poll, asking.desired_min_tx_us, asking.required_min_rx_us) == (True, 400_000, 400_000)
    assert (made.tx_interval_us, made.detection_time_us) == (100_000, 1_200_000)
    made.on_packet(heard(State.UP, final=True), 1.1)
    assert made.tx_interval_us == 400_000


def test_faster_settings_detect_faster_when_the_other_side_has_agreed() -> None:
    made = up(BfdSettings(400_000, 3))
    made.on_packet(heard(State.UP, final=True), 1.0)
    made.set(FAST, 1.0)
    assert (made.tx_interval_us, made.detection_time_us) == (100_000, 1_200_000)
    made.on_packet(heard(State.UP, final=True), 1.1)
    assert made.detection_time_us == 300_000


def test_the_last_word_is_that_it_is_closed_by_will() -> None:
    made = up()
    packet = made.close()
    assert (packet.state, packet.diagnostic) == (State.ADMIN_DOWN, Diagnostic.ADMINISTRATIVELY_DOWN)
    assert made.on_packet(heard(State.UP), 1.1) == ([], [])


@pytest.mark.parametrize("values", [(9_999, 3), (60_000_001, 3), (100_000, 0), (100_000, 256)])
def test_settings_that_make_no_sense_cannot_be(values: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="are needed"):
        BfdSettings(*values)


def never(end: int) -> bool:
    return False


def always(end: int) -> bool:
    return True


@dataclass
class Line:
    """Two sessions and what is between them; `lost` says which packets do not arrive."""

    ends: tuple[BfdSession, BfdSession]
    now: float = 0.0
    flying: list[tuple[float, int, bytes]] = field(default_factory=list)
    changes: list[tuple[float, int, StateChange]] = field(default_factory=list)

    def run(self, seconds: float, lost: Callable[[int], bool] = never) -> None:
        until = self.now + seconds
        while True:
            self.now = max(self.now, min(*(one.due for one in self.ends), *(item[0] for item in self.flying), until))
            if self.now >= until:
                return
            for end, one in enumerate(self.ends):
                arriving = [item for item in self.flying if item[1] == end and item[0] <= self.now]
                for item in arriving:
                    self.flying.remove(item)
                    self._did(end, one.on_packet(decode(item[2]), self.now), lost)
                self._did(end, one.on_time(self.now), lost)

    def _did(self, end: int, done: tuple[list[Packet], list[StateChange]], lost: Callable[[int], bool]) -> None:
        packets, changes = done
        self.changes += [(self.now, end, change) for change in changes]
        for packet in packets:
            if not lost(end):
                self.flying.append((self.now + 0.002, 1 - end, encode(packet)))


def line(first: BfdSettings = FAST, second: BfdSettings = FAST) -> Line:
    return Line((session(first, 11), session(second, 22)))


SETTINGS = st.builds(BfdSettings, st.sampled_from([50_000, 100_000, 300_000]), st.integers(2, 4))


@given(SETTINGS, SETTINGS)
def test_two_sessions_come_up_stay_up_and_notice_when_the_line_is_cut(first: BfdSettings, second: BfdSettings) -> None:
    between = line(first, second)
    between.run(3.2)
    assert [one.state for one in between.ends] == [State.UP, State.UP]
    assert between.ends[0].detection_time_us == second.detect_multiplier * max(first.interval_us, second.interval_us)
    before = len(between.changes)
    between.run(2)
    assert len(between.changes) == before
    cut = between.now
    between.run(1.5, lost=always)
    downs = between.changes[before:]
    assert {(end, change.diagnostic) for _, end, change in downs} == {
        (0, Diagnostic.DETECTION_TIME_EXPIRED),
        (1, Diagnostic.DETECTION_TIME_EXPIRED),
    }
    for at, end, _ in downs:
        other = (second, first)[end]
        assert at - cut <= other.detect_multiplier * max(first.interval_us, second.interval_us) / 1e6 + 0.01


@given(st.lists(st.booleans(), min_size=200, max_size=200))
def test_one_packet_lost_now_and_then_is_nothing_and_a_line_that_works_again_is_up_again(losses: list[bool]) -> None:
    between, previous = line(), [False, False]
    coming = iter(losses)

    def lose(end: int) -> bool:
        # Never two one after the other of one side's: fewer than the three that are the end.
        previous[end] = not previous[end] and next(coming, False)
        return previous[end]

    between.run(4.0)
    before = len(between.changes)
    between.run(1.5, lost=lose)
    assert len(between.changes) == before
    between.run(1.0, lost=always)
    between.run(4.0)
    assert [one.state for one in between.ends] == [State.UP, State.UP]
