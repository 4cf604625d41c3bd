"""Calico's label selectors: parse, canonical form, match, and what a match requires.

`parse(text)` gives a `Selector`; text that is no selector gives a `SelectorError` with the position. An empty
text means `all()`. Nothing here knows where labels come from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Final

from weft.selector.nodes import (
    Everything,
    Junction,
    Labels,
    Matcher,
    Node,
    Restriction,
    compile_node,
    labels_of,
    restrictions_of,
    with_prefix,
)
from weft.selector.parser import Parser, SelectorError

__all__ = ["ALL", "NONE", "Labels", "Restriction", "Selector", "SelectorError", "conjunction", "parse"]


class Selector:
    """A parsed selector. Equal and hashed by its canonical form, which is `str(selector)`."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self.matches: Matcher = compile_node(root)
        self._text = str(root)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Selector({self._text})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selector) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    @property
    def is_all(self) -> bool:
        return self.root == Everything("all")

    @property
    def is_global(self) -> bool:
        return self.root == Everything("global")

    @cached_property
    def restrictions(self) -> Mapping[str, Restriction]:
        """What must hold for a match, by label: the hint to index by. Labels not named are free."""
        return restrictions_of(self.root)

    def keys(self) -> frozenset[str]:
        """Every label the outcome can depend on."""
        return frozenset(labels_of(self.root))

    def required_equality(self) -> Mapping[str, frozenset[str] | None]:
        """Labels that must be there for a match, with the values they may have (None: any)."""
        return {label: found.values for label, found in self.restrictions.items() if found.present}

    def prefixed(self, prefix: str) -> Selector:
        """The same selector over labels whose names begin with `prefix`."""
        return Selector(with_prefix(self.root, prefix))


def conjunction(*selectors: Selector) -> Selector:
    """What matches all of them, with `all()` left out."""
    roots = tuple(dict.fromkeys(selector.root for selector in selectors if not selector.is_all))
    if not roots:
        return ALL
    return Selector(roots[0] if len(roots) == 1 else Junction("&&", roots))


@lru_cache(maxsize=4096)
def parse(text: str) -> Selector:
    """The selector that `text` spells. Raises SelectorError."""
    return Selector(Parser(text).parse())


ALL: Final = parse("all()")
NONE: Final = parse("!all()")
