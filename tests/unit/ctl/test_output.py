"""What weftctl prints: tables with calicoctl's headings, and YAML that reads back as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weft.ctl import listing
from weft.ctl.output import to_yaml
from weft.ctl.tables import columns, grid
from weft.model.codec import decode_manifests, to_manifest
from weft.model.kinds import KINDS

texts = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=12)


@given(value=texts)
@example("80:30")
@example("1e3")
@example("0x1F")
@example("010")
@example("yes")
@example("null")
@example("2026-01-01")
@example("~")
@example("12_3")
@example("<<")
@example("=")
@example("a: b #c")
def test_every_annotation_survives_being_printed_and_read(value: str) -> None:
    document: dict[str, Any] = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "Tier",
        "metadata": {"name": "t", "annotations": {"a": value}},
        "spec": {"order": 10.5},
    }
    read = decode_manifests(to_yaml(document), "test")
    assert to_manifest(read[0])["metadata"]["annotations"]["a"] == value


def test_columns_are_padded_as_wide_as_their_longest_cell() -> None:
    assert columns(("NAME", "ORDER"), [("a-long-name", "1"), ("b", "")]) == (
        "NAME          ORDER\na-long-name   1\nb\n"
    )


@pytest.mark.parametrize("table", [columns, grid])
def test_what_would_do_something_to_a_terminal_is_shown_as_python_writes_it(table: Callable[..., str]) -> None:
    text = table(("NAME", "N"), [("a\n\x1b[2J\u202eü", "1")])
    assert r"a\n\x1b[2J\u202eü" in text
    assert text.replace("\n", "").isprintable()
    assert text.count("\n") == table(("NAME", "N"), [("a", "1")]).count("\n")


def test_a_grid_has_centred_headings_and_aligns_numbers_to_the_right() -> None:
    assert grid(("NAME", "N"), [("a", "1"), ("long-one", "20")], right=("N",)) == (
        "+----------+----+\n|   NAME   | N  |\n+----------+----+\n"
        "| a        |  1 |\n| long-one | 20 |\n+----------+----+\n"
    )
    assert grid(("A",), []) == "+---+\n| A |\n+---+\n"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wide", [False, True], ids=["narrow", "wide"])
def test_every_kind_can_be_listed_even_with_nothing_in_it(kind: str, wide: bool) -> None:
    headings = listing.headings_of(kind, wide)
    printed = listing.render(kind, [{"kind": kind, "metadata": {"name": "x"}}], headings)
    assert printed.splitlines()[0].split() == list(headings)


@pytest.mark.parametrize(
    ("kind", "heading", "spec", "expected"),
    [
        ("BGPPeer", "NODE", {}, "(global)"),
        ("BGPPeer", "NODE", {"nodeSelector": "all()"}, "all()"),
        ("BGPPeer", "NODE", {"node": "n1", "nodeSelector": ""}, "n1"),
        ("BGPConfiguration", "MESHENABLED", {"nodeToNodeMeshEnabled": False}, "false"),
        ("BGPConfiguration", "MESHENABLED", {}, "-"),
        ("IPPool", "VXLANMODE", {}, "Never"),
        ("IPPool", "NAT", {"natOutgoing": True}, "true"),
        ("Tier", "ORDER", {"order": 1000000.0}, "1000000"),
        ("Tier", "ORDER", {}, "<nil>"),
        ("GlobalNetworkSet", "NETS", {"nets": ["10.0.0.0/8"] * 30}, ("10.0.0.0/8," * 8)[:77] + "..."),
        ("WorkloadEndpoint", "WORKLOAD", {"pod": "p"}, "p"),
        ("Profile", "LABELS", {"labelsToApply": {"b": "2", "a": "1"}}, "a=1,b=2"),
        ("Node", "ASN", {"bgp": {}}, listing.CLUSTER_AS),
        ("Node", "ASN", {}, ""),
        ("BGPFilter", "NUMEXPORTV4", {"exportV4": [{}, {}]}, "2"),
    ],
)
def test_cells_say_what_calicoctl_says(kind: str, heading: str, spec: dict[str, Any], expected: str) -> None:
    assert listing.LISTINGS[kind].cells[heading]({"metadata": {"name": "x"}, "spec": spec}) == expected
