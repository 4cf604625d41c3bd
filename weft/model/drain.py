"""A node's graceful shutdown as its Node resource says it, in annotations that Calico has none of.

`weft/drain` is the wish, and how long peers get to find other ways: "5s". `weft/drain-state` is what the node's BGP
agent answers, in words; it begins with "drained" when nothing is announced any more, and is gone when the node
announces again."""

from __future__ import annotations

import re
from typing import Final

WISH: Final = "weft/drain"
STATE: Final = "weft/drain-state"
DRAINED: Final = "drained"
DEFAULT_WAIT_S: Final = 5.0
MAX_WAIT_S: Final = 3600.0

_WAIT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)s?")


def parse_wait(text: str) -> float:
    """Seconds: "5s", "0.5s" or "5". Raises ValueError."""
    found = _WAIT.fullmatch(text)
    if found is None or float(found[1]) > MAX_WAIT_S:
        raise ValueError(f"{text!r} is not a time in seconds up to {MAX_WAIT_S:g}, such as 5s")
    return float(found[1])


def wait_text(wait_s: float) -> str:
    return f"{wait_s:g}s"


def is_drained(state: str | None) -> bool:
    return state is not None and state.startswith(DRAINED)
