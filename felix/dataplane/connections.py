"""Which live connections a change of policy concerns, and whether policy allows them now.

Pure: follows what the graph reports and answers for one connection at a time, with the evaluator that `explain` and the
kernel's rules are held to. It knows connections as `weft.netlink.conntrack.Seen`, and no table of them.

A connection is judged as its first packet would be now: by the egress policy of the local workload that sent it and by
the ingress policy of the one that has its destination. What neither sent nor received a local workload is nobody's
business here, and between the node and its own workloads only defaultEndpointToHostAction and the egress policy count,
as in the base chains."""

from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from msgspec import Struct

from felix.calc.delta import ANY_INTERFACE, LocalEndpoint, LocalHostEndpoint, NodeDelta, Settings
from felix.calc.ip_sets import Member, SetChange
from felix.dataplane.connection_verdicts import Verdicts
from felix.rules.matches import UDP
from felix.rules.render_base import ICMPV6_TO_ROUTER, IPIP
from felix.rules.render_host import LOOPBACK
from weft.model.address import IPAddress, IPNetwork
from weft.model.keys import ResourceKey
from weft.netlink.conntrack import ICMPV6, Seen
from weft.policy.matching import Membership
from weft.policy.values import AddressPort, Direction, Policy

MEMBERS_AT_MOST = 64
"""Of more changed members of a set it is not asked who is at the other end of a connection."""


class OfHost(NamedTuple):
    """A host endpoint, by its interface; "*" for the rest."""

    interface: str


Who = str | OfHost
"""A workload by its host interface, or a host endpoint."""


class Concern(Struct, frozen=True):
    """Whose connections must be examined.

    whole: all of the endpoint's. partly: those with one of these addresses (packed) at one of their ends."""

    whole: frozenset[Who] = frozenset()
    partly: Mapping[Who, frozenset[bytes]] = {}

    def __bool__(self) -> bool:
        return bool(self.whole or self.partly)

    def merged(self, other: "Concern") -> "Concern":
        whole = self.whole | other.whole
        partly = dict(self.partly)
        for interface, addresses in other.partly.items():
            partly[interface] = partly.get(interface, frozenset()) | addresses
        return Concern(whole, {name: addresses for name, addresses in partly.items() if name not in whole})


class Sieve(Struct, frozen=True):
    """A concern in terms of addresses, packed: which entries of the table to look at.

    whole: of these addresses all. partly: of these those with one of the others at one end. prefixes: all from
    these, which endpoints may send from."""

    whole: frozenset[bytes] = frozenset()
    partly: Mapping[bytes, frozenset[bytes]] = {}
    prefixes: tuple[IPNetwork, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.whole or self.partly or self.prefixes)

    def anchors(self) -> frozenset[bytes] | None:
        """Addresses of which every entry that is wanted has one as source of one direction; None: no telling."""
        if self.prefixes:
            return None
        others = frozenset[bytes]().union(*self.partly.values())
        return self.whole | min(frozenset(self.partly), others, key=len)

    def wants(self) -> Callable[[bytes, bytes], bool]:
        """Whether to look at a connection from one address to another."""
        whole, partly, prefixes = self.whole, self.partly, self.prefixes

        def addresses(source: bytes, destination: bytes) -> bool:
            if source in whole or destination in whole:
                return True
            for end in (source, destination):
                others = partly.get(end)
                if others is not None and (source in others or destination in others):
                    return True
            return False

        def any_source(source: bytes, destination: bytes) -> bool:
            return addresses(source, destination) or any(ip_address(source) in one for one in prefixes)

        if prefixes:
            return any_source
        return addresses if partly else lambda source, destination: source in whole or destination in whole


class Connections:
    """The policy of this node's workloads as last reported. `on_delta` says what must be examined."""

    def __init__(self, members: Membership) -> None:
        self._verdicts = Verdicts(members)
        self._endpoints: dict[str, LocalEndpoint] = {}
        self._policies: dict[ResourceKey, Policy] = {}
        self._users: dict[ResourceKey, set[Who]] = {}
        self._host_endpoints: dict[str, LocalHostEndpoint] = {}
        self._looking_into: dict[str, set[ResourceKey]] = {}
        self._settings = Settings()
        self._host: dict[bytes, set[str]] = {}
        self._owner: dict[bytes, str] = {}
        self._owned: dict[str, set[bytes]] = {}
        self._senders: dict[str, tuple[IPNetwork, ...]] = {}

    # --- what changed -------------------------------------------------------------------------------------------

    def on_delta(self, delta: NodeDelta) -> Concern:
        self._verdicts.forget()
        whole: set[Who] = set()
        for key, policy in delta.policies.items():
            whole |= self._users.get(key, set())
            self._set_policy(key, policy)
        for interface, endpoint in delta.endpoints.items():
            if self._set_endpoint(interface, endpoint):
                whole.add(interface)
        for interface, host_endpoint in delta.host_endpoints.items():
            self._set_host_endpoint(interface, host_endpoint)
            # With one endpoint gone, the one for the rest may be asked instead.
            whole.update(map(OfHost, self._host_endpoints))
        for prefix, owner in delta.routes.items():
            self._set_owner(prefix, owner)
            if owner is not None:
                whole.add(owner)
        if delta.settings is not None and delta.settings != self._settings:
            self._settings = delta.settings
            whole.update(self._endpoints, map(OfHost, self._host_endpoints))
        partly: dict[Who, frozenset[bytes]] = {}
        for (set_id, _), change in delta.sets.items():
            self._note_set(set_id, change, whole, partly)
        return Concern(frozenset(whole)).merged(Concern(partly=partly))

    def on_host_addresses(self, addresses: Mapping[str, Iterable[IPAddress]]) -> None:
        """The node's own, by link."""
        self._host = {}
        for link, held in addresses.items():
            for one in held:
                self._host.setdefault(one.packed, set()).add(link)

    def _note_set(self, set_id: str, change: SetChange, whole: set[Who], partly: dict[Who, frozenset[bytes]]) -> None:
        users = {name for key in self._looking_into.get(set_id, ()) for name in self._users.get(key, ())}
        changed = None if change.kind is None or change.replaced else _addresses(change.added | change.removed)
        if changed is None:
            whole |= users
            return
        for name in users:
            partly[name] = partly.get(name, frozenset()) | changed

    def _set_policy(self, key: ResourceKey, policy: Policy | None) -> None:
        before = self._policies.pop(key, None)
        for set_id in before.address_sets() if before is not None else ():
            self._looking_into[set_id].discard(key)
            if not self._looking_into[set_id]:
                del self._looking_into[set_id]
        if policy is not None:
            self._policies[key] = policy
            for set_id in policy.address_sets():
                self._looking_into.setdefault(set_id, set()).add(key)

    def _set_endpoint(self, interface: str, endpoint: LocalEndpoint | None) -> bool:
        """Whether its connections are concerned."""
        before = self._endpoints.pop(interface, None)
        self._set_user(interface, before.policy.asked() if before else (), endpoint.policy.asked() if endpoint else ())
        self._senders.pop(interface, None)
        if endpoint is None:
            return False
        self._endpoints[interface] = endpoint
        if endpoint.may_send_as:
            self._senders[interface] = endpoint.may_send_as
        return before is None or (before.policy, before.may_send_as) != (endpoint.policy, endpoint.may_send_as)

    def _set_host_endpoint(self, interface: str, endpoint: LocalHostEndpoint | None) -> None:
        before = self._host_endpoints.pop(interface, None)
        self._set_user(
            OfHost(interface), before.policy.asked() if before else (), endpoint.policy.asked() if endpoint else ()
        )
        if endpoint is not None:
            self._host_endpoints[interface] = endpoint

    def _set_user(self, who: Who, before: Iterable[ResourceKey], now: Iterable[ResourceKey]) -> None:
        for key in before:
            self._users[key].discard(who)
            if not self._users[key]:
                del self._users[key]
        for key in now:
            self._users.setdefault(key, set()).add(who)

    def _set_owner(self, prefix: IPNetwork, interface: str | None) -> None:
        """Workloads have single addresses (the graph's routes say who has which)."""
        address = prefix.network_address.packed
        before = self._owner.pop(address, None)
        if before is not None:
            self._owned[before].discard(address)
            if not self._owned[before]:
                del self._owned[before]
        if interface is not None:
            self._owner[address] = interface
            self._owned.setdefault(interface, set()).add(address)

    def sieve(self, concern: Concern) -> Sieve:
        """Of what exists now; empty if nothing of the concern does."""
        whole = frozenset(address for who in concern.whole for address in self._addresses_of(who))
        partly = {
            address: others
            for who, others in concern.partly.items()
            for address in self._addresses_of(who)
            if address not in whole
        }
        names = [who for who in (*concern.whole, *concern.partly) if isinstance(who, str)]
        return Sieve(whole, partly, tuple(one for name in names for one in self._senders.get(name, ())))

    def _addresses_of(self, who: Who) -> Iterable[bytes]:
        return self._owned.get(who, ()) if isinstance(who, str) else self._host

    # --- one connection -----------------------------------------------------------------------------------------

    def allowed(self, seen: Seen) -> bool | None:
        """What policy says of it now; None: it is not of a local workload."""
        sender, receiver = self._sender(seen.source), self._owner.get(seen.destination)
        if sender not in self._endpoints:
            sender = None
        if receiver not in self._endpoints:
            receiver = None
        if sender is None and receiver is None:
            return self._of_node(seen)
        if sender is not None and seen.destination in self._host:
            return self._to_host(sender, seen)
        if sender is not None and not self._leaves(sender, seen):
            return False
        # What the node itself says to its workloads passes.
        return receiver is None or seen.source in self._host or self._passes(receiver, Direction.INGRESS, seen)

    def _sender(self, source: bytes) -> str | None:
        owner = self._owner.get(source)
        if owner is None and self._senders:
            address = ip_address(source)
            for name, prefixes in self._senders.items():
                if any(address in one for one in prefixes):
                    return name
        return owner

    def _to_host(self, sender: str, seen: Seen) -> bool:
        if seen.protocol == ICMPV6 and seen.first in ICMPV6_TO_ROUTER:
            return True
        return self._settings.endpoint_to_host != "Drop" and self._leaves(sender, seen)

    def _of_node(self, seen: Seen) -> bool | None:
        """A connection of the node itself: what its host endpoint says of it.

        The table does not say by which interface packets come and go: that one is taken which has the address, and
        the connection is refused only if no other host endpoint would allow it. What is allowed before DNAT is not
        asked again, and what that was about the table does not say: nothing is refused then."""
        to_node, from_node = self._host.get(seen.destination), self._host.get(seen.source)
        if not self._host_endpoints or (to_node is None) == (from_node is None):
            return None
        links = (to_node or from_node or set()) - {LOOPBACK}
        if not links or not {*links, ANY_INTERFACE} & self._host_endpoints.keys():
            return None
        asked = [one.policy for one in self._host_endpoints.values()]
        direction = Direction.EGRESS if to_node is None else Direction.INGRESS
        if direction is Direction.INGRESS and any(one.pre_dnat.tiers for one in asked):
            return None
        if self._is_failsafe(direction, seen):
            return True
        return any(self._verdicts.passes(one.normal, self._policies, direction, seen) for one in asked)

    def _is_failsafe(self, direction: Direction, seen: Seen) -> bool:
        inbound = direction is Direction.INGRESS
        ports = self._settings.failsafe_inbound if inbound else self._settings.failsafe_outbound
        peer = ip_address(seen.source if inbound else seen.destination)
        return any(
            (one.protocol, one.port) == (seen.protocol, seen.second) and (one.net is None or peer in one.net)
            for one in ports
        )

    def _leaves(self, sender: str, seen: Seen) -> bool:
        return not self._is_tunnel(seen) and self._passes(sender, Direction.EGRESS, seen)

    def _is_tunnel(self, seen: Seen) -> bool:
        """Within a tunnel of its own making a workload could say what its egress policy refuses."""
        settings = self._settings
        if seen.protocol == UDP and seen.second == settings.vxlan_port:
            return not settings.allow_vxlan_from_workloads
        return seen.protocol == IPIP and not settings.allow_ipip_from_workloads

    def _passes(self, interface: str, direction: Direction, seen: Seen) -> bool:
        return self._verdicts.passes(self._endpoints[interface].policy, self._policies, direction, seen)


def _addresses(changed: Iterable[Member]) -> frozenset[bytes] | None:
    """None: too many to be told apart, or prefixes."""
    found: set[bytes] = set()
    for member in changed:
        match member:
            case IPv4Address() | IPv6Address():
                found.add(member.packed)
            case AddressPort():
                found.add(member.address.packed)
            case _ if member.prefixlen == member.max_prefixlen:
                found.add(member.network_address.packed)
            case _:
                return None
        if len(found) > MEMBERS_AT_MOST:
            return None
    return frozenset(found)
