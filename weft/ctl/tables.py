"""Lay rows out as text, in the two styles that calicoctl's users know.

Pure: rows of strings in, one string out. A cell stays on its line and does nothing to a terminal, whoever wrote it."""

from __future__ import annotations

from collections.abc import Sequence

COLUMN_GAP = 3
NARROWEST_COLUMN = 5


def columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with spaces, no lines: lists of resources. Ends with a newline."""
    rows = _plain_rows(rows)
    widths = _widths(headings, rows)
    lines = (
        "".join(
            cell.ljust(max(width, NARROWEST_COLUMN - COLUMN_GAP) + COLUMN_GAP)
            for cell, width in zip(row, widths, strict=True)
        )
        for row in (headings, *rows)
    )
    return "".join(line.rstrip() + "\n" for line in lines)


def grid(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> str:
    """A table with lines around it: addresses and sessions. `right` names headings aligned to the right."""
    rows = _plain_rows(rows)
    widths = _widths(headings, rows)
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+\n"

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.rjust(width) if heading in right else cell.ljust(width)
            for cell, width, heading in zip(row, widths, headings, strict=True)
        )
        return "| " + " | ".join(cells) + " |\n"

    heading_line = "| " + " | ".join(text.center(width) for text, width in zip(headings, widths, strict=True)) + " |\n"
    return rule + heading_line + rule + "".join(map(line, rows)) + (rule if rows else "")


def plain(text: str) -> str:
    r"""As it is, but for line ends and other characters that are not for printing: these as in Python, `\x1b`."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _plain_rows(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[plain(cell) for cell in row] for row in rows]


def _widths(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, cells)) for cells in zip(headings, *rows, strict=True)]
