"""Asking and answering through a datastore, both ends on the fake."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import pytest

from tests.fakes.datastore import MemoryDatastore
from weft.admin import answering
from weft.admin.answering import Answerer
from weft.admin.errors import RemoteError
from weft.admin.mailbox import Mailbox
from weft.admin.questions import NoSuchNodeError, UnansweredError
from weft.admin.v1 import bgp_pb2 as pb
from weft.datastore.syncer import Deleted, Upserted
from weft.model import codec, keys
from weft.model.errors import DatastoreUnavailableError, NotFoundError, ValidationError
from weft.model.keys import Addressee, QuestionKey, ReflectorKey, ResourceKey
from weft.model.questions import Question

AGENT = Addressee("agent", "n1")
REFLECTOR = Addressee("reflector", "n1")
Methods = Mapping[str, Callable[[bytes], Awaitable[bytes]]]
NODE = '{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"%s"},"spec":{%s}}'


async def echo(request: bytes) -> bytes:
    return b"said: " + request


async def refuse(request: bytes) -> bytes:
    raise NotFoundError("BGP peer 192.0.2.1")


async def fail(request: bytes) -> bytes:
    raise ZeroDivisionError


async def parse(request: bytes) -> bytes:
    return pb.TraceBgpRequest.FromString(request).SerializeToString()


METHODS: Methods = {"echo": echo, "refuse": refuse, "fail": fail, "parse": parse}


@pytest.fixture
def store() -> MemoryDatastore:
    made = MemoryDatastore()
    add_node(made, "n1")
    add_node(made, "n2")
    return made


def add_node(store: MemoryDatastore, name: str, bgp: str = "") -> None:
    store.put(keys.path(ResourceKey("Node", name)), (NODE % (name, bgp)).encode())


@asynccontextmanager
async def answering_agent(
    store: MemoryDatastore, methods: Methods = METHODS, addressee: Addressee = AGENT, **settings: Callable[[], bool]
) -> AsyncIterator[None]:
    task = asyncio.create_task(Answerer(store, addressee, methods, **settings).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def left(store: MemoryDatastore) -> dict[str, bytes]:
    return store.items(keys.QUESTIONS) | store.items(keys.ANSWERS)


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def pose(store: MemoryDatastore, question: Question, lease: int, name: str = "q") -> Awaitable[int]:
    """As a weftctl that does not wait."""
    return store.create(keys.path(QuestionKey(AGENT, name)), codec.encode_stored(question), lease)


async def test_what_an_agent_answers_comes_back_and_nothing_is_left(store: MemoryDatastore) -> None:
    async with answering_agent(store):
        assert await Mailbox(store).ask(AGENT, "echo", b"hello", "root@here") == b"said: hello"
        assert left(store) == {}


async def test_many_ask_at_once_and_each_gets_its_own_answer(store: MemoryDatastore) -> None:
    async with answering_agent(store):
        asked = [Mailbox(store).ask(AGENT, "echo", str(number).encode()) for number in range(20)]
        assert await asyncio.gather(*asked) == [f"said: {number}".encode() for number in range(20)]
    assert left(store) == {}


async def test_an_agent_and_a_reflector_of_one_name_are_asked_apart(store: MemoryDatastore) -> None:
    async def other(request: bytes) -> bytes:
        return b"reflector"

    async with answering_agent(store), answering_agent(store, {"echo": other}, REFLECTOR):
        assert await Mailbox(store).ask(AGENT, "echo", b"") == b"said: "
        assert await Mailbox(store).ask(REFLECTOR, "echo", b"") == b"reflector"


async def test_a_refusal_keeps_its_class_and_its_data(store: MemoryDatastore) -> None:
    async with answering_agent(store):
        with pytest.raises(NotFoundError) as refused:
            await Mailbox(store).ask(AGENT, "refuse", b"")
        assert refused.value.key == "BGP peer 192.0.2.1"


@pytest.mark.parametrize(
    ("method", "request_", "error", "words"),
    [
        ("drain", b"", RemoteError, "does not answer 'drain': it is older than this weftctl"),
        ("fail", b"", RemoteError, "ZeroDivisionError: see its log"),
        ("parse", b"\xff\xff", ValidationError, "request"),
    ],
    ids=["a method that it does not know", "a defect", "what is no message"],
)
async def test_what_cannot_be_answered_is_said_and_the_agent_goes_on(
    store: MemoryDatastore, method: str, request_: bytes, error: type[Exception], words: str
) -> None:
    async with answering_agent(store):
        with pytest.raises(error, match=words):
            await Mailbox(store).ask(AGENT, method, request_)
        assert await Mailbox(store).ask(AGENT, "echo", b"still") == b"said: still"


async def test_an_answer_that_is_too_large_is_refused_before_anything_of_it_is_written(
    store: MemoryDatastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weft.admin.questions.MOST_PARTS", 0)
    async with answering_agent(store):
        with pytest.raises(RemoteError, match=r"ask for less \(received PEER"):
            await Mailbox(store).ask(AGENT, "echo", b"")


async def test_a_question_too_long_to_be_one_is_not_asked(store: MemoryDatastore) -> None:
    with pytest.raises(ValidationError, match="at most 4096 bytes"):
        await Mailbox(store).ask(AGENT, "echo", b"x" * 5000)
    assert left(store) == {}


async def test_a_node_that_does_not_exist_is_told_at_once_with_those_that_do(store: MemoryDatastore) -> None:
    with pytest.raises(NoSuchNodeError, match=r"no Node named n7: there are n1, n2$"):
        await Mailbox(store).ask(Addressee("agent", "n7"), "echo", b"")
    for number in range(10, 30):
        add_node(store, f"n{number}")
    with pytest.raises(NoSuchNodeError, match=r"n1, n10, .* and 12 more"):
        await Mailbox(store).ask(Addressee("agent", "n7"), "echo", b"")
    with pytest.raises(NoSuchNodeError, match=r"^no Node named 'n\\n7': .* and 12 more$"):
        await Mailbox(store).ask(Addressee("agent", "n\n7"), "echo", b"")
    assert str(NoSuchNodeError("n7", ["n\x1b[2J"])) == r"no Node named n7: there are 'n\x1b[2J'"
    assert not any(op == "grant" for op, _ in store.calls)


async def test_an_agent_that_is_dead_is_said_to_be_and_nothing_is_left(store: MemoryDatastore) -> None:
    with pytest.raises(UnansweredError) as silent:
        await Mailbox(store, silence_s=0.1).ask(AGENT, "echo", b"")
    assert str(silent.value).startswith("node n1 has not answered within 0.1 s: its BGP agent is not running, cannot")
    assert "--reflector" not in str(silent.value)
    assert left(store) == {}


async def test_where_nobody_answers_the_other_way_to_ask_is_said(store: MemoryDatastore) -> None:
    add_node(store, "rr", '"bgp":{"routeReflectorClusterID":"1.1.1.1"}')
    store.put(keys.path(ReflectorKey("serving", "n2")), b'{"up":true}')
    with pytest.raises(UnansweredError, match="a reflector of its own is asked by --reflector"):
        await Mailbox(store, silence_s=0.1).ask(Addressee("agent", "rr"), "echo", b"")
    with pytest.raises(UnansweredError, match=r"the reflector n1 has not .*; said to be reflectors: n2, rr$"):
        await Mailbox(store, silence_s=0.1).ask(REFLECTOR, "echo", b"")


async def test_an_agent_that_has_taken_a_question_gets_longer_and_is_told_apart_from_a_dead_one(
    store: MemoryDatastore,
) -> None:
    async def never(request: bytes) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async with answering_agent(store, {"echo": never}):
        with pytest.raises(UnansweredError, match="has taken the question and not answered within 1 s"):
            await Mailbox(store, silence_s=0.3, lifetime_s=1).ask(AGENT, "echo", b"")
        # The question is gone, so nothing holds the next one up.
        await eventually(lambda: left(store) == {})


async def test_a_question_finds_the_agent_that_is_started_after_it(store: MemoryDatastore) -> None:
    asked = asyncio.create_task(Mailbox(store).ask(AGENT, "echo", b"early"))
    await eventually(lambda: store.items(keys.QUESTIONS))
    async with answering_agent(store):
        assert await asked == b"said: early"


async def test_an_agent_that_dies_over_an_answer_is_followed_by_one_that_gives_it(store: MemoryDatastore) -> None:
    begun = asyncio.Event()

    async def hang(request: bytes) -> bytes:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with answering_agent(store, {"echo": hang}):
        asked = asyncio.create_task(Mailbox(store).ask(AGENT, "echo", b"again"))
        await begun.wait()
    async with answering_agent(store):
        assert await asked == b"said: again"
    assert left(store) == {}


async def test_connections_that_are_lost_on_either_side_cost_only_time(store: MemoryDatastore) -> None:
    async with answering_agent(store):
        assert await Mailbox(store).ask(AGENT, "echo", b"1") == b"said: 1"
        store.disconnect()
        store.reconnect()
        assert await Mailbox(store).ask(AGENT, "echo", b"2") == b"said: 2"

        async def slow(request: bytes) -> bytes:
            store.disconnect()
            store.reconnect()
            return b"over it"

    async with answering_agent(store, {"echo": slow}):
        assert await Mailbox(store).ask(AGENT, "echo", b"") == b"over it"


async def test_a_datastore_that_is_away_over_an_answer_costs_only_time(store: MemoryDatastore) -> None:
    async def slow(request: bytes) -> bytes:
        store.disconnect()
        asyncio.get_running_loop().call_later(0.3, store.reconnect)
        return b"over it"

    async with answering_agent(store, {"echo": slow}):
        assert await Mailbox(store, lifetime_s=20).ask(AGENT, "echo", b"") == b"over it"
        assert left(store) == {}


async def test_history_that_is_gone_over_an_answer_costs_nothing(store: MemoryDatastore) -> None:
    async def slow(request: bytes) -> bytes:
        store.disconnect()
        store.reconnect()
        store.put("/elsewhere", b"")
        store.compact()
        return b"still there"

    async with answering_agent(store, {"echo": slow}):
        assert await Mailbox(store, lifetime_s=20).ask(AGENT, "echo", b"") == b"still there"


async def test_whoever_asks_without_a_datastore_does_not_blame_the_agent(store: MemoryDatastore) -> None:
    async def never(request: bytes) -> bytes:
        store.disconnect()
        await asyncio.Event().wait()
        raise AssertionError

    async with answering_agent(store, {"echo": never}):
        with pytest.raises(DatastoreUnavailableError):
            await Mailbox(store, silence_s=0.5, lifetime_s=1).ask(AGENT, "echo", b"")


async def test_an_agent_that_was_away_hears_of_what_nobody_waits_for_any_more_and_is_not_busy_with_it(
    store: MemoryDatastore,
) -> None:
    answerer = Answerer(store, AGENT, METHODS)
    async with asyncio.TaskGroup() as group:
        for number in range(answering.MOST_AT_ONCE + 1):
            key = QuestionKey(AGENT, f"q{number}")
            # One batch: what a watch brings that has been away.
            answerer._on_questions(group, [Upserted(key, Question(method="echo"), 1), Deleted(key)])
    answering_run = asyncio.create_task(answerer.run())
    try:
        assert await Mailbox(store).ask(AGENT, "echo", b"") == b"said: "
    finally:
        answering_run.cancel()
        await asyncio.gather(answering_run, return_exceptions=True)


async def test_an_agent_answers_once_it_knows_what_it_is_asked(
    store: MemoryDatastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = [False]
    async with answering_agent(store, ready=lambda: ready[0]):
        asked = asyncio.create_task(Mailbox(store).ask(AGENT, "echo", b""))
        await eventually(lambda: any(key.endswith("/taken") for key in store.items(keys.ANSWERS)))
        await asyncio.sleep(0.2)
        assert not asked.done()
        ready[0] = True
        assert await asked == b"said: "
    monkeypatch.setattr(answering, "READY_S", 0.1)
    async with answering_agent(store, ready=lambda: False):
        assert await Mailbox(store).ask(AGENT, "echo", b"") == b"said: "


async def test_one_who_is_interrupted_leaves_nothing(store: MemoryDatastore) -> None:
    asked = asyncio.create_task(Mailbox(store).ask(AGENT, "echo", b""))
    await eventually(lambda: store.items(keys.QUESTIONS))
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert left(store) == {}


async def test_an_answer_nobody_waits_for_any_more_is_given_up(store: MemoryDatastore) -> None:
    given_up = asyncio.Event()

    async def hang(request: bytes) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        raise AssertionError

    async with answering_agent(store, {"echo": hang}):
        lease = await store.grant(30)
        await pose(store, Question(method="echo"), lease)
        await eventually(lambda: store.items(keys.ANSWERS))
        store.expire(lease)
        async with asyncio.timeout(5):
            await given_up.wait()
        assert left(store) == {}


async def test_what_is_no_question_or_nobodys_is_ignored_with_a_line_in_the_log(
    store: MemoryDatastore, caplog: pytest.LogCaptureFixture
) -> None:
    async with answering_agent(store):
        with caplog.at_level(logging.WARNING):
            store.put(f"{keys.QUESTIONS}agent/n1/bad", b'{"method": 7}')
            await pose(store, Question(method="echo"), 0, "unbound")
            assert await Mailbox(store).ask(AGENT, "echo", b"x") == b"said: x"
            await eventually(lambda: "without a lease nothing would end it" in caplog.text)
    assert f"{keys.QUESTIONS}agent/n1/bad cannot be read" in caplog.text
    assert store.items(keys.ANSWERS) == {}


async def test_a_flood_of_questions_is_answered_only_so_far(
    store: MemoryDatastore, caplog: pytest.LogCaptureFixture
) -> None:
    release = asyncio.Event()
    answered = 0

    async def wait(request: bytes) -> bytes:
        nonlocal answered
        await release.wait()
        answered += 1
        return b""

    async with answering_agent(store, {"echo": wait}):
        lease = await store.grant(30)
        with caplog.at_level(logging.WARNING):
            for number in range(answering.MOST_AT_ONCE + 10):
                await pose(store, Question(method="echo"), lease, f"q{number:03}")
            await eventually(lambda: caplog.text.count("questions wait already") == 10)
        release.set()
        await eventually(lambda: answered == answering.MOST_AT_ONCE)
        assert await Mailbox(store).ask(AGENT, "echo", b"") == b""
