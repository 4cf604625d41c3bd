"""This node's part in a fabric with automatic reflectors: when to decide again, and what comes of it.

Pure: events, what is seen of the sessions, and the time go in. It remembers what cannot be told from one look: since
when nobody answers, what was attached a moment ago, and who has never said anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct, field

from bird_agent.automatic.decision import Decision, Seen, Shared, decide
from bird_agent.automatic.sight import Group
from bird_agent.automatic.suspicion import Suspicions
from bird_agent.automatic.view import RecordsView
from bird_agent.nodes import addresses_of
from bird_agent.session_config import SessionKind
from weft.model.address import IPAddress
from weft.model.reflectors import AttachmentRecord, ReflectorState
from weft.reflectors.changes import Writer, change_mode, replace, welcome_back
from weft.reflectors.plan import Fabric, Plan, place_in_line, plan
from weft.reflectors.progress import MESH_PATIENCE_S

ALONE_AFTER_S: Final = 10.0
STRANGER_AFTER_S: Final = 30.0
STILL_ATTACHED_S: Final = 10.0
AGAIN_S: Final = 1.0
_LINE_STEP_S: Final = 0.02
_LONGEST_WAIT_S: Final = 5.0
_NOWHERE: Final = Fabric({})


class AutomaticSessions(Struct, frozen=True):
    """What the planner of sessions has to know: the members that there is no mesh session with, and the reflectors
    that there are sessions with, by node, with their addresses."""

    without_mesh: frozenset[str] = frozenset()
    reflectors: Mapping[str, tuple[IPAddress, ...]] = field(default_factory=dict)


class _Since(Struct):
    """Since when something has been so without a break; None: it is not so."""

    at: float | None = None

    def for_s(self, holds: bool, now: float) -> float:
        if not holds:
            self.at = None
        elif self.at is None:
            self.at = now
        return 0.0 if self.at is None else now - self.at


class Automatic:
    """One node's. `fresh`: it has no sessions that were there before this agent."""

    def __init__(self, node: str, fresh: bool = False) -> None:
        self._node = node
        self._may_be_fresh = fresh
        self._fresh: bool | None = None
        self._fabric = _NOWHERE
        self._plan: Plan | None = None
        self._decision: Decision | None = None
        self._dirty = True
        self._again_at = 0.0
        self._alone, self._waiting, self._living = _Since(), _Since(), _Since()
        self._recordless: dict[str, float] = {}
        self._attached_at: dict[str, float] = {}
        self._addresses: dict[str, tuple[IPAddress, ...]] = {}
        self._write_after: tuple[ReflectorState, float] | None = None
        self.records = RecordsView()
        self.suspicions = Suspicions(node)
        self.sessions = AutomaticSessions()
        self.record: AttachmentRecord | None = None
        """What this node should say of itself; None: nothing."""

    @property
    def plan(self) -> Plan:
        if self._plan is None:
            self._plan = plan(self._fabric, self.records.settings, self.records.state)
        return self._plan

    @property
    def fabric(self) -> Fabric:
        return self._fabric

    @property
    def shared(self) -> Shared:
        return Shared(self.plan, self.records.attached, self.records.serving)

    @property
    def chosen(self) -> bool:
        """Whether this node is to be a reflector, or still is one."""
        return self._node in self.plan.chosen or self._node in self.records.serving

    @property
    def ways(self) -> dict[IPAddress, IPAddress]:
        """The addresses of all other nodes' reflectors, each with that of its node. What BGP tells of them comes by
        those very reflectors, so without these two domains that lost each other would never meet again."""
        nodes = self._fabric.nodes if self._node in self._fabric.nodes else {}
        found: dict[IPAddress, IPAddress] = {}
        for name in sorted(self.records.serving.keys() & nodes.keys() - {self._node}):
            behind = {each.version: each for each in addresses_of(nodes[name])}
            for address in self.records.serving[name].addresses:
                if address.version in behind:
                    found[address] = behind[address.version]
        return found

    def on_fabric(self, fabric: Fabric) -> None:
        """Nodes or configuration have changed."""
        self._fabric, self._plan, self._dirty = fabric, None, True

    def on_records(self) -> None:
        """`records` have changed."""
        self._plan, self._dirty = None, True

    def on_session(self) -> None:
        """A session came up, went down, or has told everything."""
        self._dirty = True

    def due(self, now: float) -> bool:
        """Whether to look again: something has changed, or a change is under way."""
        if self._dirty and now >= self._again_at:
            return True
        return not self._at_rest() and now >= self._again_at

    def decide(self, look: Callable[[SessionKind], Group], now: float) -> bool:
        """Whether `sessions` have changed. `look` tells of this node's sessions as they are."""
        first, self._dirty, self._again_at = self._decision is None, False, now + AGAIN_S
        shared, own = self.shared, self.records.attached.get(self._node)
        reflectors = look(SessionKind.REFLECTOR)
        if self._fresh is None:
            self._fresh = self._may_be_fresh and shared.plan.mode == "reflectors" and own is None
        there = reflectors.there
        if first and own is not None:
            there = frozenset(own.attached)  # of an agent before this one
        mesh = look(SessionKind.MESH) if there or shared.plan.mode == "reflectors" else Group()
        seen = Seen(
            mesh=mesh.there | (self._may_be_meshed(shared) if first else frozenset()),
            mesh_settled=mesh.settled,
            reflectors=there,
            established=reflectors.established,
            settled=reflectors.settled,
            by_mesh=mesh.learnt,
            by_reflector=reflectors.learnt,
            fresh=self._fresh,
            strangers=self._strangers(shared, now),
            alone=self._is_alone(shared, mesh, reflectors, now),
            waited=self._waiting.for_s(shared.plan.mode == "mesh" and bool(there), now) >= MESH_PATIENCE_S,
        )
        decision = decide(self._node, shared, seen)
        self._decision = decision
        self.record = self._with_lately_attached(decision, now)
        leaving = shared.serving.keys() - shared.plan.chosen
        self.suspicions.on_sessions(leaving | set(shared.plan.reflectors_for(self._node)), reflectors.established)
        before = self.sessions
        known = self._addresses | {name: record.addresses for name, record in shared.serving.items()}
        self._addresses = {name: known[name] for name in sorted(decision.reflectors & known.keys())}
        self.sessions = AutomaticSessions(decision.without_mesh, self._addresses)
        return self.sessions != before

    def next_state(self, now: float, wall: float) -> ReflectorState | None:
        """What this node would write of the state that all share, when its turn has come. Every node wants the same;
        they stand in line so that not all of them try at once. `now` is of a clock that nobody sets."""
        wanted = self._wanted_state(now, datetime.fromtimestamp(wall, UTC).replace(microsecond=0))
        if wanted is None:
            self._write_after = None
            return None
        plain: ReflectorState = msgspec.structs.replace(self.records.state, by="")
        if self._write_after is None or self._write_after[0] != plain:
            place = place_in_line(self.plan, self._node, self.records.state.epoch)
            self._write_after = plain, now + min(place * _LINE_STEP_S, _LONGEST_WAIT_S)
        return wanted if now >= self._write_after[1] else None

    def leftovers(self, now: float) -> list[str]:
        """Nodes that are dead and still said to be reflectors: their records are to go."""
        return self.suspicions.leftovers(self.shared, self.records.settings.replace_after_seconds, now)

    def _wanted_state(self, now: float, at: datetime) -> ReflectorState | None:
        settings, state, fabric = self.records.settings, self.records.state, self._fabric
        if self._node not in fabric.nodes:
            return None
        writer = Writer(self._node, at)
        changed = change_mode(fabric, settings, state, writer)
        if changed is not None:
            return changed
        dead = self.suspicions.dead(self.shared, settings.replace_after_seconds, now)
        if dead:
            return replace(fabric, settings, state, dead, writer)
        out = any(each.node == self._node and each.returned is None for each in state.replaced)
        if self._living.for_s(out, now) >= settings.return_after_seconds:
            return welcome_back(fabric, settings, state, writer)
        return None

    def _at_rest(self) -> bool:
        decision, made = self._decision, self.plan
        if decision is None or made.domain_of.keys() <= {self._node}:
            return decision is not None
        if made.mode == "mesh":
            return not decision.reflectors
        if decision.reflectors != frozenset(made.reflectors_for(self._node)) or decision.record is None:
            return False
        whole = len(decision.without_mesh) == len(made.domain_of) - (self._node in made.domain_of)
        return whole and decision.record.attached == tuple(sorted(decision.reflectors))

    def _strangers(self, shared: Shared, now: float) -> frozenset[str]:
        """Nodes that have said nothing for a while after this one could first have heard it."""
        silent = shared.plan.domain_of.keys() - shared.attached.keys() if shared.plan.mode == "reflectors" else set()
        self._recordless = {name: self._recordless.get(name, now) for name in silent}
        return frozenset(name for name, since in self._recordless.items() if now - since >= STRANGER_AFTER_S)

    def _may_be_meshed(self, shared: Shared) -> Set[str]:
        """An agent before this one may have had sessions with nodes that have said nothing: strangers, and nodes that
        were restarted before they could. A node that has just joined wants none, and then none comes up."""
        return frozenset() if self._fresh else shared.plan.domain_of.keys() - shared.attached.keys() - {self._node}

    def _is_alone(self, shared: Shared, mesh: Group, reflectors: Group, now: float) -> bool:
        """A node of a mesh that is turning still has the mesh: its reflectors may take their time. So may others,
        which are restarted; but when all have fallen silent, they are dead."""
        ours, own = frozenset(shared.plan.reflectors_for(self._node)), shared.attached.get(self._node)
        said = own is not None and own.epoch == shared.plan.epoch and own.complete
        relies = self._fresh or said or not mesh.established
        alone = relies and bool(ours) and not reflectors.established & ours
        return self._alone.for_s(alone, now) >= ALONE_AFTER_S or (alone and ours <= reflectors.silent)

    def _with_lately_attached(self, decision: Decision, now: float) -> AttachmentRecord | None:
        """A session that is back in a moment is no news for a thousand nodes."""
        record = decision.record
        if record is None:
            self._attached_at.clear()
            return None
        for name in record.attached:
            self._attached_at[name] = now
        self._attached_at = {
            name: at
            for name, at in self._attached_at.items()
            if name in decision.reflectors and now - at < STILL_ATTACHED_S
        }
        attached: AttachmentRecord = msgspec.structs.replace(record, attached=tuple(sorted(self._attached_at)))
        return attached
