"""Policy as it is computed: rules whose selectors are resolved to sets, and their order at one endpoint.

These values hold everything a verdict depends on except the members of the sets. They know nothing of nft and
nothing of how the resources were written; `compile` makes them, `verdict` and the renderer read them."""

from collections.abc import Mapping
from enum import Enum

from msgspec import Struct

from weft.model.address import IPAddress, IPNetwork
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


class Stage(Enum):
    """Where at a host endpoint a policy is asked; workloads know NORMAL alone.

    FORWARD: what the node forwards in or out by the interface. PRE_DNAT: what comes in, before its destination is
    translated. UNTRACKED: before connection tracking, in both directions."""

    NORMAL = "normal"
    FORWARD = "forward"
    PRE_DNAT = "preDNAT"
    UNTRACKED = "untracked"


class SelectorSet(Struct, frozen=True, order=False):
    """The addresses of every endpoint and network set that a selector chooses.

    `id` is the same for the same canonical selector, so two rules that say the same share one set."""

    id: str
    selector: Selector


class PortSet(Struct, frozen=True, order=False):
    """Address, protocol and port of every port of this name of the endpoints that a selector chooses.

    `protocol` None: the named port's own, whatever it is."""

    id: str
    selector: Selector
    port: str
    protocol: int | None = None


class ServiceSet(Struct, frozen=True, order=False):
    """What the endpoint slices of a Kubernetes service hold: its addresses with their ports, or its addresses alone."""

    id: str
    namespace: str
    name: str
    with_ports: bool = True


AddressSet = SelectorSet | PortSet | ServiceSet


class AddressPort(Struct, frozen=True):
    """A member of a PortSet, and of a ServiceSet with ports. `protocol`: one that has ports."""

    address: IPAddress
    protocol: int
    port: int

    @property
    def version(self) -> int:
        return self.address.version


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

    nets: in one of them. ports and named_ports together: in one of either. sets: in all of them (a ServiceSet among
    them is one without ports). service: address, protocol and port are one of its. not_*: in none of them."""

    nets: tuple[IPNetwork, ...] = ()
    not_nets: tuple[IPNetwork, ...] = ()
    ports: tuple[PortRange, ...] = ()
    not_ports: tuple[PortRange, ...] = ()
    sets: tuple[SelectorSet | ServiceSet, ...] = ()
    not_sets: tuple[SelectorSet, ...] = ()
    named_ports: tuple[PortSet, ...] = ()
    not_named_ports: tuple[PortSet, ...] = ()
    service: ServiceSet | None = None

    def address_sets(self) -> tuple[AddressSet, ...]:
        """Every set it looks into."""
        found = (*self.sets, *self.not_sets, *self.named_ports, *self.not_named_ports)
        return (*found, self.service) if self.service is not None else found


ANY = Entity()


class Rule(Struct, frozen=True, kw_only=True):
    """One rule. Protocols are IANA numbers; None asks for nothing.

    `unenforced` says in words which of its matches are left out because we cannot enforce them. `id` names the rule
    within its policy and direction by what it says, so that it keeps its counters where others come and go."""

    action: Action
    id: str = ""
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

    def address_sets(self) -> tuple[AddressSet, ...]:
        return (*self.source.address_sets(), *self.destination.address_sets())


class Policy(Struct, frozen=True, kw_only=True):
    """The rules of a policy, staged or not, or of a Profile.

    `ingress` or `egress` None: the policy says nothing about that direction. An empty tuple does: it
    takes part in its tier, whose default action then applies."""

    key: ResourceKey
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None

    def rules(self, direction: Direction) -> tuple[Rule, ...] | None:
        return self.ingress if direction is Direction.INGRESS else self.egress

    def address_sets(self) -> dict[str, AddressSet]:
        """Every set its rules look into, by id."""
        rules = (*(self.ingress or ()), *(self.egress or ()))
        return {one.id: one for rule in rules for one in rule.address_sets()}

    def unenforced(self) -> tuple[str, ...]:
        """What of it is not enforced, in words, with the rule concerned."""
        found: list[str] = []
        for direction in Direction:
            for number, rule in enumerate(self.rules(direction) or ()):
                found += [f"{direction.value} rule {number}: {reason}" for reason in rule.unenforced]
        return tuple(found)


def is_staged(key: ResourceKey) -> bool:
    """A staged policy is evaluated and counted in its place; it decides nothing."""
    return key.kind.startswith("Staged")


class TierPolicies(Struct, frozen=True):
    """The policies of one tier that apply to an endpoint, staged ones among them, in the order in which they are
    asked."""

    name: str
    default_action: Action
    ingress: tuple[ResourceKey, ...] = ()
    egress: tuple[ResourceKey, ...] = ()

    def policies(self, direction: Direction) -> tuple[ResourceKey, ...]:
        return self.ingress if direction is Direction.INGRESS else self.egress

    def decides(self, direction: Direction) -> bool:
        """Whether its default action holds at its end: not where all its policies are staged."""
        return not all(is_staged(key) for key in self.policies(direction))


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


class HostPolicy(Struct, frozen=True):
    """What applies to a host endpoint, by stage. Only `normal` has profiles and denies what nothing allows.

    forward: where no policy is asked in a direction, or all tiers pass, everything passes. pre_dnat (ingress only),
    untracked: what no rule decides goes on to the next stage; the end of a tier decides nothing."""

    normal: EndpointPolicy = EndpointPolicy()
    forward: EndpointPolicy = EndpointPolicy()
    pre_dnat: EndpointPolicy = EndpointPolicy()
    untracked: EndpointPolicy = EndpointPolicy()

    def of(self, stage: Stage) -> EndpointPolicy:
        match stage:
            case Stage.NORMAL:
                return self.normal
            case Stage.FORWARD:
                return self.forward
            case Stage.PRE_DNAT:
                return self.pre_dnat
            case Stage.UNTRACKED:
                return self.untracked

    def asked(self) -> set[ResourceKey]:
        """Every policy and profile it names."""
        return set().union(*(self.of(stage).asked() for stage in Stage))


Policies = Mapping[ResourceKey, Policy]
