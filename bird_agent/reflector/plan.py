"""What a route reflector should be: its identity, and the sessions it should have.

Values only. They are made of resources elsewhere; the session loop and the RIB take them as they are."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address

from msgspec import Struct, field
from msgspec.structs import replace

from bird_agent.session_config import DEFAULT_PORT, DEFAULT_RESTART_TIME_S, Problem, SessionConfig, SessionKind
from weft.model.address import IPAddress, IPNetwork


class ReflectorSession(Struct, frozen=True):
    """One session. `client`: routes of other internal peers are reflected to it, and its own to all (RFC 4456 6); an
    internal peer that is none gets clients' and external routes. `passive`: the other end connects."""

    config: SessionConfig
    client: bool
    passive: bool = False

    @property
    def settings(self) -> ReflectorSession:
        """What of it a session that is up cannot change; the rest has one value for all."""
        config = replace(
            self.config,
            resource="",
            kind=SessionKind.MESH,
            next_hop_mode="Auto",
            allowed_own_as=0,
            gateway=None,
            filters=(),
            max_prefixes=None,
            bfd=None,
            client=False,
            dies_with=None,
        )
        return ReflectorSession(config, client=False, passive=self.passive)


class ReflectorPlan(Struct, frozen=True, kw_only=True):
    """A reflector. It listens on `addresses`, which need not be the node's; `sessions` are by peer address. `networks`
    are those it is on, as far as they are known: a peer there reaches the next hops there by itself."""

    name: str
    asn: int
    router_id: IPv4Address
    cluster_id: IPv4Address
    addresses: tuple[IPAddress, ...]
    port: int = DEFAULT_PORT
    restart_time_s: int = DEFAULT_RESTART_TIME_S
    networks: tuple[IPNetwork, ...] = ()
    sessions: Mapping[IPAddress, ReflectorSession] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def identity(self) -> tuple[int, IPv4Address, int]:
        """What every OPEN says."""
        return self.asn, self.router_id, self.restart_time_s
