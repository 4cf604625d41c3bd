"""Prefixes that leave one after the other with the same attributes leave together.

ExaBGP 5.0.15 makes an UPDATE of each IPv6 prefix, and of every prefix that a peer asks for again (RFC 2918). Here those
of one family that follow one another with the same attributes are one `Update`, which its codec cuts into messages as
it does for IPv4. What is sent, and in which order, is not changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from exabgp.bgp.message.update import Update
from exabgp.protocol.family import SAFI
from exabgp.rib.outgoing import OutgoingRIB

_original_updates: Callable[[Any, bool], Iterator[Any]] = OutgoingRIB.updates


def updates(self: Any, grouped: bool) -> Iterator[Any]:
    """`OutgoingRIB.updates`."""
    waiting = None
    for update in _original_updates(self, grouped):
        if waiting is None:
            waiting = update
        elif grouped and _belong_together(waiting, update):
            waiting.nlris.extend(update.nlris)
        else:
            yield waiting
            waiting = update
    if waiting is not None:
        yield waiting


def _belong_together(one: Any, other: Any) -> bool:
    if not (type(one) is type(other) is Update) or one.attributes is not other.attributes:
        return False  # the marks of a refresh (RFC 7313) stay where they are
    first, second = one.nlris[0], other.nlris[0]
    return bool(first.afi == second.afi and first.safi == second.safi == SAFI.unicast)
