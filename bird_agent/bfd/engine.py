"""All BFD sessions of a node, without I/O: which packet is whose, and what there is to send and to say.

Pure: the time and chance are arguments, and so is where the numbers of authenticated packets are kept. A single-hop
packet counts only with the TTL of 255 that nobody far away can give it (RFC 5881 5); a multihop one from the address
that was agreed on (RFC 5883). Nothing of a packet counts before its authentication is found right."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import replace

from msgspec import Struct

from bird_agent.bfd.auth import Cell, Guard
from bird_agent.bfd.packet import Packet, PacketError, State, decode, encode
from bird_agent.bfd.session import BfdSession, Jitter, Standing, StateChange
from bird_agent.bfd.wire import Report, Wanted
from weft.model.address import IPAddress

FULL_TTL = 255
REFUSAL_S = 5.0
"""Refused packets are not told of more often: anybody may send them."""
_Key = tuple[IPAddress, bool]


class Transmission(Struct, frozen=True):
    """A packet to send for a session."""

    session: Wanted
    payload: bytes


class _Held(Struct):
    wanted: Wanted
    session: BfdSession
    standing: Standing
    guard: Guard
    refused: str = ""
    refused_said: str = ""
    refusal_due: float = float("-inf")


def _private_cell() -> Cell:
    return [0, 0, 0]


class Engine:
    """See the module. `discriminator` is the first that is used; `new_cell` gives each authenticated session a place
    for its sequence numbers, which a process shares with its standby."""

    def __init__(self, jitter: Jitter, discriminator: int, new_cell: Callable[[], Cell] = _private_cell) -> None:
        self._new_cell = new_cell
        self._jitter = jitter
        self._next_discriminator = discriminator
        self._held: dict[_Key, _Held] = {}
        self._by_discriminator: dict[int, _Key] = {}
        self._times: list[tuple[float, int]] = []
        """A heap of when sessions are due, by discriminator. Those that `_due` says otherwise of are out of date."""
        self._due: dict[int, float] = {}
        self.discarded = 0
        self._changed = False

    def take_changed(self) -> bool:
        """Whether any session stands otherwise than when this was last asked."""
        changed, self._changed = self._changed, False
        return changed

    def standings(self) -> list[tuple[Wanted, Standing]]:
        """What a process that goes on for this one needs."""
        return [(one.wanted, _with_numbers(one)) for one in self._held.values()]

    def resume(self, standings: Iterable[tuple[Wanted, Standing]], now: float) -> None:
        """Go on with the sessions of a process that has ended."""
        self._held.clear()
        self._by_discriminator.clear()
        self._times.clear()
        self._due.clear()
        for wanted, standing in standings:
            session = BfdSession(wanted.settings, standing.discriminator, self._jitter, now)
            session.resume(standing, now)
            guard = self._guard(wanted)
            if standing.sent_sequence is not None:
                guard.resume(standing.sent_sequence, standing.received_sequence, now)
            key = (wanted.peer, wanted.multihop)
            self._held[key] = _Held(wanted, session, standing, guard)
            self._by_discriminator[standing.discriminator] = key
            self._schedule(self._held[key])
        self._changed = True

    @property
    def due(self) -> float:
        """When `on_time` wants to be called next."""
        while self._times and self._due.get(self._times[0][1]) != self._times[0][0]:
            heapq.heappop(self._times)
        return self._times[0][0] if self._times else float("inf")

    @property
    def wanted(self) -> list[Wanted]:
        return [one.wanted for one in self._held.values()]

    def reports(self) -> list[Report]:
        """How everything stands."""
        return [_report(one) for one in self._held.values()]

    def set_wanted(self, wanted: Iterable[Wanted], now: float) -> list[Transmission]:
        """What should be. A session that goes says so; one with another address of ours begins anew."""
        desired = {(one.peer, one.multihop): one for one in wanted}
        said: list[Transmission] = []
        self._changed = True
        for key, held in list(self._held.items()):
            new = desired.get(key)
            if new is None or new.local != held.wanted.local:
                said.append(_transmission(held, held.session.close()))
                number = held.session.discriminator
                del self._held[key], self._by_discriminator[number]
                self._due.pop(number, None)
            else:
                held.session.set(new.settings, now)
                self._set_guard(held, new)
                held.wanted = new
                self._schedule(held)
        for key, one in desired.items():
            if key not in self._held:
                number = self._discriminator()
                session = BfdSession(one.settings, number, self._jitter, now)
                self._held[key] = _Held(one, session, session.standing, self._guard(one))
                self._by_discriminator[number] = key
                self._schedule(self._held[key])
        return said

    def close(self) -> list[Transmission]:
        """The last words of all."""
        return self.set_wanted([], 0.0)

    def on_datagram(
        self, data: bytes, source: IPAddress, ttl: int | None, multihop: bool, now: float
    ) -> tuple[list[Transmission], list[Report]]:
        """Something arrived on a BFD port; what is not for a session of ours is counted and forgotten."""
        try:
            packet = decode(data)
        except PacketError:
            self.discarded += 1
            return [], []
        held = self._addressee(packet, source, multihop)
        if held is None or not (multihop or ttl == FULL_TTL):
            self.discarded += 1
            return [], []
        silence_s = 2 * held.session.detection_time_us / 1e6
        refused = held.guard.refusal(data, packet.section, now, silence_s)
        if refused:
            self.discarded += 1
            return [], _refuse(held, refused, now)
        held.refused = ""
        done = held.session.on_packet(packet, now)
        self._compare(held)
        self._schedule(held)
        sent, reports = _said(held, done)
        return sent, reports or _accepted(held)

    def _compare(self, held: _Held) -> None:
        standing = held.session.standing
        if standing != held.standing:
            held.standing, self._changed = standing, True

    def on_time(self, now: float) -> tuple[list[Transmission], list[Report]]:
        transmissions: list[Transmission] = []
        reports: list[Report] = []
        for held in self._take_due(now):
            sent, changed = _said(held, held.session.on_time(now))
            self._compare(held)
            self._schedule(held)
            transmissions += sent
            reports += changed
        return transmissions, reports

    def _take_due(self, now: float) -> list[_Held]:
        found = []
        while self.due <= now:
            _, number = heapq.heappop(self._times)
            del self._due[number]
            found.append(self._held[self._by_discriminator[number]])
        return found

    def _schedule(self, held: _Held) -> None:
        """After anything that may have changed when it is due: a packet or a tick costs the same with many sessions."""
        number, due = held.session.discriminator, held.session.due
        if due != self._due.get(number):
            self._due[number] = due
            heapq.heappush(self._times, (due, number))

    def _addressee(self, packet: Packet, source: IPAddress, multihop: bool) -> _Held | None:
        """By our discriminator, or before the other side knows it by its address; never another address's."""
        held = self._held.get((source, multihop))
        if held is None or packet.your_discriminator not in (0, held.session.discriminator):
            return None
        return held

    def _guard(self, wanted: Wanted) -> Guard:
        cell = _private_cell() if wanted.authentication is None else self._new_cell()
        return Guard(wanted.authentication, cell, int(self._jitter() * (1 << 32)))

    def _set_guard(self, held: _Held, new: Wanted) -> None:
        """Other keys or another type: the numbers go on, and so does the session if the other end changes in time."""
        if held.guard.authentication is None or new.authentication is None:
            if new.authentication != held.guard.authentication:
                held.guard = self._guard(new)
        else:
            held.guard.authentication = new.authentication

    def _discriminator(self) -> int:
        while self._next_discriminator in (0, *self._by_discriminator):
            self._next_discriminator = (self._next_discriminator + 1) & 0xFFFFFFFF
        self._next_discriminator = (self._next_discriminator + 1) & 0xFFFFFFFF
        return (self._next_discriminator - 1) & 0xFFFFFFFF


def _with_numbers(held: _Held) -> Standing:
    if held.guard.authentication is None:
        return held.session.standing
    return replace(held.session.standing, sent_sequence=held.guard.sent, received_sequence=held.guard.received)


def _transmission(held: _Held, packet: Packet) -> Transmission:
    return Transmission(held.wanted, held.guard.seal(encode(packet)))


def _report(held: _Held, change: StateChange | None = None) -> Report:
    held.refused_said = held.refused
    peer, refused = held.wanted.peer, held.refused
    if change is None:
        return Report(peer, held.session.state, held.session.diagnostic, refused=refused)
    return Report(peer, change.state, change.diagnostic, change.by_will, refused)


def _refuse(held: _Held, why: str, now: float) -> list[Report]:
    """While the session is up, packets that are refused are somebody else's, or are missed soon."""
    held.refused = why
    if held.session.state is State.UP or why == held.refused_said or now < held.refusal_due:
        return []
    held.refusal_due = now + REFUSAL_S
    return [_report(held)]


def _accepted(held: _Held) -> list[Report]:
    return [_report(held)] if held.refused_said else []


def _said(held: _Held, done: tuple[list[Packet], list[StateChange]]) -> tuple[list[Transmission], list[Report]]:
    packets, changes = done
    return [_transmission(held, packet) for packet in packets], [_report(held, change) for change in changes]
