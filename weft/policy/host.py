"""The verdict of a flow at a host endpoint: its stages in the order in which a packet meets them.

Calico's rules, restated (felix/rules/endpoints.go, static.go): what a stage allows no later stage is asked about; what
the stages before connection tracking and before DNAT do not decide goes on; failsafe ports are exempt from all of them
but FORWARD, which speaks about what is not the node's own."""

from collections.abc import Iterable
from enum import Enum
from typing import Protocol

from msgspec import Struct

from weft.model.address import IPNetwork
from weft.policy.matching import Flow, Membership
from weft.policy.values import Direction, HostPolicy, Policies, Stage
from weft.policy.verdict import Verdict, course, follow


class Path(Enum):
    """LOCAL: to or from the node itself. FORWARDED: through it."""

    LOCAL = "local"
    FORWARDED = "forwarded"


STAGES = {
    (Direction.INGRESS, Path.LOCAL): (Stage.UNTRACKED, Stage.PRE_DNAT, Stage.NORMAL),
    (Direction.INGRESS, Path.FORWARDED): (Stage.UNTRACKED, Stage.PRE_DNAT, Stage.FORWARD),
    (Direction.EGRESS, Path.LOCAL): (Stage.UNTRACKED, Stage.NORMAL),
    (Direction.EGRESS, Path.FORWARDED): (Stage.FORWARD,),
}


class FailsafePort(Protocol):
    """A port of the node (ingress) or of its peer (egress) that no policy can close; `net`: only with these peers."""

    @property
    def protocol(self) -> int: ...

    @property
    def port(self) -> int: ...

    @property
    def net(self) -> IPNetwork | None: ...


class HostVerdict(Struct, frozen=True):
    """`stage` is the one that decided. `verdict` None: a failsafe port, which allows in every stage that it is in."""

    allowed: bool
    stage: Stage
    verdict: Verdict | None = None


class Interface(Struct, frozen=True):
    """What applies at a host endpoint, with the failsafe ports of the direction in which it is asked."""

    policy: HostPolicy
    failsafes: tuple[FailsafePort, ...] = ()


def host_verdict(
    at: Interface, policies: Policies, members: Membership, flow: Flow, direction: Direction, path: Path
) -> HostVerdict:
    """`flow` as it is on the wire of this interface; at PRE_DNAT its destination is the one before translation."""
    stages = STAGES[direction, path]
    exempt = is_failsafe(at.failsafes, flow, direction)
    for stage in stages:
        if exempt and stage is not Stage.FORWARD:
            continue
        found = follow(course(at.policy.of(stage), policies, direction, stage), flow, members)
        if found is not None:
            return HostVerdict(found.allowed, stage, found)
    return HostVerdict(True, stages[-1])


def is_failsafe(failsafes: Iterable[FailsafePort], flow: Flow, direction: Direction) -> bool:
    """The port is always the destination's; the peer is the source of what comes in."""
    peer = flow.source if direction is Direction.INGRESS else flow.destination
    return any(
        one.protocol == flow.protocol and one.port == flow.destination_port and (one.net is None or peer in one.net)
        for one in failsafes
    )
