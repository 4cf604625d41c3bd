"""The link's framing and its spool."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bird_agent.exabgp import link
from bird_agent.exabgp.link import AgentSide, Hello, LineBuffer, LinkProtocolError, Live, Replaying, SpeakerLine
from bird_agent.exabgp.spool import Spool, peer_of
from tests.unit.bird_agent import lines

STREAM = (
    link.hello(7, 8)
    + link.replaying(b"10.1.0.2", True)
    + b'{"x": 1}\n'
    + link.replaying(b"fd00::1", False)
    + link.live()
)
FRAMES = [Hello(1, 7, 8), Replaying("10.1.0.2", True), SpeakerLine(b'{"x": 1}'), Replaying("fd00::1", False), Live()]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12).map(sorted))
def test_frames_do_not_depend_on_how_the_stream_was_cut(cuts: list[int]) -> None:
    side = AgentSide()
    bounds = [0, *cuts, len(STREAM)]
    frames = [frame for a, b in pairwise(bounds) for frame in side.receive_data(STREAM[a:b])]
    assert frames == FRAMES


@pytest.mark.parametrize(
    "line",
    [b"!hello 2 7 8", b"!hello one", b"!peer 10.1.0.2", b"!peer 10.1.0.2 perhaps", b"!bye", b"!live now"],
    ids=bytes.decode,
)
def test_what_is_not_the_protocol_is_refused(line: bytes) -> None:
    with pytest.raises(LinkProtocolError):
        AgentSide().receive_data(line + b"\n")


def test_an_endless_line_is_refused() -> None:
    buffer = LineBuffer()
    buffer.feed(b"x" * link.MAX_LINE_BYTES)
    with pytest.raises(LinkProtocolError):
        buffer.feed(b"x")


@pytest.mark.parametrize(
    ("line", "peer"),
    [
        pytest.param(lines.state("up"), b"10.1.0.2", id="state"),
        pytest.param(lines.update({"fd00::2": ["fd65::/122"]}, peer="fd00::2"), b"fd00::2", id="update"),
        pytest.param(b'{"type": "weft-session", "address": "10.1.0.2"}', None, id="answer"),
        pytest.param(b'{"type": "weft-reload", "error": "\\"peer\\": \\"x\\""}', None, id="report"),
        pytest.param(b"error", None, id="text"),
    ],
)
def test_the_peer_of_a_line_is_found_without_parsing_it(line: bytes, peer: bytes | None) -> None:
    assert peer_of(line) == peer


def update(number: int) -> bytes:
    return lines.update({"10.1.0.2": [f"10.{number // 256}.{number % 256}.0/24"]})


UP = [lines.state("connected"), lines.opened(), lines.state("up")]
DOWN = lines.state("down", "closing connection")


def spool_of(*stored: bytes, limit: int = 1 << 20) -> Spool:
    spool = Spool(limit)
    for line in stored:
        spool.store(line)
    return spool


def replayed(spool: Spool) -> tuple[bool, list[bytes]]:
    ((_, complete, kept),) = spool.replay()
    return complete, kept


def test_the_present_session_and_the_one_before_it_are_kept() -> None:
    first, second, third = ([*UP, update(number), DOWN] for number in range(3))
    assert replayed(spool_of(*first, *second)) == (True, [*first, *second])
    assert replayed(spool_of(*first, *second, *third)) == (True, [*second, *third])


def test_attempts_that_come_to_nothing_do_not_push_the_last_session_out() -> None:
    attempt = [lines.state("connected"), DOWN]
    assert replayed(spool_of(*UP, update(1), DOWN, *attempt * 50)) == (True, [*UP, update(1), DOWN, *attempt])


def test_a_peer_first_seen_in_the_middle_of_its_session_has_a_gap() -> None:
    assert replayed(spool_of(update(1), update(2))) == (False, [update(1), update(2)])


def test_a_full_spool_drops_the_largest_history_and_says_so() -> None:
    spool = spool_of(*UP, *(update(number) for number in range(300)), limit=20_000)
    complete, kept = replayed(spool)
    assert not complete
    assert kept[:3] == UP
    assert spool.size <= 20_000


def test_after_forgetting_the_history_is_complete_again_from_there() -> None:
    spool = spool_of(*UP, *(update(number) for number in range(300)), limit=20_000)
    spool.forget(b"10.1.0.2")
    spool.store(update(1))
    assert replayed(spool) == (True, [*UP, update(1)])
    spool.forget(b"10.9.9.9")


@given(
    st.lists(
        st.one_of(
            st.sampled_from([*UP, DOWN, b"done", b"{}"]),
            st.integers(0, 9).map(update),
            st.integers(0, 3).map(lambda number: lines.update(withdraw=["10.0.0.0/8"], peer=f"10.1.1.{number}")),
        ),
        max_size=60,
    ),
    st.integers(1_000, 20_000),
)
def test_the_size_is_what_is_kept_and_stays_within_the_limit(stored: list[bytes], limit: int) -> None:
    spool = spool_of(*stored, limit=limit)
    assert spool.size == sum(len(line) + 40 for _, _, kept in spool.replay() for line in kept)
    standing = sum(len(line) + 40 for _, _, kept in spool.replay() for line in kept if b'"update": {' not in line)
    assert spool.size <= max(limit, standing)
