"""What policy did to packets, as values: what a PolicyProvider returns and weftctl shows.

Only values and the port; how they travel is in services/policy.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from weft.model.address import IPAddress
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction


class Count(Struct, frozen=True):
    """Of connections' first packets: what belongs to a connection that is there is not asked again."""

    packets: int = 0
    bytes: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.packets + other.packets, self.bytes + other.bytes)


class RuleCount(Struct, frozen=True):
    """`index` is the rule's place in its policy and direction, `id` is `weft.policy.values.Rule.id`."""

    direction: Direction
    index: int
    id: str
    action: Action
    count: Count


class PolicyCount(Struct, frozen=True):
    """ingress, egress: all rules of the direction, and what changed or removed ones have counted."""

    policy: ResourceKey
    rules: tuple[RuleCount, ...]
    ingress: Count = Count()
    egress: Count = Count()

    def total(self, direction: Direction) -> Count:
        return self.ingress if direction is Direction.INGRESS else self.egress


class EndCount(Struct, frozen=True):
    """What no rule decided and the end of a tier denied; `tier` "": what nothing allowed."""

    direction: Direction
    tier: str
    count: Count


class Counters(Struct, frozen=True):
    policies: tuple[PolicyCount, ...] = ()
    ends: tuple[EndCount, ...] = ()


class Party(Struct, frozen=True):
    """One end of a flow. `namespace` and `name` "": no endpoint that this node knows has the address."""

    address: IPAddress
    port: int | None = None
    namespace: str = ""
    name: str = ""


class Flow(Struct, frozen=True):
    """What was decided about a connection's first packet, `packets` times between `first_s` and `last_s` (epoch).

    tier "": a profile, or the end of everything. policy None: the end of the tier, or of everything."""

    sequence: int
    first_s: float
    last_s: float
    packets: int
    action: Action
    direction: Direction
    interface: str
    source: Party
    destination: Party
    protocol: int
    icmp_type: int | None = None
    icmp_code: int | None = None
    tier: str = ""
    policy: ResourceKey | None = None
    rule: int | None = None
    rule_id: str = ""


class Flows(Struct, frozen=True):
    """`last` is the sequence of the last flow there is. `lost`: packets that were to be logged and were not."""

    flows: Sequence[Flow] = ()
    last: int = 0
    lost: int = 0


class PolicyProvider(Protocol):
    """What felix implements."""

    async def counters(self, policy: ResourceKey | None = None) -> Counters:
        """Of one policy (none if nothing here uses it), or of all and of the ends. Raises RefusedError where the
        kernel cannot be read."""
        ...

    def flows(self, after: int = 0) -> Flows:
        """Those in memory with a higher sequence."""
        ...
