"""What we add to ExaBGP's process API, inside its own process: `weft sync`, `weft cease`, `weft unsent`, and reports of
reloads.

`weft sync` answers with how each session stands, what was last announced to each peer, and an end mark, so that an
agent that attaches knows ExaBGP's state instead of guessing it. Every reload reports the digest of the configuration
and whether it was taken, because ExaBGP itself says so only in its log. `weft cease ADDRESS SUBCODE [stay-down]` ends a
session with a NOTIFICATION, which ExaBGP itself never sends where graceful restart was agreed. `weft unsent NUMBER`
answers which established peers have not been sent everything that was announced or withdrawn before: what it does not
name is with TCP. What ExaBGP does itself is not changed."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exabgp.bgp.fsm import FSM
from exabgp.bgp.message.notification import Notify
from exabgp.reactor import listener
from exabgp.reactor.api.command.command import Command
from exabgp.reactor.loop import Reactor
from exabgp.reactor.protocol import Protocol

from bird_agent.exabgp import announced
from bird_agent.exabgp.configuration import digest_of

SYNC_COMMAND = "weft sync"
CEASE = 6  # RFC 4271 4.5
PREFIXES_PER_LINE = 1000
_running = {"digest": ""}  # of the configuration that was last taken; this process is one speaker


def _sync(api: Any, reactor: Any, service: str, line: str, use_json: bool) -> bool:
    """Answer behind the commands that are already queued, so that the answer includes them."""
    reactor.asynchronous.schedule(service, line, _answer_sync(reactor, service))
    return True


def _answer_sync(reactor: Any, service: str) -> Iterator[None]:
    write, encoder = reactor.processes.write, reactor.processes._encoder[service]
    for peer in list(reactor._peers.values()):
        write(service, json.dumps(_session(peer, encoder)))
        address = str(peer.neighbor["peer-address"].top())
        for family, prefixes in _advertised(peer).items():
            for start in range(0, len(prefixes), PREFIXES_PER_LINE):
                part = prefixes[start : start + PREFIXES_PER_LINE]
                report = {"type": "weft-advertised", "address": address, "family": family, "prefixes": part}
                write(service, json.dumps(report))
        yield
    write(service, json.dumps({"type": "weft-synced", "digest": _running["digest"]}))


def _session(peer: Any, encoder: Any) -> dict[str, Any]:
    established = peer.established()
    report = {
        "type": "weft-session",
        "address": str(peer.neighbor["peer-address"].top()),
        "state": peer.fsm.name(),
        "since": peer.stats["complete"] if established else peer.stats["reset"],
    }
    if established:
        received = peer.proto.negotiated.received_open
        line = encoder.open(peer.neighbor, "receive", received, None, b"", b"")
        report["open"] = json.loads(line)["neighbor"]["open"]
    return report


def _advertised(peer: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for change in peer.neighbor.rib.outgoing.cached_changes():
        afi, safi = change.nlri.family().afi_safi()
        found.setdefault(f"{afi} {safi}", []).append(str(change.nlri.cidr.prefix()))
    return found


def _cease(api: Any, reactor: Any, service: str, line: str, use_json: bool) -> bool:
    """Behind the commands that are already queued, as `_sync`."""
    _, _, address, subcode, *options = line.split()
    reactor.asynchronous.schedule(service, line, _end_session(reactor, address, int(subcode), "stay-down" in options))
    return True


def _end_session(reactor: Any, address: str, subcode: int, stay_down: bool) -> Iterator[None]:
    for peer in list(reactor._peers.values()):
        if str(peer.neighbor["peer-address"].top()) != address or not peer.generator:
            continue
        if stay_down:
            peer._restart = False
        if peer.fsm == FSM.ESTABLISHED:
            with contextlib.suppress(StopIteration):  # it is out already
                peer.generator.throw(Notify(CEASE, subcode))
    yield


def _unsent(api: Any, reactor: Any, service: str, line: str, use_json: bool) -> bool:
    """Behind the commands that are already queued, as `_sync`."""
    reactor.asynchronous.schedule(service, line, _answer_unsent(reactor, service, int(line.split()[2])))
    return True


def _answer_unsent(reactor: Any, service: str, number: int) -> Iterator[None]:
    peers = [
        str(peer.neighbor["peer-address"].top())
        for peer in reactor._peers.values()
        if peer.established() and (peer.neighbor.rib.outgoing.pending() or getattr(peer.proto, "weft_sending", False))
    ]
    reactor.processes.write(service, json.dumps({"type": "weft-unsent", "number": number, "peers": peers}))
    yield


def _note_sending() -> None:
    """Let a peer's protocol say that UPDATEs were taken from its RIB which are not all written yet."""
    original = Protocol.new_update

    def new_update_and_note(self: Any, include_withdraw: bool) -> Iterator[Any]:
        self.weft_sending = True
        try:
            yield from original(self, include_withdraw)
        finally:
            self.weft_sending = False

    Protocol.new_update = new_update_and_note


def _share_port(sock: Any, ipv6: bool) -> None:
    """ExaBGP listens on all addresses, and a reflector of this node on one of its own: both may, and a connection goes
    to who listens on its very address (socket(7), SO_REUSEPORT)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _set_listener_options(sock, ipv6)


_set_listener_options = listener.set_listener_options


def install() -> None:
    """Add the commands, the report to every reload, and the sharing of ports."""
    announced.install()
    listener.set_listener_options = _share_port
    Command.register("weft unsent", False)(_unsent)
    _note_sending()
    Command.register("weft sync", False)(_sync)
    Command.register("weft cease", False)(_cease)
    original = Reactor.reload

    def reload_and_report(self: Any) -> Any:
        # Read before it is parsed: should the file be replaced in between, an old digest is reported for it, and
        # the agent, which waits for the new one, asks for one more reload.
        path = self.configuration._configurations[0]
        digest = digest_of(Path(path).read_bytes())
        taken = original(self)
        if taken:
            _running["digest"] = digest
        report = {"type": "weft-reload", "digest": digest, "taken": bool(taken)}
        report["error"] = "" if taken else str(self.configuration.error)
        for service in list(self.processes._process):  # none at the first reading: they start after it
            self.processes.write(service, json.dumps(report))
        return taken

    Reactor.reload = reload_and_report
