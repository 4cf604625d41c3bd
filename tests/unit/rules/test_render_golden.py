"""What whole small clusters become. WEFT_GOLDEN=write writes the files anew: read what changed before you commit."""

import os

import pytest

from tests.unit.rules.render_cases import CASES, path, scripts


@pytest.mark.parametrize("case", CASES)
def test_a_cluster_becomes_the_script_on_file(case: str) -> None:
    made = scripts(case)
    assert len(made) == 2
    for number, script in enumerate(made):
        # A batch's sets of names have no order; lines that do are those of one chain, which keep theirs.
        lines = "".join(f"{line}\n" for line in sorted(map(_settled, script.splitlines()), key=_object))
        if os.environ.get("WEFT_GOLDEN") == "write":
            path(case, number).write_text(lines)
        assert path(case, number).read_text() == lines


def _settled(line: str) -> str:
    """The elements of a set in order."""
    if " element " not in line:
        return line
    head, _, elements = line.rstrip(" }").partition("{ ")
    return f"{head}{{ {', '.join(sorted(elements.split(', ')))} }}"


_STEPS = [
    "add table",
    "add counter",
    "add set",
    "add map",
    "add chain",
    "flush chain",
    "delete element",
    "add element",
    "add rule",
]


def _object(line: str) -> tuple[int, str]:
    verb, kind, *rest = line.split()
    step = f"{verb} {kind}"
    return (_STEPS.index(step) if step in _STEPS else len(_STEPS), rest[2] if len(rest) > 2 else "")
