"""Policy as it is computed: rules whose selectors are resolved to sets, and their order at one endpoint.

These values hold everything a verdict depends on except the members of the sets. They know nothing of nft and
nothing of how the resources were written; `compile` makes them, `verdict` and the renderer read them."""

from collections.abc import Mapping
from enum import Enum

from msgspec import Struct

from weft.model.address import IPNetwork
from weft.model.keys import ResourceKey
from weft.selector import Selector


class Action(Enum):
    ALLOW = "Allow"
    DENY = "Deny"
    PASS = "Pass"  # noqa: S105
    LOG = "Log"


class Direction(Enum):
    """Seen from the endpoint: INGRESS is towards it."""

    INGRESS = "ingress"
    EGRESS = "egress"


class SelectorSet(Struct, frozen=True, order=False):
    """The addresses of every endpoint and network set that a selector chooses.

    `id` is the same for the same canonical selector, so two rules that say the same share one set."""

    id: str
    selector: Selector


class PortRange(Struct, frozen=True, order=True):
    """Both ends included."""

    first: int
    last: int


class Icmp(Struct, frozen=True):
    """`type` None: every ICMP message; `code` None: every code of the type."""

    type: int | None = None
    code: int | None = None


class Entity(Struct, frozen=True):
    """What a rule asks of one end of a flow; every field that is not empty must hold.

    nets, ports: in one of them. sets: in all of them. not_*: in none of them."""

    nets: tuple[IPNetwork, ...] = ()
    not_nets: tuple[IPNetwork, ...] = ()
    ports: tuple[PortRange, ...] = ()
    not_ports: tuple[PortRange, ...] = ()
    sets: tuple[SelectorSet, ...] = ()
    not_sets: tuple[SelectorSet, ...] = ()


ANY = Entity()


class Rule(Struct, frozen=True, kw_only=True):
    """One rule. Protocols are IANA numbers; None asks for nothing.

    `unenforced` says in words which of its matches are left out because we cannot enforce them (yet)."""

    action: Action
    ip_version: int | None = None
    protocol: int | None = None
    not_protocol: int | None = None
    icmp: Icmp | None = None
    not_icmp: Icmp | None = None
    source: Entity = ANY
    destination: Entity = ANY
    unenforced: tuple[str, ...] = ()

    @property
    def effect(self) -> Action | None:
        """What the rule does to a flow that its matches choose; None: nothing.

        A rule of which a match is left out chooses too much, so it may only refuse: Allow and Log do
        nothing then, Pass denies (it might have skipped a Deny)."""
        if not self.unenforced:
            return self.action
        return Action.DENY if self.action in (Action.DENY, Action.PASS) else None

    def selector_sets(self) -> tuple[SelectorSet, ...]:
        ends = (self.source, self.destination)
        return tuple(one for end in ends for one in (*end.sets, *end.not_sets))


class Policy(Struct, frozen=True, kw_only=True):
    """The rules of a NetworkPolicy, a GlobalNetworkPolicy or a Profile.

    `ingress` or `egress` None: the policy says nothing about that direction. An empty tuple does: it
    takes part in its tier, whose default action then applies."""

    key: ResourceKey
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None

    def rules(self, direction: Direction) -> tuple[Rule, ...] | None:
        return self.ingress if direction is Direction.INGRESS else self.egress

    def selector_sets(self) -> dict[str, SelectorSet]:
        """Every set its rules look into, by id."""
        rules = (*(self.ingress or ()), *(self.egress or ()))
        return {one.id: one for rule in rules for one in rule.selector_sets()}

    def unenforced(self) -> tuple[str, ...]:
        """What of it is not enforced, in words, with the rule concerned."""
        found: list[str] = []
        for direction in Direction:
            for number, rule in enumerate(self.rules(direction) or ()):
                found += [f"{direction.value} rule {number}: {reason}" for reason in rule.unenforced]
        return tuple(found)


class TierPolicies(Struct, frozen=True):
    """The policies of one tier that apply to an endpoint, in the order in which they are asked."""

    name: str
    default_action: Action
    ingress: tuple[ResourceKey, ...] = ()
    egress: tuple[ResourceKey, ...] = ()

    def policies(self, direction: Direction) -> tuple[ResourceKey, ...]:
        return self.ingress if direction is Direction.INGRESS else self.egress


class EndpointPolicy(Struct, frozen=True):
    """What applies to one endpoint: tiers in order, then profiles; what nothing allows is denied.

    A tier without a policy for a direction has no say in it."""

    tiers: tuple[TierPolicies, ...] = ()
    profiles: tuple[ResourceKey, ...] = ()

    def tiers_of(self, direction: Direction) -> tuple[TierPolicies, ...]:
        return tuple(tier for tier in self.tiers if tier.policies(direction))

    def asked(self) -> set[ResourceKey]:
        """Every policy and profile it names."""
        return {*self.profiles, *(key for tier in self.tiers for key in (*tier.ingress, *tier.egress))}


Policies = Mapping[ResourceKey, Policy]
