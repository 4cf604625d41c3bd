"""What the BGP agent and the BFD process say to each other: JSON lines to frozen values and back. Pure.

The agent says what should be, whole, each time it changes; the process answers with the state of each session, first
all of them and then each change, and with what it cannot do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from ipaddress import ip_address
from typing import Any, Final

from msgspec import Struct

from bird_agent.bfd.auth import Authentication, AuthType, Key
from bird_agent.bfd.packet import Diagnostic, State
from bird_agent.bfd.session import BfdSettings, Standing
from weft.model.address import IPAddress

SINGLE_HOP_PORT: Final = 3784  # RFC 5881 4
MULTIHOP_PORT: Final = 4784  # RFC 5883 5


class Watch(Struct, frozen=True):
    """How a path is to be watched. `multihop`: also towards a peer that is on a network of ours."""

    settings: BfdSettings
    multihop: bool = False
    authentication: Authentication | None = None


class Wanted(Struct, frozen=True):
    """One session that should be."""

    peer: IPAddress
    local: IPAddress
    multihop: bool
    settings: BfdSettings
    authentication: Authentication | None = None

    @property
    def port(self) -> int:
        return MULTIHOP_PORT if self.multihop else SINGLE_HOP_PORT


class Report(Struct, frozen=True):
    """How one session stands. `refused`: why what comes from the peer's address is discarded; empty: it is not."""

    peer: IPAddress
    state: State
    diagnostic: Diagnostic
    by_will: bool = False
    refused: str = ""


class Trouble(Struct, frozen=True):
    """What the process cannot do; empty: everything is well again."""

    text: str


class Program(Struct, frozen=True):
    """The version of the process that answers."""

    version: str


class Legacy(Struct, frozen=True):
    """What a process leaves its successor: the sessions, and its sockets by number: the one it listens on, those that
    receive by address of ours and port, and those that send in the order of the sessions (None: it has none)."""

    sessions: tuple[tuple[Wanted, Standing], ...]
    server: int
    receiving: Mapping[tuple[IPAddress, int], int]
    sending: tuple[int | None, ...]


def encode_wanted(wanted: Iterable[Wanted]) -> bytes:
    return json.dumps({"sessions": [_wanted_as_json(one) for one in wanted]}).encode() + b"\n"


def decode_wanted(line: bytes) -> list[Wanted]:
    """Raises ValueError, KeyError or TypeError for what the agent would not write."""
    return [_wanted(one) for one in json.loads(line)["sessions"]]


def _wanted_as_json(one: Wanted) -> dict[str, Any]:
    keys = None
    if one.authentication is not None:
        keys = [[key.number, key.secret.hex()] for key in one.authentication.keys]
    return {
        "peer": str(one.peer),
        "local": str(one.local),
        "multihop": one.multihop,
        "interval_us": one.settings.interval_us,
        "multiplier": one.settings.detect_multiplier,
        **({} if one.authentication is None else {"authentication": int(one.authentication.type), "keys": keys}),
    }


def _wanted(one: Mapping[str, Any]) -> Wanted:
    return Wanted(
        ip_address(one["peer"]),
        ip_address(one["local"]),
        bool(one["multihop"]),
        BfdSettings(int(one["interval_us"]), int(one["multiplier"])),
        _authentication(one),
    )


def _authentication(one: Mapping[str, Any]) -> Authentication | None:
    if "authentication" not in one:
        return None
    keys = tuple(Key(int(number), bytes.fromhex(secret)) for number, secret in one["keys"])
    return Authentication(AuthType(one["authentication"]), keys)


def encode_legacy(legacy: Legacy) -> bytes:
    content = {
        "sessions": [[_wanted_as_json(wanted), _standing_as_json(standing)] for wanted, standing in legacy.sessions],
        "server": legacy.server,
        "receiving": [[str(local), port, number] for (local, port), number in legacy.receiving.items()],
        "sending": list(legacy.sending),
    }
    return json.dumps(content).encode()


def _standing_as_json(standing: Standing) -> dict[str, Any]:
    """Numbers that are not there are not named: a version that knows of none can read it."""
    return {name: value for name, value in asdict(standing).items() if value is not None}


def decode_legacy(words: bytes) -> Legacy:
    """Raises ValueError, KeyError or TypeError for what another version wrote otherwise."""
    content = json.loads(words)
    sessions = []
    for wanted, standing in content["sessions"]:
        enums = {name: State(standing[name]) for name in ("state", "remote_state")}
        diagnostic = Diagnostic(standing["diagnostic"])
        sessions.append((_wanted(wanted), Standing(**{**standing, **enums, "diagnostic": diagnostic})))
    return Legacy(
        tuple(sessions),
        int(content["server"]),
        {(ip_address(str(local)), port): descriptor for local, port, descriptor in content["receiving"]},
        tuple(content["sending"]),
    )


def encode_report(report: Report | Trouble | Program) -> bytes:
    if isinstance(report, Program):
        return json.dumps({"version": report.version}).encode() + b"\n"
    if isinstance(report, Trouble):
        return json.dumps({"trouble": report.text}).encode() + b"\n"
    content = {
        "peer": str(report.peer),
        "state": int(report.state),
        "diagnostic": int(report.diagnostic),
        "by_will": report.by_will,
        "refused": report.refused,
    }
    return json.dumps(content).encode() + b"\n"


def decode_report(line: bytes) -> Report | Trouble | Program:
    """Raises ValueError or KeyError for what the process would not write."""
    content = json.loads(line)
    if "version" in content:
        return Program(str(content["version"]))
    if "trouble" in content:
        return Trouble(str(content["trouble"]))
    state, diagnostic = State(content["state"]), Diagnostic(content["diagnostic"])
    return Report(
        ip_address(content["peer"]), state, diagnostic, bool(content["by_will"]), str(content.get("refused", ""))
    )
