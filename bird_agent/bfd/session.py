"""One BFD session in asynchronous mode, without I/O (RFC 5880 6.8).

Packets and the time go in; packets to send and changes of state come out. The clock is any that only goes forward, in
seconds; chance (the jitter of 6.8.7) is an argument. Echo and demand mode of our own are not used; a peer that asks for
demand mode is not sent periodic packets while both are up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from bird_agent.bfd.packet import Diagnostic, Packet, State

SLOW_TX_US: Final = 1_000_000
"""At least this between packets while the session is not up (6.8.3)."""

TRANSITIONS: Final[Mapping[tuple[State, State], State]] = {
    (State.DOWN, State.DOWN): State.INIT,
    (State.DOWN, State.INIT): State.UP,
    (State.INIT, State.ADMIN_DOWN): State.DOWN,
    (State.INIT, State.INIT): State.UP,
    (State.INIT, State.UP): State.UP,
    (State.UP, State.ADMIN_DOWN): State.DOWN,
    (State.UP, State.DOWN): State.DOWN,
}
"""(our state, the state received) -> our new state; what is not here changes nothing (6.2, 6.8.6)."""

Jitter = Callable[[], float]
"""A number from 0 (inclusive) to 1."""


class BfdSettings(Struct, frozen=True):
    """How fast: an interval both to send and to receive at, and after how many missing packets the path is dead."""

    interval_us: int
    detect_multiplier: int = 3

    def __post_init__(self) -> None:
        if not 10_000 <= self.interval_us <= 60_000_000 or not 1 <= self.detect_multiplier <= 255:
            raise ValueError("an interval of 10 ms to 60 s and a multiplier of 1 to 255 are needed")


class StateChange(Struct, frozen=True):
    """`by_will`: the other side has closed the session administratively, which says nothing about the path."""

    state: State
    diagnostic: Diagnostic
    by_will: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """All that both sides have come to agree on, which is what a process that goes on for another needs. `heard`: the
    other side's silence is being timed. The sequence numbers of authenticated packets change all the time, and are no
    news."""

    discriminator: int
    state: State
    diagnostic: Diagnostic
    remote_discriminator: int
    remote_state: State
    remote_min_rx_us: int
    remote_min_tx_us: int
    remote_multiplier: int
    remote_demand: bool
    polling: bool
    rx_until_final_us: int
    tx_until_final_us: int
    heard: bool
    sent_sequence: int | None = field(default=None, compare=False)
    received_sequence: int | None = field(default=None, compare=False)


class BfdSession:
    """One session; it begins Down and active. `due` is when `on_time` wants to be called next."""

    def __init__(self, settings: BfdSettings, discriminator: int, jitter: Jitter, now: float) -> None:
        self._settings = settings
        self.discriminator = discriminator
        self._jitter = jitter
        self.state = State.DOWN
        self.diagnostic = Diagnostic.NONE
        self.remote_discriminator = 0
        self.remote_state = State.DOWN
        self._remote_min_rx_us = 1
        self._remote_min_tx_us = 0
        self._remote_multiplier = 0
        self._remote_demand = False
        self._polling = False
        self._rx_until_final_us = 0
        """While we ask for less than before, the time that is still allowed for (6.8.3)."""
        self._tx_until_final_us = 0
        self._heard_at: float | None = None
        self._send_at = now

    # What is agreed on.

    @property
    def desired_min_tx_us(self) -> int:
        wanted = self._settings.interval_us
        return wanted if self.state is State.UP else max(wanted, SLOW_TX_US)

    @property
    def tx_interval_us(self) -> int:
        """Between packets, without jitter (6.8.7); 0: the other side wants none."""
        if self._remote_min_rx_us == 0:
            return 0
        own = self.desired_min_tx_us
        if self._polling and self._tx_until_final_us:
            own = min(own, self._tx_until_final_us)
        return max(own, self._remote_min_rx_us)

    @property
    def detection_time_us(self) -> int:
        """Silence of this length is the end (6.8.4); 0: nothing was heard yet."""
        own = self._settings.interval_us
        if self._polling:
            own = max(own, self._rx_until_final_us)
        return self._remote_multiplier * max(own, self._remote_min_tx_us)

    @property
    def due(self) -> float:
        times = [] if self._is_quiet() else [self._send_at]
        if (end := self._detection_ends()) is not None:
            times.append(end)
        return min(times, default=float("inf"))

    # Handed on.

    @property
    def standing(self) -> Standing:
        return Standing(
            self.discriminator,
            self.state,
            self.diagnostic,
            self.remote_discriminator,
            self.remote_state,
            self._remote_min_rx_us,
            self._remote_min_tx_us,
            self._remote_multiplier,
            self._remote_demand,
            self._polling,
            self._rx_until_final_us,
            self._tx_until_final_us,
            self._heard_at is not None,
        )

    def resume(self, standing: Standing, now: float) -> None:
        """Go on where another process has ended: say so at once, and time the other side's silence from now."""
        self.discriminator = standing.discriminator
        self.state, self.diagnostic = standing.state, standing.diagnostic
        self.remote_discriminator, self.remote_state = standing.remote_discriminator, standing.remote_state
        self._remote_min_rx_us, self._remote_min_tx_us = standing.remote_min_rx_us, standing.remote_min_tx_us
        self._remote_multiplier, self._remote_demand = standing.remote_multiplier, standing.remote_demand
        self._polling = standing.polling
        self._rx_until_final_us, self._tx_until_final_us = standing.rx_until_final_us, standing.tx_until_final_us
        self._heard_at = now if standing.heard else None
        self._send_at = now

    # Inputs.

    def on_packet(self, packet: Packet, now: float) -> tuple[list[Packet], list[StateChange]]:
        """A packet that was found to be this session's."""
        if packet.your_discriminator not in (0, self.discriminator):
            return [], []
        self.remote_discriminator = packet.my_discriminator
        self.remote_state = packet.state
        self._remote_demand = packet.demand
        self._remote_min_rx_us = packet.required_min_rx_us
        self._remote_min_tx_us = packet.desired_min_tx_us
        self._remote_multiplier = packet.detect_multiplier
        self._heard_at = now
        if packet.final:
            self._polling, self._rx_until_final_us, self._tx_until_final_us = False, 0, 0
        changes = self._receive_state(packet)
        if changes:
            self._send_at = now  # tell at once what has changed
        self._send_at = min(self._send_at, self._next_send(now))
        answer = [replace(self._packet(), poll=False, final=True)] if packet.poll else []
        return answer, changes

    def on_time(self, now: float) -> tuple[list[Packet], list[StateChange]]:
        """Something may be due."""
        changes: list[StateChange] = []
        end = self._detection_ends()
        if end is not None and now >= end:
            self.remote_discriminator, self._heard_at, self._remote_demand = 0, None, False
            if self.state in (State.INIT, State.UP):
                changes.append(self._go(State.DOWN, Diagnostic.DETECTION_TIME_EXPIRED))
                self._send_at = now
        packets = []
        if now >= self._send_at and not self._is_quiet():
            packets.append(self._packet())
            self._send_at = self._next_send(now)
        return packets, changes

    def set(self, settings: BfdSettings, now: float) -> None:
        """Other settings, while it goes on: the other side is asked first where it could be surprised (6.8.3)."""
        if settings == self._settings:
            return
        before, was = self._settings, self.desired_min_tx_us
        self._settings = settings
        if self.state is State.UP:
            self._polling = True
            self._rx_until_final_us = max(self._rx_until_final_us, before.interval_us)
            self._tx_until_final_us = was
        self._send_at = now

    def close(self) -> Packet:
        """The last word: down because somebody wants it so, which tells the other side nothing about the path."""
        self.state, self.diagnostic = State.ADMIN_DOWN, Diagnostic.ADMINISTRATIVELY_DOWN
        self._polling = False
        return self._packet()

    # The machine.

    def _receive_state(self, packet: Packet) -> list[StateChange]:
        new = TRANSITIONS.get((self.state, packet.state))
        if new is None:
            return []
        if new is State.DOWN:
            by_will = packet.state is State.ADMIN_DOWN
            return [self._go(new, Diagnostic.NEIGHBOR_SIGNALED_DOWN, by_will)]
        return [self._go(new, Diagnostic.NONE if new is State.UP else self.diagnostic)]

    def _go(self, state: State, diagnostic: Diagnostic, by_will: bool = False) -> StateChange:
        self.state, self.diagnostic = state, diagnostic
        # Up means another interval than before, which has to be announced with a poll; down ends all agreements.
        self._polling = state is State.UP and self._settings.interval_us < SLOW_TX_US
        self._rx_until_final_us = self._tx_until_final_us = 0
        return StateChange(state, diagnostic, by_will)

    def _is_quiet(self) -> bool:
        """No periodic packets: the other side wants none, or demand mode is on (6.8.7)."""
        if self._remote_min_rx_us == 0:
            return True
        both_up = self.state is State.UP and self.remote_state is State.UP
        return self._remote_demand and both_up and not self._polling

    def _detection_ends(self) -> float | None:
        if self._heard_at is None:
            return None
        return self._heard_at + self.detection_time_us / 1e6

    def _next_send(self, now: float) -> float:
        """75 to 100 % of the interval, at most 90 % where one packet lost is the end (6.8.7)."""
        shortest, longest = 0.75, 0.9 if self._settings.detect_multiplier == 1 else 1.0
        return now + self.tx_interval_us / 1e6 * (shortest + (longest - shortest) * self._jitter())

    def _packet(self) -> Packet:
        return Packet(
            state=self.state,
            diagnostic=self.diagnostic,
            my_discriminator=self.discriminator,
            your_discriminator=self.remote_discriminator,
            desired_min_tx_us=self.desired_min_tx_us,
            required_min_rx_us=self._settings.interval_us,
            detect_multiplier=self._settings.detect_multiplier,
            poll=self._polling,
        )
