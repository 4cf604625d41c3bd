"""Which selector matches which labelled item, kept up to date change by change.

The cost of a change is that of the selectors and items it can concern, never of all of them: a selector is
filed under one label that it cannot match without, an item under the labels it has. Items inherit labels from parents
(profiles); an item's own label wins over an inherited one, an earlier parent over a later one.

It does not know what an item or a selector stands for; its owner is told through `on_match`."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Generic, TypeVar

from msgspec import Struct

from weft.selector import Selector

I = TypeVar("I", bound=Hashable)  # noqa: E741
S = TypeVar("S", bound=Hashable)

Labels = Mapping[str, str]
_NO_LABELS: Labels = {}


class _Item(Struct, frozen=True):
    labels: Labels
    parents: tuple[str, ...]


class _Postings(Generic[I]):
    """Label -> value -> the things that have it."""

    def __init__(self) -> None:
        self._by_key: dict[str, dict[str, set[I]]] = {}

    def add(self, labels: Labels, thing: I) -> None:
        for key, value in labels.items():
            self._by_key.setdefault(key, {}).setdefault(value, set()).add(thing)

    def remove(self, labels: Labels, thing: I) -> None:
        for key, value in labels.items():
            values = self._by_key[key]
            values[value].remove(thing)
            if not values[value]:
                del values[value]
                if not values:
                    del self._by_key[key]

    def having(self, key: str, values: frozenset[str] | None) -> Iterator[I]:
        """Everything with the label, with one of these values if there are any."""
        by_value = self._by_key.get(key, {})
        if values is None:
            return chain.from_iterable(by_value.values())
        return chain.from_iterable(by_value[value] for value in values if value in by_value)


class LabelIndex(Generic[I, S]):
    """`on_match(selector, item, matches)` is called once for each match that begins or ends."""

    def __init__(self, on_match: Callable[[S, I, bool], None]) -> None:
        self._on_match = on_match
        self._items: dict[I, _Item] = {}
        self._parents: dict[str, Labels] = {}
        self._children: dict[str, dict[I, None]] = {}
        self._items_by_label = _Postings[I]()
        self._parents_by_label = _Postings[str]()
        self._selectors: dict[S, Selector] = {}
        self._matches: dict[S, set[I]] = {}
        self._by_value: dict[tuple[str, str], dict[S, None]] = {}
        self._by_presence: dict[str, dict[S, None]] = {}
        self._anywhere: dict[S, None] = {}

    # --- questions ----------------------------------------------------------------------------------------------

    def items_of(self, selector: S) -> frozenset[I] | set[I]:
        """The items it matches; read-only."""
        return self._matches.get(selector, frozenset())

    def selectors_of(self, item: I) -> list[S]:
        """The selectors that match it."""
        known = self._items.get(item)
        if known is None:
            return []
        return [one for one in self._candidates(self._effective(known)) if item in self._matches[one]]

    def effective_labels(self, item: I) -> Labels:
        """Its labels with the inherited ones; KeyError if there is no such item."""
        return self._effective(self._items[item])

    # --- input --------------------------------------------------------------------------------------------------

    def set_item(self, item: I, labels: Labels, parents: tuple[str, ...] = ()) -> None:
        before = self.selectors_of(item)
        self._forget(item)
        known = self._items[item] = _Item(labels, parents)
        self._items_by_label.add(labels, item)
        for parent in parents:
            self._children.setdefault(parent, {})[item] = None
        self._rematch(item, before, self._effective(known))

    def remove_item(self, item: I) -> None:
        before = self.selectors_of(item)
        self._forget(item)
        self._rematch(item, before, None)

    def set_parent(self, parent: str, labels: Labels) -> None:
        """Labels that every item with this parent inherits; none is the same as no such parent."""
        if self._parents.get(parent, _NO_LABELS) == labels:
            return
        children = tuple(self._children.get(parent, ()))
        before = [self.selectors_of(child) for child in children]
        self._parents_by_label.remove(self._parents.pop(parent, _NO_LABELS), parent)
        if labels:
            self._parents[parent] = labels
            self._parents_by_label.add(labels, parent)
        for child, matched in zip(children, before, strict=True):
            self._rematch(child, matched, self._effective(self._items[child]))

    def set_selector(self, key: S, selector: Selector) -> None:
        if self._selectors.get(key) == selector:
            return
        before = self._matches.get(key, set())
        self._unfile(key)
        self._selectors[key] = selector
        self._file(key, selector)
        now = {item for item in self._possible(selector) if selector.matches(self.effective_labels(item))}
        self._matches[key] = now
        self._announce(key, before, now)

    def remove_selector(self, key: S) -> None:
        before = self._matches.pop(key, set())
        self._unfile(key)
        self._selectors.pop(key, None)
        self._announce(key, before, set())

    # --- workings -----------------------------------------------------------------------------------------------

    def _effective(self, item: _Item) -> Labels:
        inherited = [self._parents[parent] for parent in reversed(item.parents) if parent in self._parents]
        if not inherited:
            return item.labels
        merged: dict[str, str] = {}
        for labels in (*inherited, item.labels):
            merged.update(labels)
        return merged

    def _forget(self, item: I) -> None:
        known = self._items.pop(item, None)
        if known is None:
            return
        self._items_by_label.remove(known.labels, item)
        for parent in set(known.parents):
            children = self._children[parent]
            del children[item]
            if not children:
                del self._children[parent]

    def _rematch(self, item: I, before: Iterable[S], labels: Labels | None) -> None:
        now: dict[S, None] = {}
        if labels is not None:
            now = {one: None for one in self._candidates(labels) if self._selectors[one].matches(labels)}
        for one in before:
            if one not in now:
                self._matches[one].remove(item)
                self._on_match(one, item, False)
        for one in now:
            if item not in self._matches[one]:
                self._matches[one].add(item)
                self._on_match(one, item, True)

    def _announce(self, key: S, before: set[I], now: set[I]) -> None:
        for item in before - now:
            self._on_match(key, item, False)
        for item in now - before:
            self._on_match(key, item, True)

    def _candidates(self, labels: Labels) -> Iterator[S]:
        """Selectors that could match these labels, each once: it is filed under one label only."""
        yield from self._anywhere
        for key, value in labels.items():
            yield from self._by_presence.get(key, ())
            yield from self._by_value.get((key, value), ())

    def _file(self, key: S, selector: Selector) -> None:
        for place in self._places(selector):
            place[key] = None

    def _unfile(self, key: S) -> None:
        selector = self._selectors.get(key)
        if selector is None:
            return
        label, values = _requirement(selector)
        for place in self._places(selector):
            del place[key]
        for value in values or ():
            if not self._by_value[label, value]:
                del self._by_value[label, value]
        if values is None and not self._by_presence.get(label, True):
            del self._by_presence[label]

    def _places(self, selector: Selector) -> list[dict[S, None]]:
        """Where a selector is filed: such that every label map it can match leads there, and to one place only."""
        label, values = _requirement(selector)
        if not label:
            return [self._anywhere]
        if values is None:
            return [self._by_presence.setdefault(label, {})]
        return [self._by_value.setdefault((label, value), {}) for value in values]

    def _possible(self, selector: Selector) -> Iterable[I]:
        """Items that it could match, some of them twice: by the requirement that leaves the fewest."""
        required = selector.required_equality()
        if not required:
            return self._items
        return min((self._having(label, values) for label, values in required.items()), key=len)

    def _having(self, label: str, values: frozenset[str] | None) -> list[I]:
        found = list(self._items_by_label.having(label, values))
        for parent in self._parents_by_label.having(label, values):
            found += self._children.get(parent, ())
        return found


def _requirement(selector: Selector) -> tuple[str, frozenset[str] | None]:
    """The label to file a selector under, with its possible values (None: any): the fewest, then the first by name.

    An empty label: it can match without any label."""
    required = selector.required_equality()
    if not required:
        return "", None
    return min(required.items(), key=lambda one: (one[1] is None, len(one[1] or ()), one[0]))
