"""Policy resources: Tier, NetworkPolicy, GlobalNetworkPolicy, Profile, and the network sets rules select.

Selectors stay text here (Calico stores them as written); `weft.selector.parse` gives their meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, Literal

import msgspec

from weft.model.address import IPNetwork, MaskedNetwork
from weft.model.base import Metadata, Resource, Value, written
from weft.model.errors import FieldError
from weft.model.values import Number, Port, Protocol

Action = Literal["Allow", "Deny", "Log", "Pass"]
PolicyType = Literal["Ingress", "Egress"]
PerformanceHint = Literal["AssumeNeededOnEveryNode"]

DEFAULT_TIER: Final = "default"
KUBE_ADMIN_TIER: Final = "kube-admin"
KUBE_BASELINE_TIER: Final = "kube-baseline"
TIER_ORDERS: Final[Mapping[str, float]] = {
    KUBE_ADMIN_TIER: 1_000.0,
    DEFAULT_TIER: 1_000_000.0,
    KUBE_BASELINE_TIER: 10_000_000.0,
}


class IcmpFields(Value, frozen=True, kw_only=True):
    """An ICMP type, and a code of it."""

    type: int | None = None
    code: int | None = None

    def __post_init__(self) -> None:
        if self.type is not None and not 0 <= self.type <= 254:
            raise FieldError("type", self.type, "an ICMP type from 0 to 254")
        if self.code is not None and not 0 <= self.code <= 255:
            raise FieldError("code", self.code, "an ICMP code from 0 to 255")
        if self.code is not None and self.type is None:
            raise FieldError("code", self.code, "a code only together with a type")


class HttpPath(Value, frozen=True, kw_only=True):
    exact: str = ""
    prefix: str = ""


class HttpMatch(Value, frozen=True, kw_only=True):
    """Methods and paths of application layer policy; only on Allow rules of ingress."""

    methods: tuple[str, ...] = ()
    paths: tuple[HttpPath, ...] = ()


class RuleMetadata(Value, frozen=True, kw_only=True):
    annotations: Mapping[str, str] = msgspec.field(default_factory=dict)


class ServiceMatch(Value, frozen=True, kw_only=True):
    name: str = ""
    namespace: str = ""


class ServiceAccountMatch(Value, frozen=True, kw_only=True):
    names: tuple[str, ...] = ()
    selector: str = ""


class EntityRule(Value, frozen=True, kw_only=True):
    """One side of a rule: everything given must match; nothing given matches everything."""

    nets: tuple[IPNetwork, ...] = ()
    selector: str = ""
    namespace_selector: str = ""
    services: ServiceMatch | None = None
    ports: tuple[Port, ...] = ()
    not_nets: tuple[IPNetwork, ...] = ()
    not_selector: str = ""
    not_ports: tuple[Port, ...] = ()
    service_accounts: ServiceAccountMatch | None = None


ANY_ENTITY: Final = EntityRule()


class Rule(Value, frozen=True, kw_only=True):
    """What to do with a packet that matches everything given."""

    action: Action
    ip_version: Literal[4, 6] | None = None
    protocol: Protocol | None = None
    icmp: IcmpFields | None = None
    not_protocol: Protocol | None = None
    not_icmp: IcmpFields | None = None
    source: EntityRule = ANY_ENTITY
    destination: EntityRule = ANY_ENTITY
    http: HttpMatch | None = None
    metadata: RuleMetadata | None = None


class NetworkPolicySpec(Value, frozen=True, kw_only=True):
    """`order` None sorts after every number. `types` empty means: see `weft.model.defaults.policy_types`."""

    tier: str = written(DEFAULT_TIER)
    order: Number | None = None
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    selector: str = ""
    types: tuple[PolicyType, ...] = ()
    service_account_selector: str = ""
    performance_hints: tuple[PerformanceHint, ...] = ()


class NetworkPolicy(Resource, frozen=True, kw_only=True):
    """Applies to endpoints of its namespace."""

    kind: ClassVar[str] = "NetworkPolicy"
    spec: NetworkPolicySpec = NetworkPolicySpec()


class GlobalNetworkPolicySpec(Value, frozen=True, kw_only=True):
    """As NetworkPolicySpec, and what only host endpoints know."""

    tier: str = written(DEFAULT_TIER)
    order: Number | None = None
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    selector: str = ""
    types: tuple[PolicyType, ...] = ()
    do_not_track: bool = False
    pre_dnat: bool = False
    apply_on_forward: bool = False
    service_account_selector: str = ""
    namespace_selector: str = ""
    performance_hints: tuple[PerformanceHint, ...] = ()


class GlobalNetworkPolicy(Resource, frozen=True, kw_only=True):
    """Applies to endpoints of every namespace, and to host endpoints."""

    kind: ClassVar[str] = "GlobalNetworkPolicy"
    spec: GlobalNetworkPolicySpec = GlobalNetworkPolicySpec()


class TierSpec(Value, frozen=True, kw_only=True):
    """`order` None sorts after every number; `default_action` is for endpoints a tier's policy selects."""

    order: Number | None = None
    default_action: Literal["Deny", "Pass"] = written("Deny")


class Tier(Resource, frozen=True, kw_only=True):
    kind: ClassVar[str] = "Tier"
    spec: TierSpec = TierSpec()


class ProfileSpec(Value, frozen=True, kw_only=True):
    """Rules for endpoints that no policy selects, and labels for every endpoint that names the profile."""

    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    labels_to_apply: Mapping[str, str] = msgspec.field(default_factory=dict)


class Profile(Resource, frozen=True, kw_only=True):
    kind: ClassVar[str] = "Profile"
    spec: ProfileSpec = ProfileSpec()


# Calico has this one without storing it, and neither may it be stored.
DEFAULT_ALLOW_PROFILE: Final = Profile(
    metadata=Metadata(name="projectcalico-default-allow"),
    spec=ProfileSpec(ingress=(Rule(action="Allow"),), egress=(Rule(action="Allow"),)),
)


class NetworkSetSpec(Value, frozen=True, kw_only=True):
    """Prefixes that selectors find by the set's labels; host bits are masked off, as Calico does."""

    nets: tuple[MaskedNetwork, ...] = ()


class NetworkSet(Resource, frozen=True, kw_only=True):
    kind: ClassVar[str] = "NetworkSet"
    spec: NetworkSetSpec = NetworkSetSpec()


class GlobalNetworkSet(Resource, frozen=True, kw_only=True):
    kind: ClassVar[str] = "GlobalNetworkSet"
    spec: NetworkSetSpec = NetworkSetSpec()


Policy = NetworkPolicy | GlobalNetworkPolicy
