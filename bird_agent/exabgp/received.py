"""IPv4 prefixes that a peer sends pass through ExaBGP as the bytes they came in.

ExaBGP 5.0.15 makes an object of each prefix of an UPDATE, then a JSON object of that, and the agent has to undo both.
Here the attributes are read, judged and written by ExaBGP as ever; the prefixes are only checked, and go on in hex. An
UPDATE that is anything but plain (other families, path identifiers, errors that RFC 7606 has to deal with, prefixes
that cannot be read) is left to ExaBGP altogether."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exabgp.bgp.message.direction import Direction
from exabgp.bgp.message.update import Update
from exabgp.bgp.message.update.attribute import Attribute, Attributes
from exabgp.protocol.family import AFI, SAFI
from exabgp.reactor.api.response.json import JSON

_NOT_PLAIN = frozenset(
    {
        Attribute.CODE.MP_REACH_NLRI,
        Attribute.CODE.MP_UNREACH_NLRI,
        Attribute.CODE.INTERNAL_TREAT_AS_WITHDRAW,
        Attribute.CODE.INTERNAL_DISCARD,
    }
)
_original_unpack: Callable[..., Any] = Update.unpack_message
_original_json: Callable[..., Any] = JSON._update


class PackedUpdate(Update):  # type: ignore[misc]
    """An UPDATE whose prefixes nobody has looked at one by one: to everybody else in ExaBGP it has none."""

    def __init__(self, announced: bytes, withdrawn: bytes, attributes: Any) -> None:
        super().__init__((), attributes)
        self.announced = announced
        self.withdrawn = withdrawn


def unpack_message(data: bytes, direction: int, negotiated: Any) -> Any:
    """`Update.unpack_message`."""
    packed = _packed(data, negotiated) if direction == Direction.IN else None
    return _original_unpack(data, direction, negotiated) if packed is None else packed


def _packed(data: bytes, negotiated: Any) -> PackedUpdate | None:
    withdrawn, raw, announced = Update.split(data)
    if not (withdrawn or announced) or negotiated.addpath.receive(AFI.ipv4, SAFI.unicast):
        return None
    if not (_is_readable(withdrawn) and _is_readable(announced)):
        return None
    attributes = Attributes.unpack(raw, direction=Direction.IN, negotiated=negotiated)
    if not _NOT_PLAIN.isdisjoint(attributes) or (announced and Attribute.CODE.NEXT_HOP not in attributes):
        return None
    return PackedUpdate(announced, withdrawn, attributes)


def _is_readable(prefixes: bytes) -> bool:
    position, size = 0, len(prefixes)
    while position < size:
        bits = prefixes[position]
        if bits > 32:
            return False
        position += 1 + (bits + 7 >> 3)
    return position == size


def update_as_json(self: Any, update: Any) -> Any:
    """`JSON._update`: what is between the braces of `neighbor`."""
    if not isinstance(update, PackedUpdate):
        return _original_json(self, update)
    packed = []
    if update.announced:
        next_hop = update.attributes[Attribute.CODE.NEXT_HOP]
        packed.append(f'"next-hop": "{next_hop}", "announced": "{update.announced.hex()}"')
    if update.withdrawn:
        packed.append(f'"withdrawn": "{update.withdrawn.hex()}"')
    attributes = f'"attribute": {{ {update.attributes.json()} }}, ' if update.attributes else ""
    return {"message": self._json(f'{{ "update": {{ {attributes}"packed": {{ {", ".join(packed)} }} }} }}')}
