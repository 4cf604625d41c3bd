"""Correct the defects of ExaBGP 5.0.15 that touch us, inside its own process (docs/adr/0070).

Each correction names the defect and the functions it replaces or leans on, with a digest of their source. If the
installed ExaBGP is another version, or one of those functions reads differently, nothing is changed and
`UnknownExaBGPError` is raised: a correction of code that nobody has read would be a new defect. Nothing here
decides anything about routing."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from exabgp.bgp.message import NOP, KeepAlive, Notify, Open
from exabgp.bgp.message.update import Update
from exabgp.bgp.message.update.attribute import Attributes
from exabgp.bgp.message.update.nlri.cidr import CIDR
from exabgp.bgp.message.update.nlri.inet import INET
from exabgp.configuration.configuration import Configuration, _Configuration
from exabgp.protocol.family import Family
from exabgp.reactor.api import API
from exabgp.reactor.api.processes import Processes
from exabgp.reactor.api.response.json import JSON
from exabgp.reactor.asynchronous import ASYNC
from exabgp.reactor.delay import Delay
from exabgp.reactor.listener import Listener
from exabgp.reactor.loop import Reactor
from exabgp.reactor.network.incoming import Incoming
from exabgp.reactor.peer import Peer
from exabgp.reactor.protocol import Protocol
from exabgp.rib.cache import Cache
from exabgp.rib.change import Change
from exabgp.rib.outgoing import OutgoingRIB
from msgspec import Struct

from bird_agent.exabgp import collisions, families, grouping, gtsm, malformed, oversized, received, turns

KNOWN_VERSION = "5.0.15"
COMMANDS_PER_TURN = 500

Function = Callable[..., Any]


class UnknownExaBGPError(Exception):
    """The installed ExaBGP is not the one these corrections were written for: do not start it."""


class Correction(Struct, frozen=True):
    """One defect: `replaces` maps (class, method) to our function; `digests` are of the source as it was read."""

    defect: str
    replaces: Mapping[tuple[type, str], Function]
    digests: Mapping[str, str]


def source_digest(function: Function) -> str:
    """16 hex digits over the function's source text."""
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]


# B2: a reload asked for while any peer has routes to send is forgotten.
def _pending_adjribout(self: Any) -> bool:
    return False


# B3: after one syntax error every later reload fails, and the helper processes are taken for removed.
_original_reload: Function = Configuration.reload


def _reload(self: Any) -> Any:
    neighbors, processes = self.neighbors, self.processes
    result = _original_reload(self)
    if result is not True:
        error = str(self.error)
        self._cleanup()
        self.neighbors, self.processes = neighbors, processes
        self.error.set(error)
    return result


# B7: one asyncio.run() (an epoll and a socketpair) for every 50 steps of the command queue.
def _run(self: Any) -> bool:
    for _ in range(COMMANDS_PER_TURN):
        if not self._async:
            return False
        service, steps = self._async.popleft()
        try:
            next(steps)
        except StopIteration:
            continue
        except Exception as error:  # as upstream: one bad command must not end the reactor
            _log_failure(service, error)
            self._notify_error(service)
            continue
        self._async.appendleft((service, steps))
    return bool(self._async)


def _log_failure(service: str, error: Exception) -> None:
    from exabgp.logger import log

    log.error(lambda: f"command of {service} failed: {error!r}", "reactor")


# B9: one write to a helper that has just died stops every peer for good; the line is lost, the helper comes back.
def _write(self: Any, process: str, string: str | None, neighbor: Any = None) -> bool:
    helper = self._process.get(process)
    if string is None or helper is None:
        return string is None
    try:
        helper.stdin.write(f"{string}\n".encode("ascii", "backslashreplace"))
        helper.stdin.flush()
    except (OSError, ValueError):
        return False  # the reactor finds the dead helper on its next turn and starts another
    return True


# B14: a connection that comes together with one from a stranger is forgotten, and its listening socket with it, until
# another comes; the peer waits for our OPEN, and refuses the connections that we make meanwhile.
_original_incoming: Function = Listener.incoming


def _incoming(self: Any) -> bool:
    return bool(_original_incoming(self) or self._accepted)


# B15: after a few failures a peer is looked for once a minute, and waits that long when it is back.
LONGEST_RETRY_S = 5  # as Calico's BIRD has it
_original_increase: Function = Delay.increase


def _increase(self: Any) -> None:
    self._next = min(self._next, LONGEST_RETRY_S)
    _original_increase(self)


# B16: a header that cannot be read is told to the helpers as a NOTIFICATION of the peer's, with an argument too many:
# the session ends with a traceback and without the NOTIFICATION that it is about. What follows that one tells of it.
_original_notification: Function = Processes.notification


def _notification(self: Any, neighbor: Any, direction: str, code: int, subcode: int, *rest: Any) -> None:
    data, *headers = rest
    if len(headers) == 2:
        _original_notification(self, neighbor, direction, code, subcode, data, *headers)


# B21: an OPEN that comes again while a KEEPALIVE is waited for ends the session. There it is weighed against other
# connections and no more (RFC 4271 8.2.2); OpenBGPD sends one left over from an attempt that failed.
def _read_keepalive(self: Any) -> Iterator[Any]:
    known = str(self.negotiated.received_open)
    while True:
        for said in self.read_message():
            if said.TYPE != NOP.TYPE:
                break
            yield said
        if said.TYPE != Open.TYPE or str(said) != known:
            break
        yield NOP()  # it is the others' turn, however many come, and the hold timer goes on
    if said.TYPE != KeepAlive.TYPE:
        raise Notify(5, 2)
    yield said


CORRECTIONS: tuple[Correction, ...] = (
    Correction(
        "B2 reload dropped while routes are pending",
        {(Reactor, "_pending_adjribout"): _pending_adjribout},
        {
            "Reactor._pending_adjribout": "1eca799614b5b01c",
            "Reactor.run": "2be669a4812a5c6d",
            "Reactor.reload": "9d31059186ff3252",
        },
    ),
    Correction(
        "B3 reload after a syntax error",
        {(Configuration, "reload"): _reload},
        {
            "Configuration.reload": "c905df6027bcaf2e",
            "Configuration._reload": "350d08fbb2bb46b8",
            "Configuration._rollback_reload": "2ff6d06d4bc79e2b",
        },
    ),
    Correction(
        "B7 an event loop for every 50 steps of commands",
        {(ASYNC, "run"): _run},
        {"ASYNC.run": "b19e41c01689bade", "ASYNC._run_async": "7640837abdd9df3e"},
    ),
    Correction(
        "B9 a write to a dead helper stops every peer",
        {(Processes, "write"): _write},
        {
            "Processes.write": "59a9a5eb6dfdcd34",
            "Processes.broken": "6c7c73a211315eed",
            "Processes._handle_problem": "9f3e80dac1cd0a56",
        },
    ),
    # Of the loop: it sleeps 50 ms between two commands of 500 routes, takes one UPDATE a turn, asks each of a hundred
    # idle peers 20 times a second, and once a session has been lost its sleep hides what the others say.
    Correction(
        "B10 turns and sleep of the loop",
        {
            (Reactor, "active_peers"): turns.active_peers,
            (Reactor, "_wait_for_io"): turns.wait_for_io,
            (Peer, "run"): turns.run_peer,
        },
        {
            "Reactor.run": "2be669a4812a5c6d",
            "Reactor.active_peers": "163a6e3b7080e056",
            "Reactor._wait_for_io": "abe9694fbe6f8686",
            "Peer.run": "c00bb5613e406b4f",
            "Peer._main": "e5ea2fecea84afed",
        },
    ),
    Correction(
        "B11 an object and a text for every prefix received",
        {(Update, "unpack_message"): received.unpack_message, (JSON, "_update"): received.update_as_json},
        {
            "Update.unpack_message": "0dbbe84626d1243a",
            "Update.split": "abffa3894f7895b9",
            "Attributes.unpack": "c458a61a25563c46",
            "JSON._update": "1c1f7120def9cb12",
            "Protocol.read_message": "1266df3f50c763ff",
        },
    ),
    Correction(
        "B12 a dozen objects for the family of every route",
        {(Family, "family"): families.family, (Family, "index"): families.index},
        {"Family.family": "137dc8f00d925c6e", "Family.index": "c01df7ddc9420435"},
    ),
    Correction(
        "B13 TTL security of what the peer opens",
        {(Listener, "_new_socket"): gtsm.new_socket, (Reactor, "handle_connection"): gtsm.handle_connection},
        {
            "Listener._new_socket": "f3a65c30428a9722",
            "Listener._listen": "bbf085510e08a64e",
            "Listener.new_connections": "84f94bf35546e653",
            "Reactor.handle_connection": "59b07b76f5992a6f",
        },
    ),
    Correction(
        "B14 connections beside a stranger's are forgotten",
        {(Listener, "incoming"): _incoming},
        {
            "Listener.incoming": "c95257c15ffba6cf",
            "Listener._connected": "982739d107e47e3d",
            "Listener.new_connections": "84f94bf35546e653",
        },
    ),
    Correction(
        "B15 a minute between two attempts to connect",
        {(Delay, "increase"): _increase},
        {"Delay.increase": "9e348b6f1e113f0e", "Delay.backoff": "5a974c949dc74c61"},
    ),
    Correction(
        "B16 a bad header ends the session with a traceback",
        {(Processes, "notification"): _notification},
        {"Processes.notification": "b31f1cd5fc2d33d6", "Protocol.read_message": "1266df3f50c763ff"},
    ),
    Correction(
        "B17 the good one of two connections is closed",
        {(Peer, "handle_connection"): collisions.handle_connection},
        {
            "Peer.handle_connection": "ecb82811d4b5461a",
            "Peer._establish": "be87f451722046e5",
            "Peer._connect": "d68e56f559cb3969",
            "Peer._close": "942fc729d7b67f45",
            "Incoming.notification": "dca2312740f3dc28",
        },
    ),
    Correction(
        "B18 an UPDATE for each IPv6 prefix, and for each that is asked for again",
        {(OutgoingRIB, "updates"): grouping.updates},
        {"OutgoingRIB.updates": "49a023385063c86e", "Update._mp_messages": "0e161c5b317afa63"},
    ),
    Correction(
        "B19 an announcement for which there is no room leaves the peer with the last one",
        {
            (Update, "_native_messages"): oversized.native_messages,
            (Update, "_mp_messages"): oversized.mp_messages,
        },
        {
            "Update.messages": "2f245ef279ad1ac0",
            "Update._packed_nlris": "a9f014a325c3deb1",
            "Update._native_messages": "647ba823fad33450",
            "Update._mp_messages": "0e161c5b317afa63",
        },
    ),
    Correction(
        "B20 a route with a malformed ORIGIN or an unknown well-known attribute stays",
        {(Attributes, "_parse_one"): malformed.parse_one},
        {
            "Attributes.parse": "5c6fd3aa6a92f530",
            "Attributes._parse_one": "3a23a3ce12cfa67b",
            "Attributes.add": "9439e3466cf06cdc",
        },
    ),
    Correction(
        "B21 an OPEN that comes twice ends the session",
        {(Protocol, "read_keepalive"): _read_keepalive},
        {
            "Protocol.read_keepalive": "2a89b25bf9a2fc1f",
            "Protocol.read_message": "1266df3f50c763ff",
            "Peer._read_ka": "a85e7e322c837f89",
        },
    ),
    # What ExaBGP's own commands get wrong or do slowly is not corrected, but avoided (docs/adr/0190).
    Correction(
        "nothing: what announced.py leans on, or does in place of",
        {},
        {
            "OutgoingRIB.add_to_rib": "fe7ea3a347789c4e",
            "OutgoingRIB._update_rib": "3c013bdc1a033977",
            "OutgoingRIB.__init__": "5ce2b083fca71589",
            "Cache.in_cache": "2400365c916f5e9f",
            "Cache.update_cache": "9fa33d6bd3d12dec",
            "Cache.cached_changes": "6df567f32902ea37",
            "Change.__init__": "8fdbe07e1bc359f3",
            "Change.index": "e4fcb978a899d6f2",
            "INET.index": "0032da0983ef113e",
            "INET.pack_nlri": "38b6a077cc1de43b",
            "CIDR.pack_nlri": "9cab5aab57aa5820",
            "API.api_attributes": "d1ea9a3fbb878944",
            "API.response": "eb2df0be5e9ebc70",
            "Update._split_nlris": "9d693e7f9bc15a49",
            "_Configuration.inject_change": "061dae4651ca234d",
        },
    ),
    Correction(
        "nothing: what extensions.py leans on",
        {},
        {
            "Protocol.new_update": "7b25e4e0dd97e57d",
            "OutgoingRIB.pending": "b3f88dc7b3096abf",
            "OutgoingRIB.cached_changes": "6df567f32902ea37",
        },
    ),
)

_CLASSES: Mapping[str, type] = {
    known.__name__: known
    for known in (
        OutgoingRIB,
        Reactor,
        Configuration,
        _Configuration,
        ASYNC,
        Processes,
        Peer,
        Protocol,
        Update,
        Attributes,
        JSON,
        Family,
        Listener,
        Delay,
        Cache,
        Change,
        INET,
        CIDR,
        API,
        Incoming,
    )
}


def verify(version: str, corrections: tuple[Correction, ...] = CORRECTIONS) -> None:
    """Refuse an ExaBGP that is not the one these corrections know. Raises UnknownExaBGPError."""
    if version != KNOWN_VERSION:
        raise UnknownExaBGPError(
            f"ExaBGP {version} is installed, but the corrections in {__name__} are for {KNOWN_VERSION}: "
            f"install exabgp=={KNOWN_VERSION}, or review each correction against the new source"
        )
    for correction in corrections:
        for name, digest in correction.digests.items():
            owner, method = name.split(".")
            found = source_digest(getattr(_CLASSES[owner], method))
            if found != digest:
                raise UnknownExaBGPError(
                    f"exabgp {version}: {name} is not the source that the correction of {correction.defect!r} "
                    f"was written for (digest {found}, known {digest}); is the installed package altered?"
                )


def apply(corrections: tuple[Correction, ...] = CORRECTIONS) -> None:
    """Put the corrections in place; `verify` comes first."""
    for correction in corrections:
        for (owner, method), function in correction.replaces.items():
            setattr(owner, method, function)
