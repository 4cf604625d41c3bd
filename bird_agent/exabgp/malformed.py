"""Attributes that ExaBGP 5.0.15 takes although they are malformed (RFC 7606 7.1, RFC 4271 6.3).

Of an ORIGIN of two octets it reads the first, and a well-known attribute that it does not know it takes for an optional
one. Such a route is as good as withdrawn; for the second error RFC 4271 6.3 would end the session, and with it every
other route of a peer that is wrong about one, which is why it is treated here as weft-reflector does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exabgp.bgp.message.update.attribute import Attribute, Attributes
from exabgp.bgp.message.update.attribute.attributes import TreatAsWithdraw

_original_parse_one: Callable[..., Any] = Attributes._parse_one


def parse_one(self: Any, data: bytes, direction: int, negotiated: Any) -> Any:
    """`Attributes._parse_one`: what is left after the first attribute; None to stop."""
    again = len(data) > 1 and data[1] in self  # of an attribute that comes twice the first counts (RFC 7606 3 g)
    left = _original_parse_one(self, data, direction, negotiated)
    if left is not None and not again and _is_malformed(data, left):
        self.add(TreatAsWithdraw())
    return left


def _is_malformed(data: bytes, left: bytes) -> bool:
    flags, code = data[0], data[1]
    if code == Attribute.CODE.ORIGIN:
        header = 4 if flags & Attribute.Flag.EXTENDED_LENGTH else 3
        return len(data) - len(left) != header + 1
    return not flags & Attribute.Flag.OPTIONAL and code not in Attribute.attributes_known
