"""NOTIFICATIONs as values, what they mean in words, and the errors that lead to one (RFC 4271 6, RFC 4486, RFC 6608).

An error says what its message was and how far it reaches; who sends the NOTIFICATION and what becomes of the session
is the state machine's to say."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final

from msgspec import Struct

from weft.model.errors import WeftError

COLLISION: Final = 7
HARD_RESET: Final = 9
_LONGEST_TEXT: Final = 255


class Code(IntEnum):
    HEADER = 1
    OPEN = 2
    UPDATE = 3
    HOLD_TIMER = 4
    STATE_MACHINE = 5
    CEASE = 6
    REFRESH = 7


NAMES: Final[dict[tuple[int, int], str]] = {
    (1, 1): "connection not synchronised",
    (1, 2): "bad message length",
    (1, 3): "bad message type",
    (2, 1): "unsupported version number",
    (2, 2): "bad peer AS",
    (2, 3): "bad BGP identifier",
    (2, 4): "unsupported optional parameter",
    (2, 5): "authentication failure",
    (2, 6): "unacceptable hold time",
    (2, 7): "unsupported capability",
    (2, 11): "role mismatch",
    (3, 1): "malformed attribute list",
    (3, 2): "unrecognised well-known attribute",
    (3, 3): "missing well-known attribute",
    (3, 4): "attribute flags error",
    (3, 5): "attribute length error",
    (3, 6): "invalid ORIGIN",
    (3, 8): "invalid NEXT_HOP",
    (3, 9): "optional attribute error",
    (3, 10): "invalid network field",
    (3, 11): "malformed AS_PATH",
    (5, 1): "unexpected message in OpenSent",
    (5, 2): "unexpected message in OpenConfirm",
    (5, 3): "unexpected message in Established",
    (6, 1): "maximum number of prefixes reached",
    (6, 2): "administrative shutdown",
    (6, 3): "peer de-configured",
    (6, 4): "administrative reset",
    (6, 5): "connection rejected",
    (6, 6): "other configuration change",
    (6, 7): "connection collision resolution",
    (6, 8): "out of resources",
    (6, 9): "hard reset",
    (6, 10): "BFD down",
    (7, 1): "invalid ROUTE-REFRESH length",
}
_CODE_NAMES: Final = {
    1: "message header error",
    2: "OPEN message error",
    3: "UPDATE message error",
    4: "hold timer expired",
    5: "state machine error",
    6: "cease",
    7: "ROUTE-REFRESH message error",
}


class Notification(Struct, frozen=True):
    """What a NOTIFICATION says. `str` is a line for the log, with the text of an administrative shutdown or reset."""

    code: int
    subcode: int = 0
    data: bytes = b""

    @property
    def hard(self) -> bool:
        """The routes are to go whatever was agreed about restarts (RFC 8538 3.1)."""
        return self.code == Code.CEASE and self.subcode == HARD_RESET

    @property
    def text(self) -> str:
        """The shutdown communication (RFC 9003), made fit for a log; empty if there is none."""
        if (self.code, self.subcode) not in ((6, 2), (6, 4)) or not self.data:
            return ""
        said = self.data[1 : 1 + self.data[0]].decode("utf-8", "replace")
        return "".join(each if each.isprintable() else " " for each in said).strip()

    def __str__(self) -> str:
        if self.hard and len(self.data) >= 2:  # one level of it: what peers send may be nothing but hard resets
            return f"hard reset: {Notification(self.data[0], self.data[1], self.data[2:])._words()}"
        return self._words()

    def _words(self) -> str:
        name = NAMES.get((self.code, self.subcode)) or _CODE_NAMES.get(self.code, "unknown error")
        said = self.text
        return f"{name} ({self.code}/{self.subcode})" + (f': "{said}"' if said else "")


def shutdown_data(text: str) -> bytes:
    """The data of an administrative shutdown or reset with a text (RFC 9003), cut at a character."""
    if not text:
        return b""
    said = text.encode()[:_LONGEST_TEXT].decode("utf-8", "ignore").encode()
    return bytes((len(said),)) + said


class Stop(Enum):
    """Why a session is ended from this side. The value is the subcode of the cease; None: without a NOTIFICATION, so
    that the peer keeps our routes where it agreed to (RFC 4724)."""

    MAX_PREFIXES = 1
    SHUTDOWN = 2
    DECONFIGURED = 3
    RESET = 4
    CONFIGURATION_CHANGE = 6
    OUT_OF_RESOURCES = 8
    BFD_DOWN = 10
    RESTART = None

    @property
    def final(self) -> bool:
        """The peer is to forget our routes; a hard reset where anything less would keep them (RFC 8538)."""
        return self in (Stop.MAX_PREFIXES, Stop.SHUTDOWN, Stop.DECONFIGURED, Stop.BFD_DOWN)

    @property
    def comes_back(self) -> bool:
        """The session begins anew by itself; after any other it waits for a start."""
        return self in (Stop.RESET, Stop.CONFIGURATION_CHANGE, Stop.OUT_OF_RESOURCES, Stop.BFD_DOWN)


class SessionError(WeftError):
    """The session ends with this NOTIFICATION."""

    def __init__(self, notification: Notification, why: str) -> None:
        super().__init__(f"{notification}: {why}")
        self.notification = notification
        self.why = why


class HeaderError(SessionError):
    """The stream of messages is broken: nothing that follows can be read (RFC 4271 6.1)."""

    def __init__(self, subcode: int, why: str, data: bytes = b"") -> None:
        super().__init__(Notification(Code.HEADER, subcode, data), why)


class OpenError(SessionError):
    """An OPEN that cannot be accepted (RFC 4271 6.2, RFC 5492)."""

    def __init__(self, subcode: int, why: str, data: bytes = b"") -> None:
        super().__init__(Notification(Code.OPEN, subcode, data), why)


class UpdateMalformed(SessionError):
    """An UPDATE whose prefixes cannot be told: the one case where RFC 7606 still ends the session."""

    def __init__(self, subcode: int, why: str, data: bytes = b"") -> None:
        super().__init__(Notification(Code.UPDATE, subcode, data), why)


class RefreshMalformed(SessionError):
    """A ROUTE-REFRESH of the wrong length (RFC 7313 5)."""

    def __init__(self, why: str, data: bytes) -> None:
        super().__init__(Notification(Code.REFRESH, 1, data), why)
