"""From what changed on this node to what changes in the table: chains, sets and map entries.

Keeps what it needs to know which chains a change concerns: a policy's rules are one chain however many
endpoints use it, endpoints with the same policies share one chain, and a set of another kind concerns the
chains that look into it. What it returns depends on the node's state alone, not on how the node got there.

A policy with a Pass rule has no chain of its own: passing means to leave the tier, so its rules are written
into the tier's chain, where `return` does that. Nor has a short one that a single endpoint chain asks: it is written
there (docs/design/policy.md)."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from felix.calc.delta import ANY_INTERFACE, LocalHostEndpoint, NodeDelta, Settings
from felix.calc.ip_sets import SetChange, SetKey, SetKind
from felix.calc.output import Output
from felix.rules import render_names as names
from felix.rules import values as nft
from felix.rules.changes import Changes, MemberChange
from felix.rules.render_actions import ActionSettings, denied_chain, dropped_chain
from felix.rules.render_base import Surroundings, base_chains
from felix.rules.render_chains import (
    EndpointPlan,
    PolicyPlan,
    SharedPlan,
    endpoint_plan,
    passing_directions,
    render_plan,
    render_policy,
)
from felix.rules.render_host import HOST_MAPS, LOOPBACK, HostUse, host_plan, host_plans
from felix.rules.render_senders import Senders
from weft.delta import diff
from weft.model.address import IPNetwork
from weft.model.keys import ResourceKey
from weft.policy.values import Direction, EndpointPolicy, Policy

KEY_TYPES = {
    (SetKind.ADDRESSES, 4): nft.KeyType.ADDRESS_V4,
    (SetKind.ADDRESSES, 6): nft.KeyType.ADDRESS_V6,
    (SetKind.NETWORKS, 4): nft.KeyType.NETWORK_V4,
    (SetKind.NETWORKS, 6): nft.KeyType.NETWORK_V6,
    (SetKind.PORTS, 4): nft.KeyType.SERVICE_V4,
    (SetKind.PORTS, 6): nft.KeyType.SERVICE_V6,
}
WORKLOAD_MAPS = (names.FROM_ENDPOINTS, names.TO_ENDPOINTS, names.KNOWN_ENDPOINTS, names.SENDERS)
VERSIONS: tuple[Literal[4, 6], ...] = (4, 6)
_ONE_ASKS = 2
"""An endpoint chain that asks a policy, and the plan of the tier in it."""


class Renderer:
    """One for the life of the process; `render` is given every delta of the graph, in order."""

    def __init__(self) -> None:
        self._settings = Settings()
        self._actions = ActionSettings()
        self.policies: dict[ResourceKey, Policy] = {}
        self._passing: dict[ResourceKey, tuple[Direction, ...]] = {}
        self._kinds: dict[SetKey, SetKind] = {}
        self._looking_into: dict[str, set[ResourceKey]] = {}
        self._policy_plans: dict[str, PolicyPlan] = {}
        self._chains_of: dict[ResourceKey, set[str]] = {}
        self._rules: dict[str, tuple[nft.Rule, ...]] = {}
        self._shared_plans: dict[str, SharedPlan] = {}
        self._plan_users: dict[str, set[str]] = {}
        self._asked_by: dict[str, set[str]] = {}
        self._endpoints: dict[str, EndpointPolicy] = {}
        self._senders = Senders()
        self._had_senders = False
        self._hosts: dict[str, LocalHostEndpoint] = {}
        self._service_ranges: set[IPNetwork] = set()
        self._pools: dict[IPNetwork, bool] = {}
        self._pool_sets: dict[str, nft.Set] = {}
        self._maps: dict[str, nft.VerdictMap | None] = {
            name: nft.VerdictMap(name) for name in (*WORKLOAD_MAPS, *HOST_MAPS)
        }
        self._base: Mapping[str, nft.Chain | None] = {}
        self._chains: Output[str, nft.Chain] = Output(self._render_chain)
        self._entries: Output[tuple[str, str], nft.Verdict] = Output(self._render_entry)
        self._on_settings(self._settings)

    @property
    def actions(self) -> ActionSettings:
        return self._actions

    @property
    def drop_invalid(self) -> bool:
        return self._settings.drop_invalid

    def kind_of(self, key: SetKey) -> SetKind | None:
        return self._kinds.get(key)

    def passes(self, key: ResourceKey, direction: Direction) -> bool:
        return direction in self._passing.get(key, ())

    def asked_once(self, plan: PolicyPlan) -> bool:
        """One endpoint chain asks it, and no more than one chain of a tier on its behalf."""
        asked_by = self._asked_by.get(plan.name, ())
        if len(asked_by) > _ONE_ASKS:
            return False
        return sum(isinstance(self._shared_plans[name], EndpointPlan) for name in asked_by) == 1

    def rules_of(self, plan: PolicyPlan) -> tuple[nft.Rule, ...]:
        rules = self._rules.get(plan.name)
        if rules is None:
            rules = self._rules[plan.name] = tuple(render_policy(plan, self))
        return rules

    def render(self, delta: NodeDelta) -> Changes:
        sets: dict[str, nft.Set | None] = {}
        members: dict[str, MemberChange] = {}
        for set_key, change in delta.sets.items():
            self._on_set(set_key, change, sets, members)
        for key, policy in delta.policies.items():
            self._on_policy(key, policy)
        for interface, endpoint in delta.endpoints.items():
            self._on_endpoint(interface, endpoint.policy if endpoint else None)
            self._chains.touch(self._senders.set(interface, endpoint.may_send_as if endpoint else ()))
        for interface, host in delta.host_endpoints.items():
            self._on_host_endpoint(interface, host)
        for cidr, serves in delta.service_ranges.items():
            self._service_ranges.add(cidr) if serves else self._service_ranges.discard(cidr)
        if delta.pools:
            self._on_pools(delta.pools, sets)
        if delta.settings is not None:
            self._on_settings(delta.settings)
        around = delta.pools or delta.host_endpoints or delta.service_ranges
        if around or bool(self._senders) != self._had_senders:
            self._had_senders = bool(self._senders)
            self._render_base()
        entries: dict[str, dict[str, nft.Verdict | None]] = {}
        for (name, interface), verdict in self._entries.flush().items():
            entries.setdefault(name, {})[interface] = verdict
        return Changes(self._chains.flush(), sets, self._new_maps(), members, entries)

    def _new_maps(self) -> dict[str, nft.VerdictMap | None]:
        """The verdict maps, once: they are there for good, whoever is in them."""
        maps, self._maps = self._maps, {}
        return maps

    # --- input --------------------------------------------------------------------------------------------------

    def _on_set(
        self,
        key: SetKey,
        change: SetChange,
        sets: dict[str, nft.Set | None],
        members: dict[str, MemberChange],
    ) -> None:
        before = self._kinds.get(key)
        if change.kind is before and before is not None:
            members[names.selector_set(key, before)] = MemberChange(change.added, change.removed)
            return
        if before is not None:
            del self._kinds[key]
            sets[names.selector_set(key, before)] = None
        if change.kind is not None:
            self._kinds[key] = change.kind
            name = names.selector_set(key, change.kind)
            sets[name] = nft.Set(name, KEY_TYPES[change.kind, key.version], change.added)
        for policy in self._looking_into.get(key.id, ()):
            self._touch_policy(policy)

    def _on_policy(self, key: ResourceKey, policy: Policy | None) -> None:
        self._touch_policy(key)
        before = self.policies.pop(key, None)
        self._passing.pop(key, None)
        for set_id in before.address_sets() if before else ():
            users = self._looking_into[set_id]
            users.remove(key)
            if not users:
                del self._looking_into[set_id]
        if policy is None:
            return
        self.policies[key] = policy
        passing = passing_directions(policy)
        if passing:
            self._passing[key] = passing
        for set_id in policy.address_sets():
            self._looking_into.setdefault(set_id, set()).add(key)
        self._touch_policy(key)

    def _touch_policy(self, key: ResourceKey) -> None:
        """Its own chains; and those in which its rules are written, if it passes or few ask it."""
        for name in self._chains_of.get(key, ()):
            self._chains.touch(name)
            self._rules.pop(name, None)
            if key in self._passing or len(self._asked_by[name]) <= _ONE_ASKS:
                self._touch_askers(name)

    def _touch_askers(self, policy_chain: str) -> None:
        for plan in self._asked_by[policy_chain]:
            self._chains.touch(plan)

    def _on_endpoint(self, interface: str, policy: EndpointPolicy | None) -> None:
        before = self._endpoints.pop(interface, None)
        if policy is not None:
            self._endpoints[interface] = policy
        self._change_plans(
            interface,
            dict(_with_tiers(_workload_plans(before))) if before else {},
            dict(_with_tiers(_workload_plans(policy))) if policy else {},
        )
        for name in WORKLOAD_MAPS:
            self._entries.touch((name, interface))

    def _on_host_endpoint(self, interface: str, endpoint: LocalHostEndpoint | None) -> None:
        """The loopback interface is nobody's, whatever a resource says."""
        if interface == LOOPBACK:
            return
        before = self._hosts.pop(interface, None)
        if endpoint is not None:
            self._hosts[interface] = endpoint
        self._change_plans(
            f"host endpoint {interface}",
            dict(_with_tiers(host_plans(before.policy))) if before else {},
            dict(_with_tiers(host_plans(endpoint.policy))) if endpoint else {},
        )
        if interface != ANY_INTERFACE:
            for name in HOST_MAPS:
                self._entries.touch((name, interface))

    def _change_plans(self, user: str, before: Mapping[str, SharedPlan], after: Mapping[str, SharedPlan]) -> None:
        for name, plan in after.items():
            if name not in before:
                self._use(name, plan, user)
        for name, plan in before.items():
            if name not in after:
                self._leave(name, plan, user)

    def _use(self, name: str, plan: SharedPlan, user: str) -> None:
        users = self._plan_users.setdefault(name, set())
        if not users:
            self._shared_plans[name] = plan
            self._chains.touch(name)
            for policy in plan.asked():
                self._ask(policy, name)
        users.add(user)

    def _leave(self, name: str, plan: SharedPlan, user: str) -> None:
        users = self._plan_users[name]
        users.remove(user)
        if users:
            return
        del self._plan_users[name], self._shared_plans[name]
        self._chains.touch(name)
        for policy in set(plan.asked()):
            self._no_longer_ask(policy, name)

    def _ask(self, policy: PolicyPlan, plan: str) -> None:
        name = policy.name
        asked_by = self._asked_by.setdefault(name, set())
        if not asked_by:
            self._policy_plans[name] = policy
            self._chains_of.setdefault(policy.key, set()).add(name)
        asked_by.add(plan)
        self._on_askers(name)

    def _no_longer_ask(self, policy: PolicyPlan, plan: str) -> None:
        name = policy.name
        asked_by = self._asked_by[name]
        asked_by.remove(plan)
        self._on_askers(name)
        if asked_by:
            return
        del self._asked_by[name], self._policy_plans[name]
        self._rules.pop(name, None)
        chains = self._chains_of[policy.key]
        chains.remove(name)
        if not chains:
            del self._chains_of[policy.key]

    def _on_askers(self, policy_chain: str) -> None:
        """One asked more, or less: the policy may be written elsewhere now."""
        self._chains.touch(policy_chain)
        if len(self._asked_by[policy_chain]) <= _ONE_ASKS + 2:
            self._touch_askers(policy_chain)

    def _on_pools(self, pools: Mapping[IPNetwork, bool | None], sets: dict[str, nft.Set | None]) -> None:
        for cidr, masquerade in pools.items():
            if masquerade is None:
                self._pools.pop(cidr, None)
            else:
                self._pools[cidr] = masquerade
        before, self._pool_sets = self._pool_sets, {one.name: one for one in _pool_sets(self._pools)}
        delta = diff(self._pool_sets, before)
        sets.update({**delta.create, **delta.update, **dict.fromkeys(delta.delete)})

    def _on_settings(self, settings: Settings) -> None:
        self._settings = settings
        limit = settings.log_limit
        self._actions = ActionSettings(
            _log_prefix(settings.log_prefix),
            settings.reject,
            settings.flow_logs,
            nft.Limit(limit.packets, limit.burst, limit.seconds) if limit is not None else None,
        )
        self._rules.clear()
        self._chains.touch_all()
        self._render_base()

    def _render_base(self) -> None:
        masquerading = [version for version in VERSIONS if names.masqueraded_pools(version) in self._pool_sets]
        ranges = sorted(self._service_ranges, key=lambda one: (one.version, one.network_address.packed, one.prefixlen))
        around = Surroundings(tuple(masquerading), HostUse.of(self._hosts), tuple(ranges), bool(self._senders))
        self._base = {
            **base_chains(self._settings, around),
            names.DENIED: denied_chain(self._actions),
            names.DROPPED: dropped_chain(self._actions) if around.hosts.places else None,
        }
        for name in self._base:
            self._chains.touch(name)

    # --- output -------------------------------------------------------------------------------------------------

    def _render_chain(self, name: str) -> nft.Chain | None:
        if name in self._base:
            return self._base[name]
        plan = self._policy_plans.get(name) or self._shared_plans.get(name)
        return render_plan(plan, self) if plan else self._senders.chain(name)

    def _render_entry(self, key: tuple[str, str]) -> nft.Verdict | None:
        name, interface = key
        if name in HOST_MAPS:
            return self._render_host_entry(name, interface)
        policy = self._endpoints.get(interface)
        if policy is None:
            return None
        if name == names.SENDERS:
            return self._senders.entry(interface)
        if name == names.KNOWN_ENDPOINTS:
            return nft.Return()
        direction = Direction.EGRESS if name == names.FROM_ENDPOINTS else Direction.INGRESS
        return nft.Goto(endpoint_plan(direction, policy).name)

    def _render_host_entry(self, name: str, interface: str) -> nft.Verdict | None:
        """An endpoint with nothing to say at a place still keeps the one for all interfaces away."""
        endpoint = self._hosts.get(interface)
        if endpoint is None:
            return None
        plan = host_plan(endpoint.policy, HOST_MAPS[name])
        return nft.Goto(plan.name) if plan else nft.Accept()


def _workload_plans(policy: EndpointPolicy) -> Iterator[EndpointPlan]:
    for direction in Direction:
        yield endpoint_plan(direction, policy)


def _with_tiers(plans: Iterable[EndpointPlan]) -> Iterator[tuple[str, SharedPlan]]:
    """By name."""
    for plan in plans:
        yield plan.name, plan
        for tier in plan.tier_plans():
            yield tier.name, tier


def _pool_sets(pools: Mapping[IPNetwork, bool]) -> Iterator[nft.Set]:
    """None for a family that masquerades nothing."""
    for version in VERSIONS:
        key = KEY_TYPES[SetKind.NETWORKS, version]
        masqueraded = frozenset(c for c, masquerade in pools.items() if c.version == version and masquerade)
        if masqueraded:
            yield nft.Set(names.masqueraded_pools(version), key, masqueraded)
            yield nft.Set(names.all_pools(version), key, frozenset(c for c in pools if c.version == version))


def _log_prefix(configured: str) -> str:
    """As the kernel log shows it, with what nft would not take left out; at most 127 bytes."""
    printable = "".join(c for c in configured if c.isascii() and c.isprintable() and c not in '"\\')
    return f"{printable[:125]}: "
