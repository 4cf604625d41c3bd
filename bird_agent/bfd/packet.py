"""BFD control packets: bytes to frozen values and back (RFC 5880 4.1).

Pure. It checks what concerns a packet alone (RFC 5880 6.8.6, as far as it needs no session); whether its authentication
is right is for auth.py to say, and no packet may be used before."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

from msgspec import Struct

VERSION: Final = 1
MANDATORY_LENGTH: Final = 24
_FORMAT: Final = struct.Struct("!BBBBIIIII")
LENGTH_AT: Final = 3
_POLL, _FINAL, _CONTROL_INDEPENDENT, AUTHENTICATED, _DEMAND, _MULTIPOINT = (0x20, 0x10, 0x08, 0x04, 0x02, 0x01)


class State(IntEnum):
    """bfd.SessionState."""

    ADMIN_DOWN = 0
    DOWN = 1
    INIT = 2
    UP = 3


class Diagnostic(IntEnum):
    """bfd.LocalDiag: why the session last went down."""

    NONE = 0
    DETECTION_TIME_EXPIRED = 1
    ECHO_FAILED = 2
    NEIGHBOR_SIGNALED_DOWN = 3
    FORWARDING_PLANE_RESET = 4
    PATH_DOWN = 5
    CONCATENATED_PATH_DOWN = 6
    ADMINISTRATIVELY_DOWN = 7
    REVERSE_CONCATENATED_PATH_DOWN = 8


class PacketError(ValueError):
    """A packet that has to be discarded, and why."""


class Section(Struct, frozen=True):
    """The authentication section behind a packet (4.2 to 4.4). `content`: what follows the key's number; None: there is
    no such number. `type` is a number, because others may know more."""

    type: int
    key_number: int | None
    content: bytes


class Packet(Struct, frozen=True, kw_only=True):
    """One control packet. Intervals are microseconds; `diagnostic` is a number, because others may know more. What is
    encoded has no `section`: that is made of the bytes."""

    state: State
    my_discriminator: int
    your_discriminator: int
    desired_min_tx_us: int
    required_min_rx_us: int
    detect_multiplier: int
    diagnostic: int = 0
    poll: bool = False
    final: bool = False
    demand: bool = False
    control_plane_independent: bool = False
    required_min_echo_rx_us: int = 0
    section: Section | None = None


def encode(packet: Packet) -> bytes:
    flags = (
        packet.state << 6
        | _POLL * packet.poll
        | _FINAL * packet.final
        | _CONTROL_INDEPENDENT * packet.control_plane_independent
        | _DEMAND * packet.demand
    )
    return _FORMAT.pack(
        VERSION << 5 | packet.diagnostic,
        flags,
        packet.detect_multiplier,
        MANDATORY_LENGTH,
        packet.my_discriminator,
        packet.your_discriminator,
        packet.desired_min_tx_us,
        packet.required_min_rx_us,
        packet.required_min_echo_rx_us,
    )


def decode(data: bytes) -> Packet:
    """Raises PacketError for what RFC 5880 6.8.6 discards before it looks for a session."""
    if len(data) < MANDATORY_LENGTH:
        raise PacketError(f"{len(data)} bytes are too few")
    first, flags, multiplier, length, mine, yours, tx, rx, echo = _FORMAT.unpack_from(data)
    if first >> 5 != VERSION:
        raise PacketError(f"version {first >> 5}")
    if length < MANDATORY_LENGTH or length > len(data):
        raise PacketError(f"its length of {length} does not fit {len(data)} bytes")
    if flags & _MULTIPOINT:
        raise PacketError("the multipoint bit is set")
    if multiplier == 0:
        raise PacketError("its detection multiplier is 0")
    if mine == 0:
        raise PacketError("it names no discriminator of its own")
    state = State(flags >> 6)
    if yours == 0 and state not in (State.DOWN, State.ADMIN_DOWN):
        raise PacketError(f"it names no session of ours and claims to be {state.name}")
    section = _section(data[MANDATORY_LENGTH:length]) if flags & AUTHENTICATED else None
    return Packet(
        state=state,
        my_discriminator=mine,
        your_discriminator=yours,
        desired_min_tx_us=tx,
        required_min_rx_us=rx,
        detect_multiplier=multiplier,
        diagnostic=first & 0x1F,
        poll=bool(flags & _POLL),
        final=bool(flags & _FINAL),
        demand=bool(flags & _DEMAND),
        control_plane_independent=bool(flags & _CONTROL_INDEPENDENT),
        required_min_echo_rx_us=echo,
        section=section,
    )


def _section(data: bytes) -> Section:
    """Raises PacketError for one that does not fit where it is."""
    if len(data) < 2:
        raise PacketError("it claims to be authenticated and has no room for that")
    length = data[1]
    if not 2 <= length <= len(data):
        raise PacketError(f"the length of {length} of its authentication does not fit {len(data)} bytes")
    return Section(data[0], data[2] if length > 2 else None, data[3:length])
