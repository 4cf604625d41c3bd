"""Reading manifests: every complaint names its file, its document and its line."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.ctl.errors import CommandError
from weft.ctl.messages import describe, summary
from weft.ctl.sources import read_documents, split
from weft.model.errors import ConflictError, NotFoundError, ValidationError

TIER = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: t%d}\n"


def names(text: str) -> list[tuple[str, int]]:
    return [(document.resource.name, document.position) for document in split(text, "f.yaml", "default")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", [], id="empty"),
        pytest.param("---\n---\n# only a comment\n", [], id="no documents"),
        pytest.param(TIER % 1, [("t1", 0)], id="one"),
        pytest.param("---\n" + TIER % 1 + "---\n" + TIER % 2, [("t1", 0), ("t2", 1)], id="leading separator"),
        pytest.param(TIER % 1 + "--- # next\n" + TIER % 2, [("t1", 0), ("t2", 1)], id="comment after the separator"),
        pytest.param(
            "apiVersion: projectcalico.org/v3\nkind: TierList\nitems:\n"
            "- metadata: {name: a}\n- metadata: {name: b}\n---\n" + TIER % 3,
            [("a", 0), ("b", 0), ("t3", 1)],
            id="lists",
        ),
    ],
)
def test_documents_keep_their_place(text: str, expected: list[tuple[str, int]]) -> None:
    assert names(text) == expected


def test_a_wrong_document_is_named_by_file_number_field_and_value() -> None:
    with pytest.raises(ValidationError) as wrong:
        list(split(f"{TIER % 1}---\n{TIER % 2}spec: {{ordre: 5}}\n", "f.yaml", "default"))
    assert describe(wrong.value).startswith("f.yaml, document 2: spec.ordre: 5 is not valid: ")
    assert "order" in describe(wrong.value)


def test_a_syntax_error_names_the_line_of_the_file() -> None:
    with pytest.raises(ValidationError) as wrong:
        list(split(f"{TIER % 1}---\nkind: [\n", "f.yaml", "default"))
    assert "line 6" in describe(wrong.value)


@pytest.mark.parametrize(
    ("kinds", "done", "failures", "expected"),
    [
        (["IPPool", "IPPool"], 2, [], "Successfully applied 2 'IPPool' resource(s)"),
        (["IPPool", "Tier"], 2, [], "Successfully applied 2 resource(s)"),
        (["IPPool"], 0, ["no"], "Failed to apply 'IPPool' resource: no"),
        (["Tier", "Tier"], 0, ["a", "b"], "Failed to apply any 'Tier' resources:\n  a\n  b"),
        (["Tier", "Node"], 1, ["a"], "Partial success: applied 1 out of 2 resources:\n  a"),
        (["Tier"] * 5, 0, ["a"], "Failed to apply any 'Tier' resources:\n  a\n  4 more were not tried"),
    ],
)
def test_a_summary_counts_as_calicoctl_does(kinds: list[str], done: int, failures: list[str], expected: str) -> None:
    assert summary("apply", kinds, done, failures) == expected


def test_errors_about_one_resource_name_it() -> None:
    assert describe(NotFoundError("Tier(t)")) == "resource does not exist: Tier(t)"
    assert describe(ConflictError("Tier(t)")).startswith("update conflict: Tier(t)")


def test_what_comes_from_stdin_and_is_no_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"kind: \xff")))
    with pytest.raises(CommandError, match="<stdin>: not UTF-8 text"):
        read_documents(["-"], "default", recursive=False, skip_empty=False)


KUBERNETES = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n"
_spoilt = st.builds(
    lambda text, at, length, put: text[:at] + put + text[at + length :],
    st.sampled_from([TIER % 1, f"{TIER % 1}---\n{KUBERNETES}", '{"apiVersion": "v1", "kind": "List", "items": []}']),
    st.integers(0, 200),
    st.integers(0, 20),
    st.text(st.sampled_from(":{}[]- \n\"'&*!|>%@`#,?0a\x00\x85\ufeff<~"), max_size=4),
)


@settings(max_examples=150)
@given(_spoilt)
def test_any_change_of_a_text_leaves_documents_or_a_complaint_about_the_file(text: str) -> None:
    try:
        found = list(split(text, "f.yaml", "default"))
    except ValidationError as error:
        sources = {error.source}
    else:
        sources = {one.source for one in found}
    assert sources <= {"f.yaml"}
