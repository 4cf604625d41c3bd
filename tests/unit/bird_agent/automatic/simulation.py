"""A fabric as values: nodes that decide for themselves on what they have heard so far, and what that does to sessions.

A session is up when both ends want it and it has had its turn to come up; it is down as soon as one end does not want
it. Routes spread at once, but by no reflector that has just been started and has yet to be told by others. Each node
has one prefix. What the datastore holds reaches each node in order, but late.

Nodes that lose power say nothing any more. Whoever had a session with one notices that in its own time, and keeps of
the routes of a reflector what nobody else brings."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_address, ip_network

import msgspec

from bird_agent.automatic.decision import Decision, Seen, Shared, decide
from bird_agent.automatic.serving import Tenure
from tests.unit.reflectors.fabrics import node
from weft.model.address import IPAddress, IPNetwork
from weft.model.node import Node
from weft.model.reflectors import AttachmentRecord, ReflectorRecord, ReflectorSettings, ReflectorState
from weft.reflectors.changes import Writer, change_mode, replace
from weft.reflectors.plan import Fabric, plan

Session = tuple[str, str, str]
Stored = Node | ReflectorSettings | ReflectorState | ReflectorRecord | AttachmentRecord | None
LINGER_S = 30.0
MESH, CLIENT, PEER = "mesh", "client", "reflectors"


@cache
def prefix(name: str) -> IPNetwork:
    return ip_network(f"10.65.{name[1:]}.0/24")


@cache
def address(name: str) -> IPAddress:
    return ip_address(f"10.9.0.{name[1:]}")


@dataclass
class View:
    """What one node has heard of the datastore."""

    heard: int = 0
    values: dict[tuple[str, str], Stored] = field(default_factory=dict)

    def of(self, section: str) -> dict[str, Stored]:
        return {name: value for (kind, name), value in self.values.items() if kind == section and value is not None}

    def settings(self) -> ReflectorSettings:
        return self.values[("settings", "")]  # type: ignore[return-value]

    def state(self) -> ReflectorState:
        return self.values[("state", "")]  # type: ignore[return-value]

    def fabric(self) -> Fabric:
        return Fabric(self.of("node"))  # type: ignore[arg-type]

    def shared(self) -> Shared:
        made = plan(self.fabric(), self.settings(), self.state())
        return Shared(made, self.of("attached"), self.of("serving"))  # type: ignore[arg-type]


@dataclass
class Actor:
    """One node's agent and its reflector."""

    name: str
    view: View
    decision: Decision = field(default_factory=Decision)
    mesh: set[str] = field(default_factory=set)
    tenure: Tenure = field(default_factory=Tenure)
    known_reflectors: set[str] = field(default_factory=set)
    tells: bool = False
    """Its reflector has been told everything since it started, and tells others."""
    clients: set[str] = field(default_factory=set)
    fresh: bool = False
    clock: float = 0.0


class World:
    """All nodes, the datastore, and the sessions that are up."""

    def __init__(self, nodes: list[Node], settings: ReflectorSettings) -> None:
        self.log: list[tuple[tuple[str, str], Stored]] = []
        self.actors: dict[str, Actor] = {}
        self.up: set[Session] = set()
        self.connected: set[tuple[str, str]] = set()
        """Who has had a path to whom."""
        self.dead: set[str] = set()
        self.left: dict[Session, set[str]] = {}
        """Of a session with a dead reflector, (CLIENT or PEER, who has it, reflector): whose routes are kept."""
        self.silent: set[str] = set()
        """Nodes that announce nothing."""
        self.strangers: set[str] = set()
        """Nodes that others take for strangers until they hear of a record."""
        self.write("settings", "", settings)
        self.write("state", "", ReflectorState())
        for each in nodes:
            self.write("node", each.name, each)
        for each in nodes:
            self._join(each.name)

    # The datastore.

    def write(self, section: str, name: str, value: Stored) -> None:
        self.log.append(((section, name), value))

    def latest(self) -> View:
        view = View()
        view.values.update(self.log)
        return view

    def deliver(self, name: str, count: int) -> None:
        view = self.actors[name].view
        for key, value in self.log[view.heard : view.heard + count]:
            view.values[key] = value
        view.heard = min(len(self.log), view.heard + count)

    def lose_power(self, names: set[str]) -> None:
        """Without a word: sessions stay until they are missed."""
        left: dict[Session, set[str]] = {}
        for name in names - self.dead:
            for kind, one, other in self.up:
                if kind == CLIENT and other == name:
                    left[CLIENT, one, name] = self.behind(name) - {one}
                elif kind == PEER and name in (one, other):
                    left[PEER, other if one == name else one, name] = self._clients(name)
        self.dead |= names
        self.left = {key: each - self.dead for key, each in (self.left | left).items() if key[1] not in self.dead}
        self.up = {each for each in self.up if not {*each[1:]} <= self.dead}
        self.connected = {pair for pair in self.connected if not self.dead & {*pair}}

    def miss(self, number: int) -> None:
        """Somebody notices that a session with a dead node is none."""
        if missed := self.up_to_dead():
            self.up.discard(missed[number % len(missed)])

    def up_to_dead(self) -> list[Session]:
        """Sessions with dead nodes that nobody misses yet."""
        return sorted(each for each in self.up if self.dead & {*each[1:]})

    def restart_times_are_over(self) -> None:
        """Nothing is kept any longer."""
        self.left.clear()

    def replace_dead(self) -> None:
        """By the node that is the first to; what they said of themselves goes with it."""
        latest = self.latest()
        chosen = plan(latest.fabric(), latest.settings(), latest.state()).chosen
        self._replace(chosen & self.dead)
        for name in sorted(self.dead & latest.of("serving").keys()):
            self.write("serving", name, None)

    def turn(self, name: str) -> None:
        """The node changes the mode if it thinks that it should be another, and has heard of the last change."""
        actor, latest = self.actors[name], self.latest()
        if actor.view.state() == latest.state():
            writer = Writer(name, datetime(2026, 1, 31, tzinfo=UTC))
            changed = change_mode(actor.view.fabric(), actor.view.settings(), actor.view.state(), writer)
            if changed is not None:
                self.write("state", "", changed)

    def replace(self, number: int) -> None:
        """A reflector is taken for dead, rightly or not."""
        latest = self.latest()
        chosen = sorted(plan(latest.fabric(), latest.settings(), latest.state()).chosen)
        if chosen:
            self._replace({chosen[number % len(chosen)]})

    def _replace(self, dead: Set[str]) -> None:
        latest, writer = self.latest(), Writer("somebody", datetime(2026, 1, 31, tzinfo=UTC))
        silent = dict.fromkeys(sorted(dead), "silent")
        changed = replace(latest.fabric(), latest.settings(), latest.state(), silent, writer)
        if changed is not None:
            self.write("state", "", changed)

    def configure(self, **changes: object) -> None:
        self.write("settings", "", msgspec.structs.replace(self.latest().settings(), **changes))

    def add(self, number: int, zone: str) -> None:
        made = node(number, zone)
        known = made.name in self.actors
        self.write("node", made.name, made)
        if not known:
            self._join(made.name)

    def _join(self, name: str) -> None:
        actor = Actor(name, View())
        self.actors[name] = actor
        self.deliver(name, len(self.log))
        actor.fresh = actor.view.state().mode == "reflectors"
        actor.mesh = set() if actor.fresh else set(actor.view.of("node")) - {name}
        actor.decision = Decision(frozenset(actor.view.of("node")) - actor.mesh)

    # The nodes.

    def step(self, name: str) -> None:
        actor = self.actors[name]
        shared = actor.view.shared()
        actor.decision = decide(name, shared, self._seen(actor))
        actor.mesh = set(shared.plan.domain_of) - {name} - actor.decision.without_mesh
        record = actor.decision.record
        if record is not None and record != shared.attached.get(name):
            self.write("attached", name, record)
        self._serve(actor, shared)
        self.up = {session for session in self.up if self._is_wanted(session)}
        self.left = {key: each for key, each in self.left.items() if self._is_kept(key)}

    def _serve(self, actor: Actor, shared: Shared) -> None:
        name = actor.name
        actor.clock += LINGER_S
        clients = sum(kind == CLIENT and there == name for kind, _, there in self.up)
        if actor.tenure.on_tick(actor.clock, name in shared.plan.chosen, clients, LINGER_S):
            answering = {other for other in actor.known_reflectors if self._holds(name, other)}
            actor.known_reflectors = answering | {one for one in shared.serving if one != name and shared.is_up(one)}
            actor.clients = set(shared.plan.domain_of)
            telling = {each for each in actor.known_reflectors if actor.tells and self.actors[each].tells}
            meshed = {each for each in telling if self._are_peers(name, each)}
            record = ReflectorRecord(addresses=(address(name),), up=True, meshed=tuple(sorted(meshed)))
            if record != shared.serving.get(name):
                self.write("serving", name, record)
        elif name in shared.serving:
            actor.known_reflectors, actor.clients, actor.tells = set(), set(), False
            self.write("serving", name, None)

    def _seen(self, actor: Actor) -> Seen:
        name = actor.name
        mesh = {other for other in actor.mesh if (MESH, *_pair(name, other)) in self.up}
        reflectors = {there for kind, here, there in self.up if kind == CLIENT and here == name}
        kept = {there: each for (kind, here, there), each in self.left.items() if (kind, here) == (CLIENT, name)}
        brought = {there: kept.get(there, set()) if there in self.dead else self.behind(there) for there in reflectors}
        return Seen(
            mesh=frozenset(actor.mesh),
            mesh_settled=frozenset(mesh),
            reflectors=actor.decision.reflectors,
            established=frozenset(reflectors),
            settled=frozenset(there for there in reflectors if self.actors[there].tells),
            by_mesh={other: self._prefixes({other}) for other in mesh},
            by_reflector={there: self._prefixes(each - {name}) for there, each in (kept | brought).items()},
            fresh=actor.fresh,
            strangers=self.strangers - actor.view.of("attached").keys(),
            alone=self._is_alone(actor, mesh, reflectors),
        )

    def _is_alone(self, actor: Actor, mesh: set[str], established: set[str]) -> bool:
        """As in bird_agent/automatic/client.py; what is dead and has no session is silent."""
        shared = actor.view.shared()
        own, ours = shared.attached.get(actor.name), shared.plan.reflectors_for(actor.name)
        said = own is not None and own.epoch == shared.plan.epoch and own.complete
        relies = actor.fresh or said or not mesh
        return bool(relies and ours) and {*ours} <= self.dead - established

    def _prefixes(self, names: set[str]) -> set[IPNetwork]:
        return {prefix(name) for name in names - self.silent}

    # The sessions.

    def wanted(self) -> Iterator[Session]:
        """Sessions that both ends want and that are not up."""
        for name in sorted(self.actors):
            for other in sorted(self.actors):
                found = [(CLIENT, name, other)]
                if name < other:
                    found += [(MESH, name, other), (PEER, name, other)]
                for session in found:
                    if self.dead & {*session[1:]}:
                        continue
                    if session not in self.up and self._is_wanted(session):
                        yield session

    def connect(self, number: int) -> None:
        if candidates := list(self.wanted()):
            self.up.add(candidates[number % len(candidates)])

    def connect_all(self) -> None:
        self.up |= set(self.wanted())

    def _is_wanted(self, session: Session) -> bool:
        kind, one, other = session
        here, there = self.actors[one], self.actors[other]
        if kind == MESH:
            return other in here.mesh and one in there.mesh
        if kind == CLIENT:
            return other in here.decision.reflectors and one in there.clients
        return other in here.known_reflectors and one in there.known_reflectors

    def _is_kept(self, key: Session) -> bool:
        kind, holder, reflector = key
        actor = self.actors[holder]
        return reflector in (actor.decision.reflectors if kind == CLIENT else actor.known_reflectors)

    def _holds(self, name: str, other: str) -> bool:
        """A reflector has a session with another, or routes of it."""
        return self._are_peers(name, other) or bool(self.left.get((PEER, name, other)))

    def _clients(self, reflector: str) -> set[str]:
        return {one for kind, one, there in self.up if kind == CLIENT and there == reflector}

    def behind(self, reflector: str) -> set[str]:
        """The nodes whose routes it has and tells."""
        if not self.actors[reflector].tells:
            return set()
        found = self._clients(reflector).union(*self._told_by_others(reflector, self.actors.keys() - self.dead))
        kept = [each for (kind, holder, _), each in self.left.items() if (kind, holder) == (PEER, reflector)]
        return found.union(*kept)

    def _told_to_reflector(self, name: str) -> set[str]:
        found = self._told_by_others(name, self.actors.keys())
        return self._clients(name).union(*found, *self._not_missed(PEER, name))

    def _told_by_others(self, name: str, reflectors: Set[str]) -> list[set[str]]:
        return [
            self._clients(other) for other in reflectors if self.actors[other].tells and self._are_peers(name, other)
        ]

    def _are_peers(self, one: str, other: str) -> bool:
        return (PEER, *_pair(one, other)) in self.up

    def _not_missed(self, kind: str, holder: str) -> list[set[str]]:
        return [each for key, each in self.left.items() if key[:2] == (kind, holder) and not self._is_missed(key)]

    def _is_missed(self, key: Session) -> bool:
        kind, holder, reflector = key
        return (key if kind == CLIENT else (PEER, *_pair(holder, reflector))) not in self.up

    def _tell_after_start(self) -> None:
        """A reflector that was started tells nobody anything before it is meshed with all that it knows of (ADR 0158;
        there, those that do not come up for 15 s are not waited for)."""
        for name in self.actors.keys() - self.dead:
            actor = self.actors[name]
            if actor.tenure.serving and not actor.tells:
                actor.tells = all(self._are_peers(name, other) for other in actor.known_reflectors - self.dead)

    def check(self) -> None:
        """Nobody who has had a path to somebody is without one."""
        self._tell_after_start()
        missed = [key for key in self.left if self._is_missed(key)]
        for key in missed:
            if key[0] == PEER:
                self.left[key] -= self._told_to_reflector(key[1])
        told: dict[str, set[str]] = {name: set() for name in self.actors}
        behind = {there: self.behind(there) for there in {there for kind, _, there in self.up if kind == CLIENT}}
        for kind, one, there in self.up:
            if kind == CLIENT and there not in self.dead:
                told[one] |= behind[there]
        for key in self.left.keys() - missed:
            if key[0] == CLIENT:
                told[key[1]] |= self.left[key]
        for key in missed:
            if key[0] == CLIENT:
                self.left[key] -= told[key[1]]
        for kind, one, other in self.left.keys() | self.up:
            if kind == MESH:
                told[one].add(other)
                told[other].add(one)
            elif kind == CLIENT:
                told[one] |= self.left.get((kind, one, other), set())
        living = self.actors.keys() - self.dead
        paths = {(name, other) for name in living for other in told[name] & living if name != other}
        lost = self.connected - paths
        assert not lost, f"{sorted(lost)} have lost all paths"
        self.connected = paths

    # Until nothing moves any more.

    def settle(self) -> None:
        quiet = 0
        for _ in range(40):
            before = (len(self.log), frozenset(self.up))
            for name in sorted(self.actors.keys() - self.dead):
                self.deliver(name, len(self.log))
                self.turn(name)
                self.step(name)
                self.check()
            self.connect_all()
            self.check()
            quiet = quiet + 1 if (len(self.log), frozenset(self.up)) == before else 0
            if quiet == 3:  # a reflector without clients stays for a while
                return
        raise AssertionError("it does not come to rest")


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


def world(count: int, *zone_names: str, above: int = 100) -> World:
    nodes = [node(number, zone_names[number % len(zone_names)]) for number in range(1, count + 1)]
    made = World(nodes, ReflectorSettings(enabled=True, above_nodes=above))
    made.connect_all()
    made.check()
    return made
