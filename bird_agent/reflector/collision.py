"""Which of two connections of one peer stays, and who closes the other (RFC 4271 6.8, RFC 6286 2.3).

The one stays that the side with the higher router id has begun; with equal router ids, the higher AS number. When to
close the other is where both can be lost: each side may close what the other has just confirmed. Therefore:
* The side whose connection would stay decides at the first OPEN it accepts, on either. If its own connection is there
  by then, the peer's goes; if not, it gives up its call, and the peer's stays after all.
* The other side waits for an OPEN on each connection: the peer has sent two only if its own stays. Until then the peer
  may have given it up, and when it is up on its own connection it leaves the peer's to the peer.

An established session is not given up for a connection that merely exists, nor for its OPEN, but for its KEEPALIVE:
that the peer sends only when it has chosen this connection, because it has forgotten the other. So a peer that was
restarted is back at once (RFC 4724 5), and a connection that was under way when the first was confirmed costs nothing.
"""

from __future__ import annotations

from bird_agent.reflector.fsm import State
from bird_agent.reflector.legs import Leg
from bird_agent.reflector.negotiation import OpenMessage


def ours_stays(ours: OpenMessage, theirs: OpenMessage) -> bool:
    """Whether, of two, the connection that we began stays."""
    return (ours.router_id, ours.asn) > (theirs.router_id, theirs.asn)


def loser(opened: Leg, other: Leg) -> Leg | None:
    """Which one is to be closed now that an OPEN has come on `opened`, if one is."""
    if other.state is State.ESTABLISHED or other.incoming == opened.incoming:
        return None
    if opened.ours_stays:
        return opened if opened.incoming else other
    if other.state is State.OPEN_CONFIRM:
        return other if opened.incoming else opened
    return None


def is_the_peers_to_close(other: Leg, up: Leg) -> bool:
    """`up` has been established, and `other` is one of which the peer has yet to decide."""
    return other.incoming and not up.incoming and not up.ours_stays
