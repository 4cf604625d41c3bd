"""Which nodes are route reflectors, and whose: from Node resources, settings and the state of the fabric.

Every node computes the same answer, because nothing else goes in: never what one node believes to be alive. A node's
rank in its domain is a hash of both names (rendezvous hashing), so one that joins or leaves moves at most one reflector
of its domain. While the datastore is away, what goes in does not change, and so neither does what comes out.

The members are the nodes of the default AS that would be in Calico's mesh. Only they count, and only they are clients;
a member that has been replaced, or is being drained, or is kept out by an annotation, is no candidate."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Final

from msgspec import Struct, field

from weft.model import drain
from weft.model.node import Node
from weft.model.reflectors import Mode, ReflectorSettings, ReflectorState

NO_DOMAIN: Final = ""
"""The domain of nodes without the label."""
DEFAULT_AS: Final = 64512
CANDIDATE: Final = "weft/reflector"
"""Annotation of a Node: "never" keeps it from becoming a reflector."""
NO_SETTINGS: Final = ReflectorSettings()
NO_STATE: Final = ReflectorState()


class Fabric(Struct, frozen=True):
    """What the choice rests on. `has_mesh`: BGPConfiguration does not turn the node-to-node mesh off."""

    nodes: Mapping[str, Node]
    asn: int = DEFAULT_AS
    has_mesh: bool = True


class Plan(Struct, frozen=True):
    """Reflectors by domain, best first, and the domain of each member. In a mesh there are no reflectors."""

    mode: Mode = "mesh"
    epoch: int = 0
    reflectors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    domain_of: Mapping[str, str] = field(default_factory=dict)

    @property
    def chosen(self) -> frozenset[str]:
        """All reflectors."""
        return frozenset(name for names in self.reflectors.values() for name in names)

    def reflectors_for(self, node: str) -> tuple[str, ...]:
        """Whom a member is a client of: the reflectors of its domain, or of the next one that has any."""
        domain = self.domain_of.get(node)
        return () if domain is None else next(iter(self._sets_from(domain)), ())

    def reserve_for(self, node: str) -> tuple[str, ...]:
        """The reflectors of the domain that comes after that."""
        sets = list(self._sets_from(self.domain_of[node])) if node in self.domain_of else []
        return sets[1] if len(sets) > 1 else ()

    def _sets_from(self, domain: str) -> Iterator[tuple[str, ...]]:
        own = self.reflectors.get(domain, ())
        if own:
            yield own
        others = [each for each, names in self.reflectors.items() if names and each != domain]
        for each in sorted(others, key=lambda each: (_rank(domain, f"domain {each}"), each)):
            yield self.reflectors[each]


def members(fabric: Fabric) -> list[Node]:
    """The nodes that count, and may be clients."""
    return [node for node in fabric.nodes.values() if _is_member(node, fabric.asn)]


def wanted_mode(fabric: Fabric, settings: ReflectorSettings, state: ReflectorState) -> tuple[Mode, str]:
    """What the state's mode should be, and why. Between the two numbers it stays what it is."""
    if not settings.enabled:
        return "mesh", "automatic reflectors are not enabled"
    if not fabric.has_mesh:
        return "mesh", "the node-to-node mesh is turned off: there is nothing that reflectors could replace"
    found = members(fabric)
    count = len(found)
    if count < settings.mesh_below:
        return "mesh", f"{count} nodes, fewer than {settings.mesh_below}"
    if count <= settings.above_nodes and state.mode == "mesh":
        return "mesh", f"{count} nodes, no more than {settings.above_nodes}"
    if not any(_candidates(found, settings, state).values()):
        return "mesh", "no node may be a reflector"
    if state.mode == "reflectors":
        return "reflectors", f"{count} nodes, no fewer than {settings.mesh_below}"
    return "reflectors", f"{count} nodes, more than {settings.above_nodes}"


def plan(fabric: Fabric, settings: ReflectorSettings = NO_SETTINGS, state: ReflectorState = NO_STATE) -> Plan:
    """The reflectors of the mode that the state is in."""
    found = members(fabric)
    domains = {node.name: domain_of(node, settings) for node in found}
    if state.mode == "mesh":
        return Plan("mesh", state.epoch, {}, domains)
    returned = frozenset(each.node for each in state.replaced if each.returned is not None)
    chosen = {
        domain: tuple(heapq.nsmallest(settings.per_domain, names, key=partial(_order, domain, returned)))
        for domain, names in _candidates(found, settings, state).items()
    }
    return Plan("reflectors", state.epoch, chosen, domains)


def domain_of(node: Node, settings: ReflectorSettings) -> str:
    return node.metadata.labels.get(settings.domain_label, NO_DOMAIN)


def is_candidate(node: Node) -> bool:
    """Whether the resource allows it: neither kept out nor to be drained."""
    annotations = node.metadata.annotations
    return annotations.get(CANDIDATE) != "never" and drain.WISH not in annotations


def _candidates(found: Iterable[Node], settings: ReflectorSettings, state: ReflectorState) -> Mapping[str, list[str]]:
    out = {each.node for each in state.replaced if each.returned is None}
    candidates: dict[str, list[str]] = {}
    for node in found:
        if node.name not in out and is_candidate(node):
            candidates.setdefault(domain_of(node, settings), []).append(node.name)
    return candidates


def _is_member(node: Node, asn: int) -> bool:
    bgp = node.spec.bgp
    if bgp is None or bgp.route_reflector_cluster_id is not None:
        return False
    if bgp.ipv4_address is None and bgp.ipv6_address is None:
        return False
    return not bgp.as_number or int(bgp.as_number) == asn


def _order(domain: str, returned: frozenset[str], name: str) -> tuple[bool, bytes, str]:
    return name in returned, _rank(domain, name), name


@lru_cache(1 << 16)
def _rank(domain: str, name: str) -> bytes:
    return blake2b(f"{domain}\0{name}".encode(), digest_size=8).digest()


def place_in_line(made: Plan, node: str, epoch: int) -> int:
    """A node's place among those that would all write the same: another order for each epoch."""
    own = _rank(f"line {epoch}", node)
    return sum(_rank(f"line {epoch}", other) < own for other in made.domain_of)
