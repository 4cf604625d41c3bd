"""What is announced and accepted, kept equal to resources and kernel: the one place that changes policy.

Pure. It owns the exports, what is passed on and the filters, gives the RIB its import policy, and tells the announcer
about which prefixes there is something new. What the policy is, bird_agent/policy.py and passing.py decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bird_agent.announcer import Announcer
from bird_agent.exports import Advertising, Exports, Source
from bird_agent.forwarding import Forwarding
from bird_agent.passing import Area, Learnt, Role, role
from bird_agent.policy import Exporter, Importer, Own, Policies, concerned
from bird_agent.priority import metrics_of
from bird_agent.session_config import Peering, Problem
from weft.model.address import IPAddress, IPNetwork
from weft.netlink.route import Target


class Rulebook:
    """Both policies of all sessions."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer
        self._own = Own()
        self._role = Role()
        self.exports = Exports()
        self.learnt = Learnt()
        self.exporter = Exporter(self.exports, self.learnt, self._interface_of)
        self.forwarding = Forwarding(Importer(self._own, self.exporter.policies, self._interface_of))

    @property
    def problems(self) -> list[Problem]:
        return [*self.exporter.policies.problems, *self.exports.advertising.problems]

    @property
    def passes(self) -> bool:
        """What is learnt may have to be announced."""
        return self._role.passes

    def on_learnt(self, prefixes: Iterable[IPNetwork]) -> None:
        """The best paths to these may have changed."""
        self._announcer.on_prefixes_changed(self.learnt.on_best(prefixes, self.forwarding.rib.best))

    def metrics_of(self, routes: Mapping[IPNetwork, Target | None]) -> dict[IPNetwork, int]:
        """Those of these routes that their priority gives another metric than usual."""
        return metrics_of(routes, self.forwarding.rib.best, self.exports.advertising.normal_priority)

    def set_role(self, peering: Peering | None) -> None:
        """Who this node's peers are to it."""
        self._role = role(peering)
        self._set_passing()

    def set_extended_next_hops(self, peers: frozenset[IPAddress]) -> None:
        """The peers that take IPv6 next hops of IPv4 prefixes (RFC 8950)."""
        if peers != self.exporter.extended_to:
            self.exporter.extended_to = peers
            self._announcer.on_sessions_changed()

    def on_workloads(self, added: Mapping[IPNetwork, str], removed: Iterable[IPNetwork]) -> None:
        self._announcer.on_prefixes_changed(self.exports.change_workloads(added, removed))

    def on_underlay(self) -> None:
        """`forwarding` has another one."""
        self._look_at_kernel_routes()
        policies = self.exporter.policies
        if policies.asks_for_interfaces:
            self.forwarding.rib.judge_again(policies.by_peer)

    def set_policies(self, policies: Policies) -> None:
        """The filters of the sessions there should be."""
        before = self.exporter.policies
        if policies == before:
            return
        self.exporter.policies = policies
        self._set_import()
        self._set_passing()
        peers = before.by_peer.keys() | policies.by_peer.keys()
        changed = [peer for peer in peers if before.of(peer).imports != policies.of(peer).imports]
        self.forwarding.rib.judge_again(changed)
        self._look_at_kernel_routes()
        self._announcer.on_sessions_changed()

    def set_own(self, addresses: frozenset[IPAddress], blocks: frozenset[IPNetwork], advertising: Advertising) -> None:
        """What is this node's, and what the resources say about announcing it."""
        own, before = Own(addresses, blocks), self._own
        if own != before:
            self._own = own
            self._set_import(concerned(before, own))
        if advertising.tagging != self.exports.advertising.tagging:
            self._announcer.on_prefixes_changed(self.learnt.entries)
        if advertising.normal_priority != self.exports.advertising.normal_priority:
            self.forwarding.look_again()
        self._announcer.on_prefixes_changed(self.exports.set_basis(blocks, advertising))
        self.forwarding.set_foreign(advertising.foreign)
        self._set_passing()
        self._look_at_kernel_routes()

    def _set_passing(self) -> None:
        area = Area(self.exports.advertising, self._own.blocks, self._role.cluster_id is not None)
        everything = self.exporter.policies.looks_beyond_our_own
        best = self.forwarding.rib.best
        self._announcer.on_prefixes_changed(self.learnt.set_basis(self._role, area, everything, best))

    def _interface_of(self, next_hop: IPAddress) -> str:
        return self.forwarding.interface_of(next_hop)

    def _set_import(self, changed: Iterable[IPNetwork] = ()) -> None:
        importer = Importer(self._own, self.exporter.policies, self._interface_of)
        self.forwarding.rib.set_import(importer, changed)

    def _look_at_kernel_routes(self) -> None:
        """The kernel's other routes, which only a filter can bring to a peer's notice."""
        below = self.forwarding.underlay
        others: list[tuple[IPNetwork, Source, str, int]] = []
        if self.exporter.policies.looks_beyond_our_own:
            for prefix, links in below.connected.items():
                others.append((prefix, Source.CONNECTED, below.name_of(sorted(links)), 0))
            for prefix, target in below.others.items():
                name = below.name_of(hop.link for hop in target.hops)
                others.append((prefix, Source.KERNEL, name, below.metrics.get(prefix, 0)))
        self._announcer.on_prefixes_changed(self.exports.set_others(others))
