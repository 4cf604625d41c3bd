"""Which of two connections of one peer stays (RFC 4271 6.8, RFC 6286 2.3).

The one that the side with the higher router id has begun; with equal router ids, the higher AS number. Both sides
know both connections and both OPENs, so both close the same one. It is decided as soon as one OPEN has come while
both connections are there: waiting for the second could let each side confirm another.

An established session is not given up for a connection that merely exists, nor for its OPEN, but for its KEEPALIVE:
that the peer sends only when it has chosen this connection, because it has forgotten the other. So a peer that was
restarted is back at once (RFC 4724 5), and a connection that was under way when the first was confirmed costs nothing.
"""

from __future__ import annotations

from ipaddress import IPv4Address


def ours_stays(router_id: IPv4Address, asn: int, peer_router_id: IPv4Address, peer_asn: int) -> bool:
    """Whether the connection that we began stays, and the one that the peer began goes."""
    return (router_id, asn) > (peer_router_id, peer_asn)
