"""What a selector is made of: its syntax tree, and what can be computed from one.

Every function here is a recursion over the tree; parsing is `weft.selector.parser`'s."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, assert_never

from msgspec import Struct
from msgspec.structs import replace

Labels = Mapping[str, str]
Matcher = Callable[[Labels], bool]


class Compare(Struct, frozen=True):
    """A label against one value. An absent label matches only `!=`."""

    label: str
    operator: Literal["==", "!=", "contains", "starts with", "ends with"]
    value: str

    def __str__(self) -> str:
        return f"{self.label} {self.operator} {_quoted(self.value)}"


class Member(Struct, frozen=True):
    """A label against a set of values, sorted. An absent label matches only `not in`."""

    label: str
    operator: Literal["in", "not in"]
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.label} {self.operator} {{{', '.join(map(_quoted, self.values))}}}"


class Has(Struct, frozen=True):
    """That a label is there, with any value."""

    label: str

    def __str__(self) -> str:
        return f"has({self.label})"


class Everything(Struct, frozen=True):
    """`all()` and `global()` match any labels; where `global()` may stand, callers decide what it means."""

    word: Literal["all", "global"]

    def __str__(self) -> str:
        return f"{self.word}()"


class Not(Struct, frozen=True):
    operand: Node

    def __str__(self) -> str:
        return f"!{self.operand}"


class Junction(Struct, frozen=True):
    """All operands (`&&`) or any (`||`); at least two."""

    operator: Literal["&&", "||"]
    operands: tuple[Node, ...]

    def __str__(self) -> str:
        return f"({f' {self.operator} '.join(map(str, self.operands))})"


Node = Compare | Member | Has | Everything | Not | Junction


class Restriction(Struct, frozen=True):
    """What a match requires of one label.

    `values` None means any value; a restriction that cannot be met (`present` and `absent`, or no values)
    belongs to a selector that matches nothing."""

    present: bool = False
    absent: bool = False
    values: frozenset[str] | None = None


def _quoted(value: str) -> str:
    return f"'{value}'" if '"' in value else f'"{value}"'


def compile_node(node: Node) -> Matcher:
    """A closure for a node."""
    match node:
        case Compare():
            return _compile_compare(node)
        case Member(label, "in", values):
            wanted = frozenset(values)
            return lambda labels: labels.get(label) in wanted
        case Member(label, _, values):
            unwanted = frozenset(values)
            return lambda labels: labels.get(label) not in unwanted
        case Has(label):
            return lambda labels: label in labels
        case Everything():
            return lambda labels: True
        case Not(operand):
            inner = compile_node(operand)
            return lambda labels: not inner(labels)
        case Junction(operator, operands):
            return _compile_junction(operator, tuple(compile_node(operand) for operand in operands))
        case _:
            assert_never(node)


def _compile_compare(node: Compare) -> Matcher:
    label, value = node.label, node.value
    match node.operator:
        case "==":
            return lambda labels: labels.get(label) == value
        case "!=":
            return lambda labels: labels.get(label) != value
        case "contains":
            return lambda labels: value in labels.get(label, "") and label in labels
        case "starts with":
            return lambda labels: labels.get(label, "").startswith(value) and label in labels
        case "ends with":
            return lambda labels: labels.get(label, "").endswith(value) and label in labels
        case _:
            assert_never(node.operator)


def _compile_junction(operator: str, inner: tuple[Matcher, ...]) -> Matcher:
    if len(inner) == 2:
        first, second = inner
        if operator == "&&":
            return lambda labels: first(labels) and second(labels)
        return lambda labels: first(labels) or second(labels)
    if operator == "&&":
        return lambda labels: all(matches(labels) for matches in inner)
    return lambda labels: any(matches(labels) for matches in inner)


def labels_of(node: Node) -> Iterator[str]:
    match node:
        case Compare(label) | Member(label) | Has(label):
            yield label
        case Not(operand):
            yield from labels_of(operand)
        case Junction(_, operands):
            for operand in operands:
                yield from labels_of(operand)
        case Everything():
            pass


def with_prefix(node: Node, prefix: str) -> Node:
    match node:
        case Compare(label) | Member(label) | Has(label):
            return replace(node, label=prefix + label)
        case Not(operand):
            return Not(with_prefix(operand, prefix))
        case Junction(operator, operands):
            return Junction(operator, tuple(with_prefix(operand, prefix) for operand in operands))
        case Everything():
            return node


def restrictions_of(node: Node) -> dict[str, Restriction]:
    match node:
        case Compare(label, "==", value):
            return {label: Restriction(present=True, values=frozenset((value,)))}
        case Compare(label, "contains" | "starts with" | "ends with") | Has(label):
            return {label: Restriction(present=True)}
        case Member(label, "in", values):
            return {label: Restriction(present=True, values=frozenset(values))}
        case Not(Has(label)):
            return {label: Restriction(absent=True)}
        case Junction("&&", operands):
            return _all_restrictions([restrictions_of(operand) for operand in operands])
        case Junction("||", operands):
            return _common_restrictions([restrictions_of(operand) for operand in operands])
    return {}


def _all_restrictions(parts: list[dict[str, Restriction]]) -> dict[str, Restriction]:
    """Every part holds: requirements add up, values intersect."""
    merged: dict[str, Restriction] = {}
    for part in parts:
        for label, new in part.items():
            old = merged.get(label, Restriction())
            values = new.values if old.values is None else old.values
            if old.values is not None and new.values is not None:
                values = old.values & new.values
            merged[label] = Restriction(old.present or new.present, old.absent or new.absent, values)
    return merged


def _common_restrictions(parts: list[dict[str, Restriction]]) -> dict[str, Restriction]:
    """One part holds: only what all of them require is required, values unite."""
    merged: dict[str, Restriction] = {}
    for label in parts[0]:
        found = [part.get(label, Restriction()) for part in parts]
        present = all(restriction.present for restriction in found)
        absent = all(restriction.absent for restriction in found)
        sets = [restriction.values for restriction in found if restriction.values is not None]
        values = frozenset().union(*sets) if present and len(sets) == len(found) else None
        if present or absent:
            merged[label] = Restriction(present, absent, values)
    return merged
