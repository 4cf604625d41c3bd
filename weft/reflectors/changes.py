"""Changes of the fabric's state: the one value that nodes write together, by compare and swap.

Pure: each function returns the next state, or None where nothing is to be written. Whoever writes it first, it says the
same but for who wrote it; a writer that lost reads again and asks again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from weft.model.reflectors import ReflectorSettings, ReflectorState, Replacement
from weft.reflectors.plan import Fabric, Plan, domain_of, plan, wanted_mode

MOST_REPLACED: Final = 1000


class Writer(Struct, frozen=True):
    """Who writes, and when."""

    node: str
    at: datetime


def change_mode(
    fabric: Fabric, settings: ReflectorSettings, state: ReflectorState, writer: Writer
) -> ReflectorState | None:
    """To what the number of nodes and the settings ask for."""
    mode, why = wanted_mode(fabric, settings, state)
    if mode == state.mode:
        return None
    changed: ReflectorState = msgspec.structs.replace(
        state, mode=mode, epoch=state.epoch + 1, why=why, by=writer.node, since=writer.at
    )
    return _tidy(fabric, settings, changed)


def replace(
    fabric: Fabric, settings: ReflectorSettings, state: ReflectorState, dead: Mapping[str, str], writer: Writer
) -> ReflectorState | None:
    """Without the dead reflectors (node -> why), as far as they are still chosen. None, too, where nobody could take
    the place: a domain's last reflector stays until somebody can."""
    chosen = plan(fabric, settings, state).chosen
    gone = [name for name in sorted(dead) if name in chosen]
    if not gone:
        return None
    entries = tuple(
        Replacement(
            node=name,
            domain=domain_of(fabric.nodes[name], settings),
            why=dead[name],
            by=writer.node,
            at=writer.at,
        )
        for name in gone
    )
    before = tuple(each for each in state.replaced if each.node not in gone)
    changed: ReflectorState = msgspec.structs.replace(state, replaced=(*before, *entries)[-MOST_REPLACED:])
    if not plan(fabric, settings, changed).chosen:
        return None
    return _tidy(fabric, settings, changed)


def welcome_back(
    fabric: Fabric, settings: ReflectorSettings, state: ReflectorState, writer: Writer
) -> ReflectorState | None:
    """The writer was replaced and lives again: it is a candidate behind all others, so nothing moves for it."""
    entry = next((each for each in state.replaced if each.node == writer.node), None)
    if entry is None or entry.returned is not None:
        return None
    returned: Replacement = msgspec.structs.replace(entry, returned=writer.at)
    others = tuple(each for each in state.replaced if each.node != writer.node)
    return _tidy(fabric, settings, msgspec.structs.replace(state, replaced=(*others, returned)))


def _tidy(fabric: Fabric, settings: ReflectorSettings, state: ReflectorState) -> ReflectorState:
    """Without entries that make no difference any more: of nodes that are gone, and of returned ones that would not be
    chosen without theirs either."""
    kept = [each for each in state.replaced if each.node in fabric.nodes]
    with_all = _chosen(fabric, settings, state, kept)
    for each in [each for each in kept if each.returned is not None]:
        without = [other for other in kept if other is not each]
        if _chosen(fabric, settings, state, without).reflectors == with_all.reflectors:
            kept = without
    tidied: ReflectorState = msgspec.structs.replace(state, replaced=tuple(kept))
    return tidied


def _chosen(fabric: Fabric, settings: ReflectorSettings, state: ReflectorState, kept: list[Replacement]) -> Plan:
    """As if there were reflectors: what an entry means must not depend on the mode."""
    return plan(fabric, settings, msgspec.structs.replace(state, mode="reflectors", replaced=tuple(kept)))
