"""What goes through the datastore as question and answer: whatever somebody writes there, no reader is harmed."""

import os
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.admin.questions import (
    ENDING,
    MOST_PARTS,
    MOST_RUNS,
    PART_BYTES,
    TAKEN,
    Answer,
    AnswerTooLargeError,
    DamagedAnswerError,
    Refusal,
    compressed,
    part_name,
    parts_of,
)
from weft.model import codec
from weft.model.errors import ValidationError
from weft.model.keys import Addressee, QuestionKey
from weft.model.questions import LONGEST_REQUEST, Ending, Question

KEY = QuestionKey(Addressee("agent", "n1"), "1")
METHOD = "weft.admin.v1.BgpService/ListBgpPeers"


def written(data: bytes) -> list[tuple[str, bytes]]:
    """What an agent writes, by part."""
    parts = parts_of(b"".join(compressed(data)), len(data))
    said = [(part_name(number), part) for number, part in enumerate(parts)]
    return [(TAKEN, b""), *said, (ENDING, msgspec.json.encode(Ending(parts=len(parts))))]


def collected(said: list[tuple[str, bytes]], run: str = "r1") -> bytes | Refusal | None:
    """What comes of parts, in this order."""
    answer = Answer()
    outcomes = [answer.on_written(f"{run}/{part}", value) for part, value in said]
    return next((outcome for outcome in outcomes if outcome is not None), None)


@given(st.binary(max_size=2000), st.randoms(use_true_random=False))
def test_an_answer_is_put_together_whatever_the_order_of_its_parts(data: bytes, order: random.Random) -> None:
    said = written(data * 50)
    order.shuffle(said)
    assert collected(said) == data * 50


def test_a_large_answer_goes_in_parts_and_is_whole_only_with_the_last() -> None:
    data = os.urandom(3 * PART_BYTES)
    said = written(data)
    assert len(said) > 5
    assert max(len(part) for _, part in said) <= PART_BYTES
    assert collected(said[:-1]) is None
    assert collected([*said[:2], *said[3:]]) is None
    assert collected(said) == data


def test_an_answer_that_is_too_large_is_refused_with_its_size_and_what_to_ask_instead() -> None:
    data = b"x" * (MOST_PARTS * PART_BYTES + 1)
    with pytest.raises(AnswerTooLargeError, match=r"more than the 8 MB .*\(8 MB before compression\).*trace PREFIX"):
        parts_of(data, len(data))


def test_parts_of_two_runs_are_never_put_together() -> None:
    first, second = written(b"first"), written(b"second")
    answer = Answer()
    for part, value in first[:-1]:
        assert answer.on_written(f"a/{part}", value) is None
    for part, value in second[:-1]:
        assert answer.on_written(f"b/{part}", value) is None
    assert answer.on_written(f"b/{ENDING}", second[-1][1]) == b"second"


def test_a_refusal_is_an_outcome() -> None:
    assert collected([(TAKEN, b""), (ENDING, msgspec.json.encode(Ending(refusal=b"why")))]) == Refusal(b"why")


def test_answers_without_end_are_not_kept() -> None:
    answer = Answer()
    for number in range(MOST_RUNS):
        answer.on_written(f"{number}/{TAKEN}", b"")
    with pytest.raises(DamagedAnswerError):
        answer.on_written(f"another/{TAKEN}", b"")


def test_what_unpacks_to_more_than_any_answer_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    said = written(bytes(1 << 20))
    monkeypatch.setattr("weft.admin.questions.MOST_BYTES", 1 << 16)
    with pytest.raises(DamagedAnswerError):
        collected(said)


PART_NAMES = st.sampled_from([TAKEN, ENDING, part_name(0), part_name(1), "", "/", "9999"]) | st.text(max_size=5)
ENDINGS = st.builds(Ending, parts=st.integers(-1, 40), refusal=st.none() | st.binary(max_size=5)).map(
    msgspec.json.encode
)


@given(st.lists(st.tuples(PART_NAMES, st.binary(max_size=30) | ENDINGS), max_size=12))
def test_whatever_is_written_is_an_answer_a_refusal_nothing_yet_or_damaged(said: list[tuple[str, bytes]]) -> None:
    try:
        outcome = collected(said)
    except DamagedAnswerError:
        return
    assert outcome is None or isinstance(outcome, bytes | Refusal)


@given(
    st.builds(
        Question,
        method=st.just(METHOD),
        request=st.binary(max_size=LONGEST_REQUEST),
        asker=st.text(st.characters(categories=["L", "N", "P"]), max_size=20),
    )
)
def test_a_question_is_read_as_it_was_written(question: Question) -> None:
    assert codec.decode_stored(KEY, codec.encode_stored(question)) == question


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.integers() | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3)).flatmap(
        lambda value: st.fixed_dictionaries(
            {}, optional={"method": st.just(value), "request": st.just(value), "asker": st.just(value)}
        ).map(msgspec.json.encode)
    )
)
def test_whatever_waits_as_a_question_is_one_or_is_refused(raw: bytes) -> None:
    try:
        question = codec.decode_stored(KEY, raw)
    except ValidationError:
        return
    assert isinstance(question, Question)
    assert (question.method + question.asker).isprintable()


@pytest.mark.parametrize(
    ("field", "tree"),
    [
        ("method", {"method": "x" * 100_000}),
        ("method", {"method": "two\nlines"}),
        ("asker", {"method": METHOD, "asker": "root\x1b[31m"}),
        ("request", {"method": METHOD, "request": "AAAA" * 100_000}),
        ("request", {"method": METHOD, "request": "no base64"}),
        ("method", {}),
    ],
    ids=["endless method", "two lines", "escape sequence", "huge request", "no base64", "no method"],
)
def test_a_question_that_is_too_long_or_unfit_for_a_log_is_refused_briefly(field: str, tree: object) -> None:
    with pytest.raises(ValidationError) as refused:
        codec.decode_stored(KEY, msgspec.json.encode(tree))
    assert refused.value.field == field
    assert len(str(refused.value)) < 500
