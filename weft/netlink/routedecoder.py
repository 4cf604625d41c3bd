"""Decode many routes that differ in little but their destination, as when thousands of workloads come and go.

What is not the destination is decoded once and remembered by its bytes. The result is `decode_route`'s."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from weft.netlink.message import Message
from weft.netlink.route import IPNetwork, PackedPrefix, Route, decode_route, unpack

_MOST_KNOWN: Final = 4096


class RouteDecoder:
    """See the module. Kept for as long as somebody follows the kernel's routes."""

    def __init__(self, make: Callable[[PackedPrefix], IPNetwork] = unpack) -> None:
        """`make` gives destinations their form."""
        self._make = make
        self._known: dict[bytes, Route] = {}

    def decode(self, answer: Message) -> Route | None:
        """As `decode_route`. Raises MalformedMessageError."""
        payload = answer.payload
        # RTA_TABLE comes first, RTA_DST second (fib_dump_info, rt6_fill_node).
        if payload[20:24] == b"\x08\x00\x01\x00" and len(payload) >= 28:
            packed, rest = payload[24:28] + payload[1:2], payload[:1] + payload[2:20] + payload[28:]
        elif payload[20:24] == b"\x14\x00\x01\x00" and len(payload) >= 40:
            packed, rest = payload[24:40] + payload[1:2], payload[:1] + payload[2:20] + payload[40:]
        else:
            return decode_route(answer)
        known = self._known.get(rest)
        if known is None or packed[-1] > (len(packed) - 1) * 8:
            route = decode_route(answer)
            if route is not None:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[rest] = route
            return route
        return Route(self._make(packed), known.target, known.protocol, known.metric, known.table)
