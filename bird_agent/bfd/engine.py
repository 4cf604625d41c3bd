"""All BFD sessions of a node, without I/O: which packet is whose, and what there is to send and to say.

Pure: the time and chance are arguments. A single-hop packet counts only with the TTL of 255 that nobody far away can
give it (RFC 5881 5); a multihop one from the address that was agreed on (RFC 5883)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bird_agent.bfd.packet import Packet, PacketError, decode, encode
from bird_agent.bfd.session import BfdSession, Jitter, Standing, StateChange
from bird_agent.bfd.wire import Report, Wanted
from weft.model.address import IPAddress

FULL_TTL = 255
_Key = tuple[IPAddress, bool]


@dataclass(frozen=True, slots=True)
class Transmission:
    """A packet to send for a session."""

    session: Wanted
    payload: bytes


@dataclass(slots=True)
class _Held:
    wanted: Wanted
    session: BfdSession
    standing: Standing


class Engine:
    """See the module. `discriminator` is the first that is used."""

    def __init__(self, jitter: Jitter, discriminator: int) -> None:
        self._jitter = jitter
        self._next_discriminator = discriminator
        self._held: dict[_Key, _Held] = {}
        self._by_discriminator: dict[int, _Key] = {}
        self.discarded = 0
        self._changed = False

    def take_changed(self) -> bool:
        """Whether any session stands otherwise than when this was last asked."""
        changed, self._changed = self._changed, False
        return changed

    def standings(self) -> list[tuple[Wanted, Standing]]:
        """What a process that goes on for this one needs."""
        return [(one.wanted, one.session.standing) for one in self._held.values()]

    def resume(self, standings: Iterable[tuple[Wanted, Standing]], now: float) -> None:
        """Go on with the sessions of a process that has ended."""
        self._held.clear()
        self._by_discriminator.clear()
        for wanted, standing in standings:
            session = BfdSession(wanted.settings, standing.discriminator, self._jitter, now)
            session.resume(standing, now)
            key = (wanted.peer, wanted.multihop)
            self._held[key] = _Held(wanted, session, standing)
            self._by_discriminator[standing.discriminator] = key
        self._changed = True

    @property
    def due(self) -> float:
        return min((one.session.due for one in self._held.values()), default=float("inf"))

    @property
    def wanted(self) -> list[Wanted]:
        return [one.wanted for one in self._held.values()]

    def reports(self) -> list[Report]:
        """How everything stands."""
        return [Report(one.wanted.peer, one.session.state, one.session.diagnostic) for one in self._held.values()]

    def set_wanted(self, wanted: Iterable[Wanted], now: float) -> list[Transmission]:
        """What should be. A session that goes says so; one with another address of ours begins anew."""
        desired = {(one.peer, one.multihop): one for one in wanted}
        said: list[Transmission] = []
        self._changed = True
        for key, held in list(self._held.items()):
            new = desired.get(key)
            if new is None or new.local != held.wanted.local:
                said.append(Transmission(held.wanted, encode(held.session.close())))
                del self._held[key], self._by_discriminator[held.session.discriminator]
            else:
                held.session.set(new.settings, now)
                held.wanted = new
        for key, one in desired.items():
            if key not in self._held:
                number = self._discriminator()
                session = BfdSession(one.settings, number, self._jitter, now)
                self._held[key] = _Held(one, session, session.standing)
                self._by_discriminator[number] = key
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
        done = held.session.on_packet(packet, now)
        self._compare(held)
        return _said(held, done)

    def _compare(self, held: _Held) -> None:
        standing = held.session.standing
        if standing != held.standing:
            held.standing, self._changed = standing, True

    def on_time(self, now: float) -> tuple[list[Transmission], list[Report]]:
        transmissions: list[Transmission] = []
        reports: list[Report] = []
        for held in self._held.values():
            if held.session.due <= now:
                sent, changed = _said(held, held.session.on_time(now))
                self._compare(held)
                transmissions += sent
                reports += changed
        return transmissions, reports

    def _addressee(self, packet: Packet, source: IPAddress, multihop: bool) -> _Held | None:
        """By our discriminator, or before the other side knows it by its address; never another address's."""
        held = self._held.get((source, multihop))
        if held is None or packet.your_discriminator not in (0, held.session.discriminator):
            return None
        return held

    def _discriminator(self) -> int:
        while self._next_discriminator in (0, *self._by_discriminator):
            self._next_discriminator = (self._next_discriminator + 1) & 0xFFFFFFFF
        self._next_discriminator = (self._next_discriminator + 1) & 0xFFFFFFFF
        return (self._next_discriminator - 1) & 0xFFFFFFFF


def _said(held: _Held, done: tuple[list[Packet], list[StateChange]]) -> tuple[list[Transmission], list[Report]]:
    packets, changes = done
    return (
        [Transmission(held.wanted, encode(packet)) for packet in packets],
        list(_reports(held.wanted.peer, changes)),
    )


def _reports(peer: IPAddress, changes: Iterable[StateChange]) -> Iterator[Report]:
    for change in changes:
        yield Report(peer, change.state, change.diagnostic, change.by_will)
