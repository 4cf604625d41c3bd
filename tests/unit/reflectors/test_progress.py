"""What a fabric that turns is said to wait for."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.unit.reflectors.fabrics import ON, SETTINGS, fabric, zones
from weft.ctl import reflectors_view
from weft.model.reflectors import AttachmentRecord, ReflectorRecord, ReflectorSettings, ReflectorState
from weft.reflectors.plan import plan
from weft.reflectors.report import report
from weft.reflectors.stored import Stored

NODES = zones(6, "a")
FABRIC = fabric(NODES)
NAMES = sorted(node.name for node in NODES)
FIRST, SECOND = sorted(plan(FABRIC, SETTINGS, ON).chosen)
UP = ReflectorRecord(addresses=(ip_address("10.9.0.1"),), up=True)
MESHED = {FIRST: UP, SECOND: ReflectorRecord(addresses=(ip_address("10.9.0.2"),), up=True, meshed=(FIRST,))}
DONE = AttachmentRecord(epoch=1, attached=(FIRST, SECOND), complete=True)
MESH = ReflectorState(mode="mesh", epoch=2)


def said(stored: Stored) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.what, one.names) for one in report(stored).awaited]


@pytest.mark.parametrize(
    ("serving", "attached", "what", "names"),
    [
        ({}, {}, "started by their nodes' agents", (FIRST, SECOND)),
        ({FIRST: ReflectorRecord(), SECOND: UP}, {}, "get an address from the pools", (FIRST,)),
        ({FIRST: UP, SECOND: ReflectorRecord(addresses=UP.addresses)}, {}, "listen on their addresses", (SECOND,)),
        ({FIRST: UP, SECOND: UP}, {}, "tell each other everything", (f"{FIRST}-{SECOND}",)),
        (MESHED, {}, "nodes to hear of it", tuple(NAMES)),
        (MESHED, dict.fromkeys(NAMES, AttachmentRecord()), "nodes to hear of it", tuple(NAMES)),
        (
            MESHED,
            dict.fromkeys(NAMES, DONE) | {"n3": AttachmentRecord(epoch=1, attached=(FIRST,))},
            "nodes to have sessions with all their reflectors",
            ("n3",),
        ),
        (
            MESHED,
            dict.fromkeys(NAMES, DONE) | {"n4": AttachmentRecord(epoch=1, attached=(FIRST, SECOND))},
            "nodes whose reflectors have yet to bring every route",
            ("n4",),
        ),
    ],
    ids=["not started", "no address", "not listening", "not meshed", "silent", "not heard", "not attached", "partly"],
)
def test_on_the_way_to_reflectors_the_first_line_is_what_holds_up_the_rest(
    serving: dict[str, ReflectorRecord], attached: dict[str, AttachmentRecord], what: str, names: tuple[str, ...]
) -> None:
    (first, of), *_ = said(Stored(FABRIC, SETTINGS, ON, serving, attached))
    assert what in first
    assert of == names


def test_a_fabric_at_rest_waits_for_nothing() -> None:
    assert said(Stored(FABRIC, SETTINGS, ON, MESHED, dict.fromkeys(NAMES, DONE))) == []
    assert said(Stored(FABRIC)) == []
    over = dict.fromkeys(NAMES, AttachmentRecord(epoch=2))
    assert said(Stored(FABRIC, ReflectorSettings(), MESH, {}, over)) == []


def test_after_a_change_of_settings_the_fabric_has_yet_to_be_told() -> None:
    turn, start, hear = said(Stored(FABRIC, SETTINGS))
    assert turn == ("an agent to say that the fabric turns to reflectors (6 nodes, more than 3)", ())
    assert (start[1], hear[1]) == ((FIRST, SECOND), tuple(NAMES))
    turn, hear, end = said(Stored(FABRIC, ReflectorSettings(), ON, MESHED, dict.fromkeys(NAMES, DONE)))
    assert turn == ("an agent to say that the fabric turns to a mesh (automatic reflectors are not enabled)", ())
    assert (hear[1], end[1]) == (tuple(NAMES), (FIRST, SECOND))


def test_on_the_way_back_it_is_said_who_keeps_sessions_with_reflectors_how_long_and_why() -> None:
    attached = dict.fromkeys(NAMES, AttachmentRecord(epoch=2)) | {
        "n1": DONE,
        "n2": AttachmentRecord(epoch=2, attached=(FIRST,)),
    }
    settings = ReflectorSettings(replace_after_seconds=40)
    found = report(Stored(FABRIC, settings, MESH, MESHED, attached))
    assert [one.names for one in found.awaited] == [("n1",), ("n2",), (FIRST, SECOND)]
    shown = reflectors_view.text(found)
    assert "given up only when those that replace them bring the same routes" in shown
    assert "that do not come up are waited for 120 s). Awaited:\n  nodes to hear of it: n1\n" in shown
    assert f"  reflectors to end, 20 s after their last client has left: {FIRST}, {SECOND}\n" in shown


def test_of_many_nodes_ten_are_named() -> None:
    many = fabric(zones(30, "a"))
    shown = reflectors_view.text(report(Stored(many, SETTINGS, ON)))
    assert "  nodes to hear of it" in shown
    assert " and 20 more\n" in shown
