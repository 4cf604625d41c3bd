"""CalicoNodeStatus: what an administrator wants to be told of a node's BGP, and what its agent says."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Final, Literal

from weft.model.base import Resource, Value, written
from weft.model.errors import FieldError

StatusClass = Literal["Agent", "BGP", "Routes"]
DaemonState = Literal["Ready", "NotReady"]
PeerType = Literal["NodeMesh", "NodePeer", "GlobalPeer"]
SessionState = Literal["Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established", "Close"]
RouteType = Literal["FIB", "RIB"]
SourceType = Literal["Kernel", "Static", "Direct", "NodeMesh", "BGPPeer"]

MAX_PERIOD_S: Final = 86_400


class CalicoNodeStatusSpec(Value, frozen=True, kw_only=True):
    """`update_period_seconds` 0: once for every change of the spec, not periodically."""

    node: str
    classes: tuple[StatusClass, ...]
    update_period_seconds: int = written(0)

    def __post_init__(self) -> None:
        if not self.node:
            raise FieldError("node", self.node, "the name of a node")
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise FieldError("classes", list(self.classes), "one or more of Agent, BGP and Routes, each once")
        if not 0 <= self.update_period_seconds <= MAX_PERIOD_S:
            raise FieldError("updatePeriodSeconds", self.update_period_seconds, f"0 to {MAX_PERIOD_S}")


class BGPDaemonStatus(Value, frozen=True, kw_only=True):
    """Times are local, as BIRD prints them: 2026-11-19 20:10:56."""

    state: DaemonState | None = None
    version: str = ""
    router_id: str = ""
    last_boot_time: str = ""
    last_reconfiguration_time: str = ""


class CalicoNodeAgentStatus(Value, frozen=True, kw_only=True):
    bird_v4: BGPDaemonStatus = BGPDaemonStatus()
    bird_v6: BGPDaemonStatus = BGPDaemonStatus()


class CalicoNodePeer(Value, frozen=True, kw_only=True):
    peer_ip: str = ""
    type: PeerType | None = None
    state: SessionState | None = None
    since: str = ""


class CalicoNodeBGPStatus(Value, frozen=True, kw_only=True):
    number_established_v4: int = written(0)
    number_not_established_v4: int = written(0)
    number_established_v6: int = written(0)
    number_not_established_v6: int = written(0)
    peers_v4: tuple[CalicoNodePeer, ...] = ()
    peers_v6: tuple[CalicoNodePeer, ...] = ()


class CalicoNodeRouteLearnedFrom(Value, frozen=True, kw_only=True):
    """`peer_ip` for what a BGP peer said."""

    source_type: SourceType | None = None
    peer_ip: str = ""


class CalicoNodeRoute(Value, frozen=True, kw_only=True):
    """`gateway` is "N/A" where there is none; `interface` may be "blackhole"."""

    type: RouteType | None = None
    destination: str = ""
    gateway: str = ""
    interface: str = ""
    learned_from: CalicoNodeRouteLearnedFrom = CalicoNodeRouteLearnedFrom()


class CalicoNodeBGPRouteStatus(Value, frozen=True, kw_only=True):
    routes_v4: tuple[CalicoNodeRoute, ...] = ()
    routes_v6: tuple[CalicoNodeRoute, ...] = ()


class CalicoNodeStatusStatus(Value, frozen=True, kw_only=True):
    """What was not asked for is empty. `last_updated`: when something had changed."""

    last_updated: datetime | None = None
    agent: CalicoNodeAgentStatus = written(CalicoNodeAgentStatus())
    bgp: CalicoNodeBGPStatus = written(CalicoNodeBGPStatus())
    routes: CalicoNodeBGPRouteStatus = written(CalicoNodeBGPRouteStatus())


class CalicoNodeStatus(Resource, frozen=True, kw_only=True):
    """A wish to be told of a node; `status` is what its agent writes, never a manifest."""

    kind: ClassVar[str] = "CalicoNodeStatus"
    spec: CalicoNodeStatusSpec
    status: CalicoNodeStatusStatus = written(CalicoNodeStatusStatus())
