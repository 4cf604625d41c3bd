"""How long a peer that cannot be reached is left alone (correction B15)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from exabgp.reactor.delay import Delay

from bird_agent.exabgp import corrections

UNCORRECTED = pytest.mark.xfail(raises=AssertionError, strict=True, reason="the defect that is corrected")


@pytest.mark.parametrize(
    "increase",
    [corrections._increase, pytest.param(corrections._original_increase, marks=UNCORRECTED)],
    ids=["corrected", "uncorrected"],
)
def test_a_peer_that_cannot_be_reached_is_tried_every_few_seconds(
    increase: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("exabgp.reactor.delay.time.time", lambda: now[0])
    delay, waits = Delay(), []
    for _ in range(30):
        began = now[0]
        increase(delay)
        while delay.backoff():
            now[0] += 0.5
        waits.append(now[0] - began)
    assert max(waits) <= corrections.LONGEST_RETRY_S + 1
    assert waits[0] <= 1  # a lost session is tried at once
