"""TCP sockets as BGP wants them: source address, TTL security (RFC 5082), MD5 signatures (RFC 2385).

Everything that is a number of linux/in.h, in6.h or tcp.h is here. It decides nothing."""

from __future__ import annotations

import socket
import struct
from typing import Final

from bird_agent.session_config import Password, SessionConfig
from weft.model.address import IPAddress

FULL_TTL: Final = 255
_NETWORK_CONTROL: Final = 0xC0
_BACKLOG: Final = 4096
_IP_MINTTL: Final = 21
_IP_FREEBIND: Final = 15
_IP_BIND_ADDRESS_NO_PORT: Final = 24
_IPV6_MINHOPCOUNT: Final = 73
_IPV6_FREEBIND: Final = 78
_TCP_MD5SIG: Final = 14
_TCP_NOTSENT_LOWAT: Final = 25
_NOT_SENT_BYTES: Final = 1 << 17
"""More waits with us, where a prefix that changes again replaces what is out of date."""
LONGEST_PASSWORD: Final = 80
_MD5SIG: Final = struct.Struct("@128sBBHi80s")


def family_of(address: IPAddress) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def listener(address: IPAddress, port: int) -> socket.socket:
    """Also on an address that the machine does not have yet. Raises OSError."""
    made = socket.socket(family_of(address), socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # the node's speaker listens on all addresses
        _free_bind(made)
        made.bind((str(address), port))
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def dialer(config: SessionConfig) -> socket.socket:
    """A socket that has begun to connect. Raises OSError where that cannot be."""
    made = socket.socket(family_of(config.peer), socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        if config.password is not None:
            set_password(made, config.peer, config.password)
        prepare(made, config)
        if config.peer.version == 4:
            made.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        made.bind((str(config.local), 0))
        try:
            made.connect((str(config.peer), config.port))
        except BlockingIOError:
            pass  # under way: it is writable when it is decided
    except OSError:
        made.close()
        raise
    return made


def prepare(connection: socket.socket, config: SessionConfig) -> None:
    """What holds for connections of this session whoever began them."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _NOT_SENT_BYTES)
    hops = config.ttl_security_hops
    if config.peer.version == 4:
        connection.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _NETWORK_CONTROL)
        if hops is not None:
            connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, FULL_TTL)
            connection.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, FULL_TTL + 1 - hops)
    else:
        connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _NETWORK_CONTROL)
        if hops is not None:
            connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, FULL_TTL)
            connection.setsockopt(socket.IPPROTO_IPV6, _IPV6_MINHOPCOUNT, FULL_TTL + 1 - hops)


def set_password(of: socket.socket, peer: IPAddress, password: Password | None) -> None:
    """Segments from and to this peer are signed; None: no longer. Raises OSError, and ValueError for a long one."""
    key = b"" if password is None else password.text.encode()
    if len(key) > LONGEST_PASSWORD:
        raise ValueError(f"a password of {len(key)} bytes; TCP MD5 takes {LONGEST_PASSWORD} at most")
    if peer.version == 4:
        address = struct.pack("=HH4s", socket.AF_INET, 0, peer.packed)
    else:
        address = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, peer.packed, 0)
    of.setsockopt(socket.IPPROTO_TCP, _TCP_MD5SIG, _MD5SIG.pack(address, 0, 0, len(key), 0, key))


def _free_bind(made: socket.socket) -> None:
    if made.family == socket.AF_INET:
        made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    else:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
