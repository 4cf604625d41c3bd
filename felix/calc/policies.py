"""Which policies and profiles local endpoints use, and in which order each endpoint asks them.

Policies that no local endpoint uses cost their selector's place in the index and nothing else: their rules are
not compiled. It does not know interfaces, addresses or the members of sets."""

from collections.abc import Callable

from msgspec import Struct

from felix.calc.ip_sets import IPSets
from felix.calc.label_index import LabelIndex, Labels
from felix.calc.output import Output
from weft.model.keys import ResourceKey
from weft.model.policy import Profile, Tier
from weft.policy.compile import PolicyResource, compile_policy, is_evaluated, policy_order
from weft.policy.order import BUILT_IN_TIERS, PolicyOrder, TierOrder, order_host_policies, order_policies
from weft.policy.profiles import profile_key, profile_not_stored, usable_profiles
from weft.policy.selectors import policy_selector
from weft.policy.values import Action, EndpointPolicy, HostPolicy, Policy, Stage
from weft.selector import Selector, SelectorError, conjunction
from weft.selector.nodes import Has

_NO_LABELS: Labels = {}
_HOST_ENDPOINT = "host endpoint"
"""A label that local host endpoints have here. No selector can name it: it has a space. What is for host endpoints
alone is filed under it, and costs nothing where there are none."""


class _Known(Struct, frozen=True):
    """`unreadable`: why its selector cannot be read; such a policy chooses no endpoint."""

    resource: PolicyResource
    order: PolicyOrder
    unreadable: str = ""


class Policies:
    """`on_endpoint(key)` is called when the order of an endpoint's policies may have changed."""

    def __init__(self, sets: IPSets, on_endpoint: Callable[[ResourceKey], None]) -> None:
        self._sets = sets
        self._on_endpoint = on_endpoint
        self._index: LabelIndex[ResourceKey, ResourceKey] = LabelIndex(self._on_match)
        self._known: dict[ResourceKey, _Known] = {}
        self._tiers: dict[str, TierOrder] = {}
        self._in_tier: dict[str, dict[ResourceKey, None]] = {}
        self._profiles: dict[ResourceKey, Profile] = {}
        self._profile_users: dict[ResourceKey, set[ResourceKey]] = {}
        self._endpoint_profiles: dict[ResourceKey, tuple[ResourceKey, ...]] = {}
        self._compiled: dict[ResourceKey, tuple[object, Policy]] = {}
        self._using: dict[ResourceKey, tuple[str, ...]] = {}
        self._output: Output[ResourceKey, Policy] = Output(self._compute)
        self._problems: Output[ResourceKey, tuple[str, ...]] = Output(self._compute_problems)

    # --- input --------------------------------------------------------------------------------------------------

    def set_policy(self, key: ResourceKey, resource: PolicyResource | None) -> None:
        before = self._known.pop(key, None)
        if before is not None:
            self._leave_tier(before.order)
        self._output.touch(key)
        self._problems.touch(key)
        if resource is None or not is_evaluated(resource):
            self._index.remove_selector(key)
            return
        order = policy_order(key, resource)
        unreadable = self._file(key, resource, order.stages)
        self._known[key] = _Known(resource, order, unreadable)
        self._in_tier.setdefault(order.tier, {})[key] = None
        if before is not None and before.order != order:
            self._touch_endpoints_of(key)

    def _file(self, key: ResourceKey, resource: PolicyResource, stages: frozenset[Stage]) -> str:
        """Put its selector into the index; what is wrong with it, if anything."""
        try:
            selector = policy_selector(resource)
        except SelectorError as error:
            self._index.remove_selector(key)
            return f"selector that cannot be read: {error}"
        if Stage.NORMAL not in stages:
            selector = conjunction(selector, Selector(Has(_HOST_ENDPOINT)))
        self._index.set_selector(key, selector)
        return ""

    def _leave_tier(self, order: PolicyOrder) -> None:
        policies = self._in_tier[order.tier]
        del policies[order.key]
        if not policies:
            del self._in_tier[order.tier]

    def set_tier(self, name: str, resource: Tier | None) -> None:
        if resource is None:
            self._tiers.pop(name, None)
        else:
            self._tiers[name] = TierOrder(name, resource.spec.order, Action(resource.spec.default_action))
        for key in self._in_tier.get(name, ()):
            self._touch_endpoints_of(key)

    def set_profile(self, key: ResourceKey, resource: Profile | None) -> None:
        if resource is None:
            self._profiles.pop(key, None)
        else:
            self._profiles[key] = resource
        self._index.set_parent(key.name, resource.spec.labels_to_apply if resource else _NO_LABELS)
        self._output.touch(key)

    def set_endpoint(self, endpoint: ResourceKey, labels: Labels, profiles: tuple[str, ...]) -> None:
        """A local endpoint, and what it is filed under."""
        self._set_profiles_of(endpoint, tuple(profile_key(name) for name in usable_profiles(profiles)))
        if endpoint.kind == "HostEndpoint":
            labels = {**labels, _HOST_ENDPOINT: ""}
        self._index.set_item(endpoint, labels, profiles)

    def remove_endpoint(self, endpoint: ResourceKey) -> None:
        self._set_profiles_of(endpoint, ())
        self._index.remove_item(endpoint)

    # --- questions ----------------------------------------------------------------------------------------------

    def endpoint_policy(self, endpoint: ResourceKey) -> EndpointPolicy:
        """The policies that apply to a local workload now, in order."""
        orders = self._orders(endpoint)
        return order_policies(orders, self._tiers_of(orders), self._endpoint_profiles.get(endpoint, ()))

    def host_policy(self, endpoint: ResourceKey) -> HostPolicy:
        """As `endpoint_policy`, of a host endpoint."""
        orders = self._orders(endpoint)
        return order_host_policies(orders, self._tiers_of(orders), self._endpoint_profiles.get(endpoint, ()))

    def flush(self) -> dict[ResourceKey, Policy | None]:
        """The policies and profiles in use that changed. Takes the sets that they look into now before it leaves
        those they looked into before, so that a set which goes from one to the other stays."""
        changes = self._output.flush()
        left: list[str] = []
        for key, policy in changes.items():
            self._problems.touch(key)
            left += self._using.pop(key, ())
            wanted = policy.address_sets() if policy else {}
            for one in wanted.values():
                self._sets.acquire(one)
            if wanted:
                self._using[key] = tuple(wanted)
        for set_id in left:
            self._sets.release(set_id)
        return changes

    def flush_problems(self) -> dict[ResourceKey, tuple[str, ...] | None]:
        """What of a policy or profile is not enforced on this node, in words; None: nothing any more."""
        return self._problems.flush()

    # --- workings -----------------------------------------------------------------------------------------------

    def _orders(self, endpoint: ResourceKey) -> list[PolicyOrder]:
        return [self._known[key].order for key in self._index.selectors_of(endpoint)]

    def _tiers_of(self, orders: list[PolicyOrder]) -> list[TierOrder]:
        return [self._tier(name) for name in dict.fromkeys(order.tier for order in orders)]

    def _tier(self, name: str) -> TierOrder:
        return self._tiers.get(name) or BUILT_IN_TIERS.get(name) or TierOrder(name, exists=False)

    def _touch_endpoints_of(self, policy: ResourceKey) -> None:
        users = self._index.items_of(policy)
        if users:
            self._problems.touch(policy)
        for endpoint in users:
            self._on_endpoint(endpoint)

    def _set_profiles_of(self, endpoint: ResourceKey, profiles: tuple[ResourceKey, ...]) -> None:
        before = self._endpoint_profiles.pop(endpoint, ())
        if profiles:
            self._endpoint_profiles[endpoint] = profiles
        for key in set(before) - set(profiles):
            users = self._profile_users[key]
            users.remove(endpoint)
            if not users:
                del self._profile_users[key]
            self._output.touch(key)
        for key in set(profiles) - set(before):
            self._profile_users.setdefault(key, set()).add(endpoint)
            self._output.touch(key)

    def _on_match(self, policy: ResourceKey, endpoint: ResourceKey, matches: bool) -> None:
        self._output.touch(policy)
        self._on_endpoint(endpoint)

    def _compute_problems(self, key: ResourceKey) -> tuple[str, ...] | None:
        """Of a policy that no endpoint here uses only that its selector cannot be read."""
        found: list[str] = []
        known = self._known.get(key)
        if known is not None and known.unreadable:
            found.append(known.unreadable)
        policy = self._output.reported(key)
        if policy is not None:
            found += policy.unenforced()
            if known is not None and not self._tier(known.order.tier).exists:
                found.append(f"tier {known.order.tier} does not exist: asked after all others, denies at its end")
        return tuple(found) or None

    def _compute(self, key: ResourceKey) -> Policy | None:
        """The compiled rules of a policy or profile that a local endpoint uses."""
        if key.kind == "Profile":
            resource: PolicyResource | Profile | None = self._profiles.get(key)
            used = key in self._profile_users
        else:
            known = self._known.get(key)
            resource = known.resource if known else None
            used = resource is not None and bool(self._index.items_of(key))
        if not used:
            self._compiled.pop(key, None)
            return None
        if resource is None:
            return profile_not_stored(key)
        compiled = self._compiled.get(key)
        if compiled is None or compiled[0] is not resource:
            compiled = self._compiled[key] = (resource, compile_policy(key, resource))
        return compiled[1]
