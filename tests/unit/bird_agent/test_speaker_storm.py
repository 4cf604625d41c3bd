"""A speaker that ends as soon as it is started, again and again."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_address
from itertools import accumulate, repeat
from pathlib import Path

import pytest

from bird_agent.conversation import SETTLE_TIMEOUT_S
from bird_agent.exabgp import supervisor
from bird_agent.exabgp.configuration import render
from bird_agent.exabgp.supervisor import LONGEST_PAUSE_S, SpeakerPaths, SpeakerSupervisor, pause_s
from bird_agent.sessions import RESYNC_TIMEOUT_S
from tests.unit.bird_agent.agent_world import LEARNT, running


def test_twenty_ends_in_a_row_come_ever_more_slowly_and_one_of_a_speaker_that_was_well_costs_nothing() -> None:
    pauses = list(accumulate(repeat(0.2, 20), pause_s, initial=0.0))[1:]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.1, LONGEST_PAUSE_S)
    assert sum(pauses) > 60
    assert pause_s(LONGEST_PAUSE_S, 6.0) == 0.0


async def test_each_end_is_told_with_the_speakers_last_words_and_when_it_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = ["/bin/sh", "-c", "echo can not bind to 0.0.0.0:179 >&2; exit 1"]
    monkeypatch.setattr(supervisor, "_launcher_arguments", lambda *_: program)
    told: list[str] = []
    ended = asyncio.Event()

    def on_ended(how: str) -> None:
        told.append(how)
        if len(told) == 3:
            ended.set()

    paths = SpeakerPaths(tmp_path)
    one = SpeakerSupervisor(paths, lambda before: None, on_ended)
    await one.configure(render([], paths.helper()), [], 179)
    with caplog.at_level(logging.ERROR):
        running = asyncio.ensure_future(one.run())
        await ended.wait()
        running.cancel()
    assert all("has ended with status 1. Its last words: " in how for how in told)
    assert all(how.endswith("can not bind to 0.0.0.0:179") for how in told)
    again = [record.getMessage().rpartition("; ")[2] for record in caplog.records]
    assert again[:3] == ["starting it again in 0.1 s", "starting it again in 0.3 s", "starting it again in 0.7 s"]


def test_routes_stay_for_the_restart_time_counted_from_the_first_end_however_often_it_ends() -> None:
    world = running(2)
    world.learn("10.0.0.2")
    world.step()
    assert RESYNC_TIMEOUT_S == SETTLE_TIMEOUT_S  # what an agent that starts meanwhile grants them
    began, each_s = world.now, 5.0
    for _ in range(int(RESYNC_TIMEOUT_S / each_s) - 1):
        world.agent.conversation.on_speaker_ended()
        world.step(each_s)
        assert set(world.kernel) == {LEARNT}
        session = world.agent.sessions.get(ip_address("10.0.0.2"))
        assert session is not None
        assert session.last_error == "our own speaker was restarted"
    world.step(began + RESYNC_TIMEOUT_S - world.now)
    assert world.kernel == {}
