"""What an agent knows of its node, as values: what a StatusProvider returns and weftctl shows.

Only values and the port; how they travel is in services/status.py, how they look in weft.ctl."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from msgspec import Struct

from weft.model.address import IPAddress, IPNetwork


class SessionType(Enum):
    """Why a BGP session exists; the text is what calicoctl prints."""

    NODE_TO_NODE_MESH = "node-to-node mesh"
    NODE_SPECIFIC = "node specific"
    GLOBAL = "global"


class RouteOrigin(Enum):
    BGP = "bgp"
    WORKLOAD = "workload"
    BLOCK = "block"


class Severity(Enum):
    """NOT_ENFORCED: the administrator asked for something that has no effect."""

    INFO = "info"
    WARNING = "warning"
    NOT_ENFORCED = "not enforced"


class AgentStatus(Struct, frozen=True):
    """`name` is "felix", "bird-agent" or "node"; times are seconds since the epoch."""

    name: str
    version: str
    pid: int
    started_at_s: float
    datastore_connected: bool
    in_sync: bool
    datastore_error: str = ""


class SessionStatus(Struct, frozen=True):
    """One BGP session. `state` is RFC 4271's name ("Established"); `since_s` 0 if it never changed."""

    peer_ip: IPAddress
    peer_as: int
    local_as: int
    type: SessionType
    state: str
    since_s: float = 0.0
    last_error: str = ""
    resource: str = ""
    routes_received: int = 0
    routes_announced: int = 0
    restarting: bool = False

    @property
    def established(self) -> bool:
        return self.state == "Established"


class NextHop(Struct, frozen=True):
    """`gateway` None: directly connected; an empty interface: none (a blackhole)."""

    gateway: IPAddress | None
    interface: str


class RouteStatus(Struct, frozen=True):
    destination: IPNetwork
    next_hops: tuple[NextHop, ...]
    origin: RouteOrigin
    peers: tuple[str, ...] = ()
    as_path: str = ""
    installed: bool = True


class EndpointStatus(Struct, frozen=True):
    """`state` is "up", "down", "pending" or "error"; `detail` says why. A host endpoint has neither namespace nor
    workload; its interface is "*" where it is for all that have none of their own."""

    namespace: str
    name: str
    workload: str
    interface: str
    addresses: tuple[IPAddress, ...]
    policies: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    state: str = "up"
    detail: str = ""


class Notice(Struct, frozen=True):
    """`subject` names a resource as "IPPool/name"."""

    severity: Severity
    subject: str
    text: str


class NodeStatus(Struct, frozen=True):
    """One agent's part. An agent leaves empty what another one knows."""

    node: str
    agent: AgentStatus
    sessions: tuple[SessionStatus, ...] = ()
    routes: tuple[RouteStatus, ...] = ()
    endpoints: tuple[EndpointStatus, ...] = ()
    notices: tuple[Notice, ...] = ()


class StatusProvider(Protocol):
    """What an agent implements: answer from memory, at once, on the event loop."""

    def node_status(self) -> NodeStatus: ...
