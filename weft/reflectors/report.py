"""What an administrator sees of automatic reflectors, and what other settings would change.

Pure. Of sessions it counts those inside the fabric: mesh, clients with reflectors, reflectors with each other."""

from __future__ import annotations

import msgspec

from weft.model.base import Value, written
from weft.model.reflectors import ReflectorSettings, ReflectorState
from weft.reflectors.plan import Plan, plan, wanted_mode
from weft.reflectors.progress import Awaited, awaited
from weft.reflectors.stored import Stored


class DomainReport(Value, frozen=True, kw_only=True):
    """One failure domain: its members, its reflectors best first, and how many of its members have all of theirs."""

    domain: str = written("")
    nodes: int = written(0)
    reflectors: tuple[str, ...] = written(())
    up: tuple[str, ...] = written(())
    attached: int = written(0)


class Effect(Value, frozen=True, kw_only=True):
    """What settings come to: the mode, the reflectors, and the number of sessions."""

    mode: str = written("mesh")
    why: str = ""
    domains: tuple[DomainReport, ...] = written(())
    sessions: int = written(0)
    most_on_one_node: int = written(0)


class ReflectorReport(Value, frozen=True, kw_only=True):
    """How it stands; `then`, what would come of other settings, with the sessions that would begin and end."""

    settings: ReflectorSettings
    state: ReflectorState
    nodes: int = written(0)
    now: Effect
    leaving: tuple[str, ...] = ()
    """Reflectors that are no longer chosen and still serve."""
    awaited: tuple[Awaited, ...] = ()
    """What a change that is under way still waits for."""
    then: Effect | None = None
    begun: int = 0
    ended: int = 0


def report(stored: Stored, other: ReflectorSettings | None = None) -> ReflectorReport:
    """`other`: settings to try."""
    made = plan(stored.fabric, stored.settings, stored.state)
    now = _effect(made, stored.state.why, stored)
    found = ReflectorReport(
        settings=stored.settings,
        state=stored.state,
        nodes=len(made.domain_of),
        now=now,
        awaited=awaited(stored, made),
        leaving=tuple(sorted(name for name, one in stored.serving.items() if one.up and name not in made.chosen)),
    )
    if other is None:
        return found
    mode, why = wanted_mode(stored.fabric, other, stored.state)
    turned: ReflectorState = msgspec.structs.replace(stored.state, mode=mode)
    then = plan(stored.fabric, other, turned)
    before, after = _sessions(made), _sessions(then)
    common = _common(made, then, before & after)
    tried: ReflectorReport = msgspec.structs.replace(
        found,
        then=_effect(then, why, None),
        begun=_count(then, after) - common,
        ended=_count(made, before) - common,
    )
    return tried


def _effect(made: Plan, why: str, stored: Stored | None) -> Effect:
    by_domain: dict[str, list[str]] = {}
    for name, domain in made.domain_of.items():
        by_domain.setdefault(domain, []).append(name)
    domains = []
    for domain, names in sorted(by_domain.items()):
        ours = made.reflectors.get(domain, ())
        up = [one for one in ours if stored is not None and one in stored.serving and stored.serving[one].up]
        attached = 0 if stored is None else sum(_is_attached(name, made, stored) for name in names)
        domains.append(DomainReport(domain=domain, nodes=len(names), reflectors=ours, up=tuple(up), attached=attached))
    sessions = _sessions(made)
    return Effect(
        mode=made.mode,
        why=why,
        domains=tuple(domains),
        sessions=_count(made, sessions),
        most_on_one_node=_most(made),
    )


def _is_attached(name: str, made: Plan, stored: Stored) -> bool:
    ours, record = made.reflectors_for(name), stored.attached.get(name)
    return bool(ours) and record is not None and record.epoch == made.epoch and set(ours) <= set(record.attached)


def _sessions(made: Plan) -> set[tuple[str, str]]:
    """Those with reflectors: (client, reflector), and between two reflectors with a mark. A mesh is only counted."""
    found = {(name, there) for name in made.domain_of for there in made.reflectors_for(name)}
    ordered = sorted(made.chosen)
    found |= {(f"reflector {one}", other) for one in ordered for other in ordered if one < other}
    return found


def _count(made: Plan, sessions: set[tuple[str, str]]) -> int:
    members = len(made.domain_of)
    return members * (members - 1) // 2 if made.mode == "mesh" else len(sessions)


def _common(made: Plan, then: Plan, both: set[tuple[str, str]]) -> int:
    if made.mode == then.mode == "mesh":
        return _count(made, set())
    return len(both)


def _most(made: Plan) -> int:
    """The sessions of the node, with its reflector, that has most."""
    members = len(made.domain_of)
    if made.mode == "mesh":
        return max(0, members - 1)
    clients = dict.fromkeys(made.chosen, 0)
    for name in made.domain_of:
        for there in made.reflectors_for(name):
            clients[there] += 1
    own = max((len(made.reflectors_for(name)) for name in made.domain_of), default=0)
    return max((count + len(clients) - 1 for count in clients.values()), default=0) + own
