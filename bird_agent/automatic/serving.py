"""Whether this node is a reflector, and the sessions that its reflector has.

Pure. A node that is chosen serves; one that is no longer chosen goes on until nobody has been its client for a while,
and stays meshed with all others until then. A reflector takes every member as its client, wherever that is; it connects
to those that should be its clients, so that neither end waits for the other, and lets others connect."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from ipaddress import IPv4Address

from msgspec import Struct
from msgspec.structs import replace

from bird_agent.automatic.decision import Shared
from bird_agent.bfd.wire import Watch
from bird_agent.bfd.wish import watch_of_reflector
from bird_agent.reflector.plan import ReflectorPlan, ReflectorSession
from bird_agent.session_config import (
    DEFAULT_PORT,
    DEFAULT_RESTART_TIME_S,
    REFLECTOR_HOLD_TIME_S,
    Password,
    SessionConfig,
    SessionKind,
)
from weft.model.address import IPAddress


class Tenure(Struct):
    """From being chosen until the last client has gone."""

    serving: bool = False
    _idle_since: float | None = None

    def on_tick(self, now: float, chosen: bool, clients: int, linger_s: float) -> bool:
        """Whether the node serves now."""
        if chosen:
            self.serving, self._idle_since = True, None
        elif self.serving:
            if clients:
                self._idle_since = None
            elif self._idle_since is None:
                self._idle_since = now
            if self._idle_since is not None and now - self._idle_since >= linger_s:
                self.serving = False
        return self.serving


class Member(Struct, frozen=True):
    """A node that may be a client: its BGP addresses and port."""

    name: str
    addresses: tuple[IPAddress, ...]
    port: int = DEFAULT_PORT


class Identity(Struct, frozen=True, kw_only=True):
    """What all sessions of the reflector have in common."""

    node: str
    asn: int
    addresses: tuple[IPAddress, ...]
    router_id: IPv4Address
    restart_time_s: int = DEFAULT_RESTART_TIME_S
    password: Password | None = None
    bfd: Watch | None = None


Addresses = Mapping[str, tuple[IPAddress, ...]]


def other_reflectors(node: str, shared: Shared, before: Addresses, holding: Set[IPAddress]) -> Addresses:
    """The reflectors that this one is meshed with, by node. One that is said to be gone stays as long as it answers:
    the news may be old, and it may be back. And as long as its routes are kept: a dead reflector's clients live, and
    it takes them a while to tell others. `holding`: the peers of which either is true."""
    kept = {name: addresses for name, addresses in before.items() if holding & frozenset(addresses)}
    said = {name: record.addresses for name, record in shared.serving.items() if name != node and record.up}
    return {**kept, **said}


def reflector_plan(identity: Identity, shared: Shared, members: Collection[Member], others: Addresses) -> ReflectorPlan:
    """What the reflector on this node should be. All reflectors of the fabric are clusters of their own: which one a
    client uses may differ, and a client that uses two must not lose routes to a cluster list."""
    sessions: dict[IPAddress, ReflectorSession] = {}
    local = {address.version: address for address in identity.addresses}
    for member in members:
        ours = identity.node in shared.plan.reflectors_for(member.name)
        for peer in member.addresses:
            if peer.version in local:
                config = _session(identity, local[peer.version], peer, f"Node/{member.name}", member.port)
                sessions[peer] = ReflectorSession(config, client=True, passive=not ours)
    nodes = {member.name: frozenset(member.addresses) for member in members}
    for name, addresses in others.items():
        for peer in addresses:
            if peer.version in local:
                config = _session(identity, local[peer.version], peer, f"Node/{name}")
                config = replace(config, dies_with=nodes.get(name, frozenset()))
                sessions[peer] = ReflectorSession(config, client=False)
    return ReflectorPlan(
        name=identity.node,
        asn=identity.asn,
        router_id=identity.router_id,
        cluster_id=identity.router_id,
        addresses=identity.addresses,
        restart_time_s=identity.restart_time_s,
        sessions=sessions,
    )


def meshed(identity: Identity, others: Addresses, settled: Set[IPAddress]) -> tuple[str, ...]:
    """The nodes with whose reflectors everything has been exchanged; `settled` are the peers of such sessions."""
    versions = {address.version for address in identity.addresses}
    found = []
    for name, addresses in others.items():
        ours = {each for each in addresses if each.version in versions}
        if ours and ours <= settled:
            found.append(name)
    return tuple(sorted(found))


def _session(
    identity: Identity, local: IPAddress, peer: IPAddress, resource: str, port: int = DEFAULT_PORT
) -> SessionConfig:
    return SessionConfig(
        peer=peer,
        peer_as=identity.asn,
        local=local,
        local_as=identity.asn,
        kind=SessionKind.REFLECTOR,
        resource=resource,
        port=port,
        hold_time_s=REFLECTOR_HOLD_TIME_S,
        restart_time_s=identity.restart_time_s,
        password=identity.password,
        bfd=watch_of_reflector(identity.bfd, own=resource == f"Node/{identity.node}"),
    )
