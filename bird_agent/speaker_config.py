"""A planned session as the speaker has to be told of it. Pure."""

from __future__ import annotations

from bird_agent.exabgp.configuration import Neighbor
from bird_agent.session_config import DEFAULT_PORT, Peering, SessionConfig


def neighbor_of(peering: Peering, session: SessionConfig) -> Neighbor:
    return Neighbor(
        peer=session.peer,
        local=session.local,
        router_id=peering.router_id,
        local_as=session.local_as,
        peer_as=session.peer_as,
        hold_time_s=session.hold_time_s,
        restart_time_s=session.restart_time_s,
        password=None if session.password is None else session.password.text,
        port=None if session.port == DEFAULT_PORT else session.port,
        ttl_security_hops=session.ttl_security_hops,
        passive=session.passive,
        versions=session.versions,
    )
