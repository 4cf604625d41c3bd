"""What a fabric that turns to reflectors, or back to a mesh, still waits for, and of whom.

Pure: only from what is stored. The order is that in which things happen, so the first line is what holds up the others.
What each node waits for before it gives a session up is decided in bird_agent/automatic/decision.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from weft.model.base import Value, written
from weft.reflectors.plan import Plan, plan, wanted_mode
from weft.reflectors.stored import Stored

MESH_PATIENCE_S: Final = 120.0
"""So long a node that turns back to the mesh waits for mesh sessions that do not come up."""
LINGER_PART: Final = 0.5
"""Of the time after which a silent reflector counts as dead: so long one that is no longer chosen waits for clients."""


class Awaited(Value, frozen=True, kw_only=True):
    """`what` has yet to be done by the nodes `names`; by anybody where there are none."""

    what: str = written("")
    names: tuple[str, ...] = ()


def awaited(stored: Stored, made: Plan) -> tuple[Awaited, ...]:
    """In the order in which it happens; empty where the fabric is what it should be."""
    return tuple(Awaited(what=what, names=tuple(names)) for what, names in _steps(stored, made))


def _steps(stored: Stored, made: Plan) -> Iterator[tuple[str, list[str]]]:
    mode, why = wanted_mode(stored.fabric, stored.settings, stored.state)
    if mode != made.mode:
        yield f"an agent to say that the fabric turns to {'a mesh' if mode == 'mesh' else mode} ({why})", []
        state = msgspec.structs.replace(stored.state, mode=mode, epoch=made.epoch + 1)
        made = plan(stored.fabric, stored.settings, state)
    steps = _to_mesh(stored, made) if made.mode == "mesh" else _to_reflectors(stored, made)
    linger_s = stored.settings.replace_after_seconds * LINGER_PART
    leaving = {name for name, one in stored.serving.items() if one.up and name not in made.chosen}
    for what, names in (*steps, (f"reflectors to end, {linger_s:g} s after their last client has left", leaving)):
        if names:
            yield what, sorted(names)


def _to_reflectors(stored: Stored, made: Plan) -> Iterator[tuple[str, set[str]]]:
    serving, attached = stored.serving, stored.attached
    known = made.chosen & serving.keys()
    yield "reflectors to be started by their nodes' agents", set(made.chosen - known)
    yield "reflectors to get an address from the pools", {name for name in known if not serving[name].addresses}
    silent = {name for name in known if serving[name].addresses and not serving[name].up}
    yield "reflectors to listen on their addresses", silent
    up = sorted(name for name in known if serving[name].up)
    apart = {
        f"{one}-{other}"
        for one in up
        for other in up
        if one < other and other not in serving[one].meshed and one not in serving[other].meshed
    }
    yield "reflectors to tell each other everything", apart
    heard = {name for name, one in attached.items() if name in made.domain_of and one.epoch == made.epoch}
    yield "nodes to hear of it (mesh sessions stay where no agent of ours runs)", set(made.domain_of.keys() - heard)
    without = {name for name in heard if not set(made.reflectors_for(name)) <= set(attached[name].attached)}
    yield "nodes to have sessions with all their reflectors, and everything told over them", without
    partly = {name for name in heard - without if not attached[name].complete}
    yield "nodes whose reflectors have yet to bring every route that the mesh brings", partly


def _to_mesh(stored: Stored, made: Plan) -> Iterator[tuple[str, set[str]]]:
    said = {name: one for name, one in stored.attached.items() if name in made.domain_of}
    yield "nodes to hear of it", {name for name, one in said.items() if one.epoch != made.epoch}
    still = {name for name, one in said.items() if one.epoch == made.epoch and one.attached}
    yield "nodes to have everything from the mesh that their reflectors bring, and give those sessions up", still
