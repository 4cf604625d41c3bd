"""TTL security (RFC 5082) for the connections that a peer opens.

ExaBGP 5.0.15 sets both TTLs on connections of its own. Of one that it accepts it sets what is sent, but only once it
has accepted, and never checks what arrives: the SYN-ACK leaves with a TTL of 64, which a peer that checks throws away,
and the session of a peer that does not check is open to everybody. Here a listening socket answers with 255, and a
neighbour's minimum holds for what it opens, too: for the SYN, because data behind it may have come before the
connection is accepted, and for everything later."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from exabgp.protocol.family import AFI
from exabgp.reactor.listener import Listener
from exabgp.reactor.loop import Reactor
from exabgp.reactor.network.tcp import sending_ttl, set_minimum_ttl

HIGHEST = 255
DEFAULT = -1  # the namespace's own: ip(7), ipv6(7)
TCP_SAVE_SYN, TCP_SAVED_SYN = 27, 28  # <linux/tcp.h>
HEADERS = 256
TTL_AT = {AFI.ipv4: 8, AFI.ipv6: 7}  # in the IP header

_original_new_socket: Callable[..., socket.socket] = Listener._new_socket
_original_handle_connection: Callable[..., Any] = Reactor.handle_connection


def new_socket(self: Any, ip: Any) -> socket.socket:
    """`Listener._new_socket`, whose answers have come over no hop."""
    made = _original_new_socket(self, ip)
    _set_ttl(made, ip.afi, HIGHEST)
    made.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, 1)
    return made


def handle_connection(self: Any, peer_name: str, connection: Any) -> Any:
    """`Reactor.handle_connection` of a connection that keeps to its neighbour's TTLs; one that began with less is
    closed without a word."""
    neighbor, opened = self.neighbor(peer_name), connection.io
    minimum = neighbor["incoming-ttl"]
    if minimum:
        syn = opened.getsockopt(socket.IPPROTO_TCP, TCP_SAVED_SYN, HEADERS)
        if syn[TTL_AT[connection.afi]] < minimum:
            connection.close()
            return None
        set_minimum_ttl(opened, connection.afi, connection.peer, minimum)
    elif sending_ttl(neighbor["outgoing-ttl"], minimum) is None:
        _set_ttl(opened, connection.afi, DEFAULT)  # not the listening socket's
    return _original_handle_connection(self, peer_name, connection)


def _set_ttl(of: socket.socket, afi: Any, ttl: int) -> None:
    if afi == AFI.ipv6:
        of.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, ttl)
    else:
        of.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
