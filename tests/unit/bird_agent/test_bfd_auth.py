"""BFD authentication: what is asked for, what is sent, what is refused and why, and who goes on with the numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bird_agent.bfd.auth import Authentication, AuthType, Key
from bird_agent.bfd.engine import REFUSAL_S, Engine
from bird_agent.bfd.packet import Diagnostic, Packet, State, decode, encode
from bird_agent.bfd.session import BfdSettings
from bird_agent.bfd.wire import Legacy, Report, Wanted, Watch, decode_legacy, encode_legacy
from bird_agent.pathwatch import PathWatch
from bird_agent.session_config import SessionConfig, SessionKind

HERE, TOR = ip_address("10.1.0.1"), ip_address("10.1.0.254")


FAST = BfdSettings(100_000, 3)


ONE, TWO = Key(1, b"first secret"), Key(2, b"second secret")


DIGESTS = [each for each in AuthType if each is not AuthType.SIMPLE_PASSWORD]


METICULOUS = [each for each in AuthType if each.meticulous]


TYPES = pytest.mark.parametrize("kind", [pytest.param(each, id=str(each)) for each in AuthType])


class Fabric:
    """Two engines on a good line, in steps of 20 ms."""

    def __init__(self, here: Authentication | None, there: Authentication | None) -> None:
        self.ends = {"here": Engine(lambda: 0.5, 7), "there": Engine(lambda: 0.25, 99)}
        self.now = 0.0
        self.reports: list[tuple[str, Report]] = []
        self.sent: list[bytes] = []
        self.wish("here", here)
        self.wish("there", there)

    def wish(self, end: str, authentication: Authentication | None) -> None:
        local, peer = (HERE, TOR) if end == "here" else (TOR, HERE)
        self.ends[end].set_wanted([Wanted(peer, local, False, FAST, authentication)], self.now)

    def run(self, seconds: float, lost: Callable[[], bool] = lambda: False) -> None:
        for _ in range(round(seconds / 0.02)):
            self.now += 0.02
            for end in self.ends:
                sent, reports = self.ends[end].on_time(self.now)
                self.reports += [(end, report) for report in reports]
                for one in sent:
                    self._deliver(end, one.payload, lost)

    def _deliver(self, end: str, data: bytes, lost: Callable[[], bool]) -> None:
        if end == "here":
            self.sent.append(data)
        if lost():
            return
        other, source = ("there", HERE) if end == "here" else ("here", TOR)
        answers, reports = self.ends[other].on_datagram(data, source, 255, False, self.now)
        self.reports += [(other, report) for report in reports]
        for answer in answers:
            self._deliver(other, answer.payload, lost)

    def states(self) -> list[State]:
        return [engine.reports()[0].state for engine in self.ends.values()]

    def refused(self, end: str) -> str:
        return self.ends[end].reports()[0].refused


def using(kind: AuthType, *keys: Key) -> Authentication:
    return Authentication(kind, keys or (ONE,))


def number_in(data: bytes) -> int:
    section = decode(data).section
    assert section is not None
    return int.from_bytes(section.content[1:5], "big")


@TYPES
def test_two_that_agree_come_up_and_stay_up(kind: AuthType) -> None:
    fabric = Fabric(using(kind), using(kind))
    fabric.run(5)
    assert fabric.states() == [State.UP, State.UP]
    assert [report.state for _, report in fabric.reports if report.state is State.DOWN] == []
    assert [fabric.refused(end) for end in fabric.ends] == ["", ""]


@TYPES
def test_what_is_sent_is_what_the_rfc_says(kind: AuthType) -> None:
    fabric = Fabric(using(kind), using(kind))
    fabric.run(0.1)
    data = fabric.sent[0]
    assert (data[1] & 4, data[3], data[24], data[25], data[26]) == (4, len(data), kind, len(data) - 24, 1)
    if kind is AuthType.SIMPLE_PASSWORD:
        assert data[27:] == b"first secret"
        return
    digest = hashlib.md5 if "md5" in str(kind) else hashlib.sha1
    size = digest().digest_size
    assert len(data) == 32 + size
    assert data[32:] == digest(data[:32] + b"first secret".ljust(size, b"\0")).digest()


@pytest.mark.parametrize("kind", [pytest.param(each, id=str(each)) for each in DIGESTS])
def test_numbers_go_up_with_each_packet_or_with_each_that_says_something_else(kind: AuthType) -> None:
    fabric = Fabric(using(kind), using(kind))
    fabric.run(5)
    said = [(number_in(one), one[:24]) for one in fabric.sent]
    for (before, content), (after, other) in pairwise(said):
        assert after - before == int(kind.meticulous or content != other)


WRONG = using(AuthType.KEYED_SHA1, Key(1, b"another secret"))


@pytest.mark.parametrize(
    ("there", "why"),
    [
        pytest.param(WRONG, "does not match key 1", id="another secret"),
        pytest.param(using(AuthType.KEYED_SHA1, TWO), "with key 2, and keyed-sha1 with key 1 is", id="another key"),
        pytest.param(using(AuthType.KEYED_MD5), "by keyed-md5, and keyed-sha1 with key 1 is", id="another type"),
        pytest.param(
            using(AuthType.METICULOUS_KEYED_SHA1), "by meticulous-keyed-sha1, and keyed-sha1", id="more meticulous"
        ),
        pytest.param(None, "not authenticated, and keyed-sha1 with key 1 is needed", id="no authentication"),
    ],
)
def test_two_that_do_not_agree_stay_down_and_say_why(there: Authentication | None, why: str) -> None:
    fabric = Fabric(using(AuthType.KEYED_SHA1), there)
    fabric.run(8)
    assert fabric.states() == [State.DOWN, State.DOWN]
    assert why in fabric.refused("here")
    assert fabric.refused("there") != ""
    assert [report.refused for end, report in fabric.reports if end == "here"] == [fabric.refused("here")]
    fabric.wish("there", using(AuthType.KEYED_SHA1))
    fabric.run(8)
    assert fabric.states() == [State.UP, State.UP]
    assert fabric.refused("here") == ""


def test_one_without_a_key_refuses_what_is_authenticated() -> None:
    fabric = Fabric(None, using(AuthType.SIMPLE_PASSWORD))
    fabric.run(3)
    assert "authenticated (simple-password), and no key is configured" in fabric.refused("here")


def test_a_wrong_password_is_refused() -> None:
    fabric = Fabric(using(AuthType.SIMPLE_PASSWORD), using(AuthType.SIMPLE_PASSWORD, Key(1, b"first")))
    fabric.run(3)
    assert fabric.states() == [State.DOWN, State.DOWN]
    assert "does not match key 1" in fabric.refused("here")


@given(st.sampled_from(DIGESTS), st.integers(0, 10**6), st.integers(1, 255))
def test_no_changed_bit_goes_unnoticed(kind: AuthType, where: int, change: int) -> None:
    fabric = Fabric(using(kind), using(kind))
    fabric.run(0.02)
    data = bytearray(fabric.sent[0])
    data[where % len(data)] ^= change
    receiver = Engine(lambda: 0.5, 1)
    receiver.set_wanted([Wanted(HERE, TOR, False, FAST, using(kind))], 0.0)
    assert receiver.on_datagram(bytes(data), HERE, 255, False, 0.1)[0] == []
    assert receiver.reports()[0].state is State.DOWN


@given(st.binary(max_size=60), st.sampled_from(AuthType))
def test_nobody_without_the_key_is_listened_to(tail: bytes, kind: AuthType) -> None:
    packet = Packet(
        state=State.DOWN,
        my_discriminator=9,
        your_discriminator=0,
        desired_min_tx_us=1,
        required_min_rx_us=1,
        detect_multiplier=1,
    )
    data = bytearray(encode(packet) + bytes([kind]) + tail)
    data[1] |= 4
    data[3] = len(data)
    engine = Engine(lambda: 0.5, 1)
    engine.set_wanted([Wanted(HERE, TOR, False, FAST, using(kind, Key(1, b"x" * 16)))], 0.0)
    engine.on_datagram(bytes(data), HERE, 255, False, 0.1)
    assert engine.reports()[0].state is State.DOWN
    assert engine.discarded == 1


class Peer:
    """Packets of a peer with any sequence number, signed as they should be."""

    def __init__(self, kind: AuthType) -> None:
        self.kind = kind
        self.engine = Engine(lambda: 0.5, 7)
        self.engine.set_wanted([Wanted(TOR, HERE, False, FAST, using(kind))], 0.0)

    def hear(self, number: int, now: float) -> bool:
        """Whether it was accepted."""
        packet = Packet(
            state=State.DOWN,
            my_discriminator=9,
            your_discriminator=0,
            desired_min_tx_us=100_000,
            required_min_rx_us=100_000,
            detect_multiplier=3,
        )
        data = bytearray(encode(packet))
        size = self.kind.longest_key
        data[1] |= 4
        data[3] = 32 + size
        data += bytes([self.kind, 8 + size, 1, 0]) + (number % 2**32).to_bytes(4, "big")
        digest = hashlib.sha1 if size == 20 else hashlib.md5
        data += digest(bytes(data) + ONE.secret.ljust(size, b"\0")).digest()
        before = self.engine.discarded
        self.engine.on_datagram(bytes(data), TOR, 255, False, now)
        return self.engine.discarded == before


@pytest.mark.parametrize("kind", [pytest.param(each, id=str(each)) for each in DIGESTS])
@given(first=st.integers(0, 2**32 - 1), ahead=st.integers(-12, 12))
def test_a_number_counts_within_three_times_the_multiplier_of_the_last(kind: AuthType, first: int, ahead: int) -> None:
    peer = Peer(kind)
    assert peer.hear(first, 1.0)  # any, while none is known
    assert peer.hear(first + ahead, 1.1) == (int(kind.meticulous) <= ahead <= 9)


@pytest.mark.parametrize("kind", [pytest.param(each, id=str(each)) for each in DIGESTS])
def test_after_twice_the_detection_time_any_number_counts(kind: AuthType) -> None:
    peer = Peer(kind)
    assert peer.hear(1000, 1.0)
    assert not peer.hear(5, 1.59)  # refused ones do not prolong the wait
    assert peer.hear(5, 1.6)
    assert not peer.hear(1000, 1.61)


@pytest.mark.parametrize("kind", [pytest.param(each, id=str(each)) for each in METICULOUS])
def test_a_packet_that_somebody_repeats_counts_once(kind: AuthType) -> None:
    fabric = Fabric(using(kind), using(kind))
    fabric.run(3)
    before = fabric.ends["there"].discarded
    fabric.ends["there"].on_datagram(fabric.sent[-1], HERE, 255, False, fabric.now)
    assert fabric.ends["there"].discarded == before + 1


@TYPES
def test_keys_are_changed_one_end_at_a_time_without_losing_the_session(kind: AuthType) -> None:
    fabric = Fabric(using(kind, ONE), using(kind, ONE))
    fabric.run(4)
    for end, keys in (
        ("here", (ONE, TWO)),
        ("there", (ONE, TWO)),
        ("here", (TWO, ONE)),
        ("there", (TWO, ONE)),
        ("here", (TWO,)),
        ("there", (TWO,)),
    ):
        fabric.wish(end, using(kind, *keys))
        fabric.run(1)
    assert fabric.states() == [State.UP, State.UP]
    assert [report for _, report in fabric.reports if report.state is State.DOWN] == []


def test_both_ends_may_begin_or_end_with_authentication_within_the_detection_time() -> None:
    fabric = Fabric(None, None)
    fabric.run(4)
    for authentication in (using(AuthType.KEYED_MD5), using(AuthType.METICULOUS_KEYED_SHA1), None):
        fabric.wish("here", authentication)
        fabric.run(0.1)
        fabric.wish("there", authentication)
        fabric.run(2)
    assert fabric.states() == [State.UP, State.UP]
    assert [report for _, report in fabric.reports if report.state is State.DOWN] == []


@TYPES
def test_one_that_changes_its_key_alone_is_lost_and_the_reason_is_told(kind: AuthType) -> None:
    fabric, watch = Fabric(using(kind), using(kind)), PathWatch()
    fabric.run(4)
    watch.on_report(Report(TOR, State.UP, Diagnostic.NONE))
    fabric.reports.clear()
    fabric.wish("there", using(kind, Key(1, b"another secret")))
    fabric.run(0.6)
    down = next(report for end, report in fabric.reports if end == "here" and report.state is State.DOWN)
    assert watch.on_report(down) == (
        "BFD refuses the peer's packets: it does not match key 1: the secrets of the two ends differ"
    )


@given(st.sampled_from(AuthType), st.lists(st.sampled_from(["here", "there"]), max_size=4), st.integers(0, 60))
def test_whoever_goes_on_goes_on_with_the_numbers(kind: AuthType, ends: list[str], steps: int) -> None:
    fabric = Fabric(using(kind), using(kind))
    fabric.run(steps * 0.02)
    for end in ends:
        old = fabric.ends[end]
        words = encode_legacy(Legacy(tuple(old.standings()), 3, {(ip_address("10.1.0.1"), 3784): 4}, (5,)))
        new = Engine(lambda: 0.9, 1)
        new.resume(decode_legacy(words).sessions, fabric.now)
        assert [_numbers(one) for one in (new, old)] == [_numbers(old)] * 2
        fabric.ends[end] = new
        fabric.run(0.14)
    fabric.run(4)
    assert fabric.states() == [State.UP, State.UP]
    assert [report.state for _, report in fabric.reports if report.state is State.DOWN] == []


def _numbers(engine: Engine) -> list[tuple[int | None, int | None]]:
    return [(standing.sent_sequence, standing.received_sequence) for _, standing in engine.standings()]


def test_the_numbers_are_in_the_memory_that_was_given_and_are_no_news_to_a_standby() -> None:
    cell = [0, 0, 0]
    engine = Engine(lambda: 0.5, 7, lambda: cell)
    engine.set_wanted([Wanted(TOR, HERE, False, FAST, using(AuthType.METICULOUS_KEYED_SHA1))], 0.0)
    assert engine.take_changed()
    (sent,), _ = engine.on_time(0.0)
    assert cell == [number_in(sent.payload), 0, 0]
    engine.on_time(1.0)
    assert cell[0] == number_in(sent.payload) + 1
    assert not engine.take_changed()


def test_refusals_are_told_when_they_change_and_not_too_often() -> None:
    engine = Engine(lambda: 0.5, 7)
    engine.set_wanted([Wanted(TOR, HERE, False, FAST, using(AuthType.KEYED_SHA1))], 0.0)
    other = Fabric(WRONG, None)
    other.run(0.02)
    wrong, bare = other.sent[0], bytearray(other.sent[0][:24])
    bare[1] &= ~4
    bare[3] = 24
    told = []
    for now in range(100):
        for data in (wrong, bytes(bare)):
            told += engine.on_datagram(data, TOR, 255, False, now / 10)[1]
    assert len(told) == round(10 / REFUSAL_S)


def test_no_text_tells_a_key() -> None:
    wanted = Wanted(TOR, HERE, False, FAST, using(AuthType.KEYED_SHA1))
    assert "first secret" not in f"{wanted} {wanted!r} {Watch(FAST, False, wanted.authentication)!r}"


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        pytest.param((), "one or more", id="none"),
        pytest.param((ONE, replace(TWO, number=1)), "a number of its own", id="twice the number"),
        pytest.param((Key(1, b""),), "0 bytes", id="empty"),
        pytest.param((Key(1, b"x" * 17),), "17 bytes, and keyed-md5 takes 1 to 16", id="too long"),
    ],
)
def test_authentication_that_makes_no_sense_cannot_be(keys: tuple[Key, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Authentication(AuthType.KEYED_MD5, keys)
    with pytest.raises(ValueError, match="256 is not the number"):
        Key(256, b"x")


def test_what_is_refused_is_a_notice_for_its_peer() -> None:
    watch = PathWatch()
    session = SessionConfig(
        peer=TOR, peer_as=1, local=HERE, local_as=2, kind=SessionKind.GLOBAL, resource="BGPPeer/tor", bfd=Watch(FAST)
    )
    watch.on_report(Report(TOR, State.DOWN, Diagnostic.NONE, refused="it is wrong"))
    (problem,) = watch.problems([session])
    assert (problem.subject, problem.text) == ("BGPPeer/tor", "BFD refuses what comes from 10.1.0.254: it is wrong")
    assert watch.problems([replace(session, bfd=None)]) == []
    watch.on_report(Report(TOR, State.UP, Diagnostic.NONE))
    assert watch.problems([session]) == []
