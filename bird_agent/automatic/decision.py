"""Which sessions of the mesh, and with which reflectors, a node has while the fabric changes: make before break.

Pure: what the datastore says (perhaps late), and what the node sees of its own sessions. Nobody tells anybody to move;
each node gives a session up only when it can show that nobody loses a path by that:

* mesh -> reflectors. A node is `complete` when it has exchanged everything with all its reflectors and learns from them
  whatever it learns from the mesh, but for nodes that are not ours. The session of two complete nodes whose reflectors
  have exchanged everything goes.
* reflectors -> mesh. A reflector's sessions go when all mesh sessions have exchanged everything, bring whatever the
  reflector brings, and everybody has said that it knows of the mesh: from then on nobody gives a mesh session up.
* other reflectors. The old one's session goes when all new ones have exchanged everything, bring what it brings, and
  are meshed with it, so that its remaining clients are reached, and with all that it is meshed with. A dead one's goes
  when the new ones bring what is kept of it.

Records are of an epoch, a change of mode: what was said in an earlier one counts for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

from msgspec import Struct, field

from weft.model.address import IPNetwork
from weft.model.reflectors import AttachmentRecord, ReflectorRecord
from weft.reflectors.plan import Plan

Learnt = Mapping[str, Set[IPNetwork]]
_NOTHING: Set[IPNetwork] = frozenset()


class Shared(Struct, frozen=True):
    """What the datastore says: the same for all, but for how late they hear of it. Both records are by node."""

    plan: Plan
    attached: Mapping[str, AttachmentRecord] = field(default_factory=dict)
    serving: Mapping[str, ReflectorRecord] = field(default_factory=dict)

    def is_up(self, reflector: str) -> bool:
        record = self.serving.get(reflector)
        return record is not None and record.up

    def are_meshed(self, one: str, other: str) -> bool:
        """Whether one of the two reflectors says that they have exchanged everything."""
        return one == other or any(
            there in record.meshed
            for here, there in ((one, other), (other, one))
            if (record := self.serving.get(here)) is not None
        )


class Seen(Struct, frozen=True, kw_only=True):
    """What a node sees of its sessions, by the name of the other node. A session is there when it was decided for; it
    is settled when both sides have told everything.

    `fresh`: the node had no sessions before it joined a fabric with reflectors, and so none to lose. `strangers` have
    said nothing for so long that they cannot: they are not ours. `alone`: none of its reflectors has answered for a
    while. `waited`: so long that mesh sessions which have not come up will not."""

    mesh: Set[str] = frozenset()
    mesh_settled: Set[str] = frozenset()
    reflectors: Set[str] = frozenset()
    established: Set[str] = frozenset()
    settled: Set[str] = frozenset()
    by_mesh: Learnt = field(default_factory=dict)
    by_reflector: Learnt = field(default_factory=dict)
    fresh: bool = False
    strangers: Set[str] = frozenset()
    alone: bool = False
    waited: bool = False


class Decision(Struct, frozen=True):
    """Members that there is no mesh session with, reflectors that there is one with, and what to say about oneself;
    `record` None: nothing, as long as the fabric has never had reflectors."""

    without_mesh: frozenset[str] = frozenset()
    reflectors: frozenset[str] = frozenset()
    record: AttachmentRecord | None = None


def decide(own: str, shared: Shared, seen: Seen) -> Decision:
    """The sessions that `own` has next."""
    if own not in shared.plan.domain_of:
        return Decision()
    if shared.plan.mode == "mesh":
        return _in_mesh(own, shared, seen)
    return _with_reflectors(own, shared, seen)


def _in_mesh(own: str, shared: Shared, seen: Seen) -> Decision:
    epoch = shared.plan.epoch
    over = bool(seen.reflectors) and _mesh_is_enough(own, shared, seen)
    kept = frozenset[str]() if over else frozenset(seen.reflectors & _there(shared, seen))
    if not epoch:
        return Decision(reflectors=kept)
    attached = tuple(sorted(kept & seen.settled))
    return Decision(reflectors=kept, record=AttachmentRecord(epoch=epoch, attached=attached))


def _mesh_is_enough(own: str, shared: Shared, seen: Seen) -> bool:
    for name in shared.plan.domain_of:
        if name == own or (seen.waited and name not in seen.mesh_settled):
            continue
        record = shared.attached.get(name)
        knows = record is None or record.epoch >= shared.plan.epoch
        if not (knows and name in seen.mesh_settled):
            return False
    brought = _union(seen.by_mesh, seen.mesh_settled)
    return all(seen.by_reflector.get(name, _NOTHING) <= brought for name in seen.established)


def _with_reflectors(own: str, shared: Shared, seen: Seen) -> Decision:
    plan = shared.plan
    wanted = plan.reflectors_for(own)
    attached = bool(wanted) and frozenset(wanted) <= seen.settled
    ours = seen.settled & frozenset(wanted)
    brought = _union(seen.by_reflector, ours)
    said = _said(shared, own)
    moving = seen.mesh - seen.strangers  # what strangers bring, no reflector does, and their sessions stay
    complete = said or seen.fresh or (attached and _union(seen.by_mesh, moving) <= brought)
    may_go = said or seen.fresh
    without = frozenset(
        name for name in plan.domain_of if name != own and _needs_no_mesh(name, shared, seen, (ours, brought), may_go)
    )
    may_be = (*wanted, *(plan.reserve_for(own) if seen.alone else ()))
    up = frozenset(name for name in may_be if shared.is_up(name) or name in seen.established)
    kept = frozenset(_still_needed(seen.reflectors - up, shared, seen, ours if attached else None))
    record = AttachmentRecord(epoch=plan.epoch, attached=tuple(sorted((up | kept) & seen.settled)), complete=complete)
    return Decision(without, up | kept, record)


def _needs_no_mesh(name: str, shared: Shared, seen: Seen, ours: tuple[Set[str], Set[IPNetwork]], said: bool) -> bool:
    """Whether there need be no mesh session with another member. `ours`: reflectors that are settled and stay, and what
    they bring; `said`: this node has said that it is complete."""
    both = said and _said(shared, name)
    if name not in seen.mesh:
        return both or (name not in shared.attached and name not in seen.strangers)
    if not both:
        return False
    theirs = shared.attached[name].attached
    reflectors, brought = ours
    linked = any(shared.are_meshed(here, there) for here in reflectors for there in theirs)
    return linked and seen.by_mesh.get(name, _NOTHING) <= brought


def _still_needed(leaving: Set[str], shared: Shared, seen: Seen, ours: Set[str] | None) -> Iterator[str]:
    """Reflectors that are no longer ours, and whose sessions stay. `ours` are those that are; None: they are not all
    settled yet."""
    for name in leaving & _there(shared, seen):
        if ours is not None:
            covered = seen.by_reflector.get(name, _NOTHING) <= _union(seen.by_reflector, ours)
            if covered and (name not in seen.established or _reach_as_far(ours, name, shared)):
                continue
        yield name


def _there(shared: Shared, seen: Seen) -> Set[str]:
    """Reflectors that may be used. One that is said to be gone is there as long as it answers: the news may be old.
    And as long as routes of it are kept (RFC 4724), which end with the session."""
    left_behind = {name for name, learnt in seen.by_reflector.items() if learnt}
    return shared.serving.keys() | seen.established | left_behind


def _reach_as_far(ours: Set[str], name: str, shared: Shared) -> bool:
    """Whether reflectors of ours have exchanged everything with that one, and with all that it has done so with, by
    its own word or by theirs: other clients of it may be on their way there."""
    behind = [other for other in shared.serving if shared.are_meshed(name, other)]
    return all(any(shared.are_meshed(here, there) for here in ours) for there in behind)


def _said(shared: Shared, name: str) -> bool:
    """Whether a node has said, in this epoch, that it is complete."""
    record = shared.attached.get(name)
    return record is not None and record.epoch == shared.plan.epoch and record.complete


def _union(learnt: Learnt, names: Set[str]) -> Set[IPNetwork]:
    return frozenset().union(*(learnt[name] for name in names if name in learnt))
