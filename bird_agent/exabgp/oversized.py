"""Prefixes whose attributes leave them no room in a message are withdrawn.

ExaBGP 5.0.15 leaves such an announcement out, and so the peer keeps what it was told before: a route that is no more.
Whoever sends us a route chooses its attributes, and ours are longer by an AS number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from exabgp.bgp.message import Action, Message
from exabgp.bgp.message.update import UPDATE_ATTR_LENGTH_HEADER_SIZE, Update
from exabgp.bgp.message.update.attribute import MPURNLRI
from exabgp.logger import log

LONGEST_NATIVE: Final = 4 + 1 + 4  # path identifier, length, address
LONGEST_MULTIPROTOCOL: Final = 4 + 5 + 32 + 4 + 1 + 16  # headers, two next hops, and as above

_original_native: Callable[..., Iterator[bytes]] = Update._native_messages
_original_mp: Callable[..., Iterator[bytes]] = Update._mp_messages


def native_messages(
    self: Any, nlris: Any, attr: bytes, negotiated: Any, announce_size: int, withdraw_size: int, include_withdraw: bool
) -> Iterator[bytes]:
    """`Update._native_messages`."""
    if announce_size < LONGEST_NATIVE:
        nlris, unsaid = _parted(nlris)
        for packed in Update._packed_nlris(unsaid, negotiated, withdraw_size, "withdrawal"):
            yield self._message(Update.prefix(packed) + Update.prefix(b""))
    yield from _original_native(self, nlris, attr, negotiated, announce_size, withdraw_size, include_withdraw)


def mp_messages(
    self: Any, mp_nlris: Any, attr: bytes, negotiated: Any, msg_size: int, include_withdraw: bool
) -> Iterator[bytes]:
    """`Update._mp_messages`."""
    if msg_size < LONGEST_MULTIPROTOCOL:
        room = negotiated.msg_size - Message.HEADER_LEN - UPDATE_ATTR_LENGTH_HEADER_SIZE
        for (afi, safi), actions in mp_nlris.items():
            _, unsaid = _parted(actions.pop(Action.ANNOUNCE, []))
            for packed in MPURNLRI(afi, safi, unsaid).packed_attributes(negotiated, room):
                yield self._message(Update.prefix(b"") + Update.prefix(packed))
    yield from _original_mp(self, mp_nlris, attr, negotiated, msg_size, include_withdraw)


def _parted(nlris: Any) -> tuple[list[Any], list[Any]]:
    """Withdrawals, and announcements that are none."""
    unsaid = [nlri for nlri in nlris if nlri.action == Action.ANNOUNCE]
    if unsaid:
        log.critical(lambda: f"{len(unsaid)} prefixes withdrawn: too many attributes, first {unsaid[0]}", "parser")
    return [nlri for nlri in nlris if nlri.action != Action.ANNOUNCE], unsaid
