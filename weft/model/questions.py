"""Questions to the agent of another node, as they wait in the datastore, in keys that Calico ignores. Shape only.

Whoever can write there may be anybody: what is too long or unfit for a log line is no question."""

from __future__ import annotations

from typing import Final

from weft.model.base import Value
from weft.model.errors import FieldError

LONGEST_METHOD: Final = 200
LONGEST_REQUEST: Final = 4096
LONGEST_ASKER: Final = 200
_SHOWN: Final = 40


class Question(Value, frozen=True, kw_only=True):
    """`method` is the full name of one of an admin service, `request` its message, `asker` is for the log."""

    method: str
    request: bytes = b""
    asker: str = ""

    def __post_init__(self) -> None:
        _check_text("method", self.method, LONGEST_METHOD)
        _check_text("asker", self.asker, LONGEST_ASKER)
        if len(self.request) > LONGEST_REQUEST:
            raise FieldError("request", f"{len(self.request)} bytes", f"at most {LONGEST_REQUEST} bytes")


class Ending(Value, frozen=True, kw_only=True):
    """What follows the last part of an answer: how many there are, or why there is no answer (an ErrorDetail)."""

    parts: int = 0
    refusal: bytes | None = None


def _check_text(field: str, text: str, longest: int) -> None:
    if len(text) > longest or not text.isprintable():
        raise FieldError(field, text[:_SHOWN], f"printable text of at most {longest} characters")
