"""The resources about BGP as one node asks them: who is where, whom a selector means, which setting counts.

Pure, and Calico's semantics. What makes no sense is noted as a problem, and then means nothing; which sessions come of
it all, bird_agent/peering.py says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct, field

from bird_agent.automatic.client import AutomaticSessions
from bird_agent.nodes import addresses_of
from bird_agent.session_config import DEFAULT_PORT, Problem
from bird_agent.settings import NODE_CONFIGURATION, default_configuration, has_fields_without_effect, setting
from bird_agent.workload_peers import LocalWorkload
from weft import selector
from weft.model.address import IPAddress
from weft.model.bgp import BGPConfiguration, BGPConfigurationSpec, BGPFilter, BGPPeer
from weft.model.node import Node

DEFAULT_AS: Final = 64512
NO_REFLECTORS: Final = AutomaticSessions()


class BgpResources(Struct, frozen=True):
    """What the datastore says about BGP, by name."""

    nodes: Mapping[str, Node] = field(default_factory=dict)
    configurations: Mapping[str, BGPConfiguration] = field(default_factory=dict)
    peers: Mapping[str, BGPPeer] = field(default_factory=dict)
    filters: Mapping[str, BGPFilter] = field(default_factory=dict)
    workloads: tuple[LocalWorkload, ...] = ()
    automatic: AutomaticSessions = NO_REFLECTORS


class Survey:
    """For one computation of `own`'s sessions; `addresses` are those it peers from."""

    def __init__(self, own: Node, addresses: tuple[IPAddress, ...], resources: BgpResources) -> None:
        self._own = own
        self._addresses = addresses
        self._nodes = resources.nodes
        self._configurations = resources.configurations
        self.problems: dict[Problem, None] = {}

    def is_for(self, peer: BGPPeer, node: Node) -> bool:
        spec = peer.spec
        if spec.node_selector:
            return self._matches(spec.node_selector, node, f"BGPPeer/{peer.name}")
        return not spec.node or spec.node == node.name

    def chooses_us(self, peer: BGPPeer) -> bool:
        spec = peer.spec
        if spec.peer_selector:
            return self._matches(spec.peer_selector, self._own, f"BGPPeer/{peer.name}")
        target = spec.peer_address
        if target is None or target.address not in self._addresses:
            return False
        wanted = int(spec.as_number or self.default.as_number or DEFAULT_AS)
        return wanted == self.as_of(self._own) and target.port in (0, self.port_of(self._own))

    def selected(self, text: str, subject: str) -> list[Node]:
        return [node for node in self._nodes.values() if self._matches(text, node, subject)]

    def _matches(self, text: str, node: Node, subject: str) -> bool:
        try:
            return bool(selector.parse(text).matches(node.metadata.labels))
        except selector.SelectorError as error:
            self.complain(subject, str(error))
            return False

    def node_at(self, address: IPAddress) -> Node | None:
        return next((node for node in self._nodes.values() if address in addresses_of(node)), None)

    def as_of(self, node: Node) -> int:
        if node.spec.bgp is not None and node.spec.bgp.as_number:
            return int(node.spec.bgp.as_number)
        return int(self.default.as_number or DEFAULT_AS)

    def port_of(self, node: Node) -> int:
        return setting(self._configurations, node.name, lambda spec: spec.listen_port or None) or DEFAULT_PORT

    @property
    def default(self) -> BGPConfigurationSpec:
        return default_configuration(self._configurations)

    def complain(self, subject: str, text: str) -> None:
        self.problems[Problem(subject, text)] = None

    def complain_of_configuration(self) -> None:
        own = self._own.name
        found = self._configurations.get(f"{NODE_CONFIGURATION}{own}")
        if found is not None and has_fields_without_effect(found.spec):
            text = "of a node's own configuration only listenPort, communities and prefixAdvertisements count"
            self.complain(f"BGPConfiguration/{found.name}", text)
