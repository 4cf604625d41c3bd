"""Which selector matches which labelled item, kept up to date change by change.

The cost of a change is that of the selectors and items it can concern, never of all of them: a selector is
filed under one label that it cannot match without, an item under the labels it has. Items inherit labels from parents
(profiles); an item's own label wins over an inherited one, an earlier parent over a later one.

It does not know what an item or a selector stands for; its owner is told through `on_match`."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import Generic, TypeVar

from msgspec import Struct

from weft.selector import Selector

I = TypeVar("I", bound=Hashable)  # noqa: E741
S = TypeVar("S", bound=Hashable)

Labels = Mapping[str, str]
_NO_LABELS: Labels = {}


class _Pair(Generic[I]):
    """A label with a value, and the things that have it: most pairs are had by many things or by one."""

    __slots__ = ("_many", "_one", "label", "value")

    def __init__(self, label: str, value: str) -> None:
        self.label, self.value = label, value
        self._one: I | None = None
        self._many: set[I] | None = None

    def add(self, thing: I) -> None:
        if self._many is not None:
            self._many.add(thing)
        elif self._one is None:
            self._one = thing
        else:
            self._many, self._one = {self._one, thing}, None

    def remove(self, thing: I) -> bool:
        """Whether nothing has it any more."""
        if self._many is None:
            self._one = None
            return True
        self._many.remove(thing)
        return not self._many

    def things(self) -> Iterable[I]:
        if self._many is not None:
            return self._many
        return () if self._one is None else (self._one,)


_Pairs = tuple[_Pair[I], ...]


class _Item(Struct, Generic[I], frozen=True, gc=False):
    """Its labels as the pairs that it shares with others, a third of what a mapping of its own would take."""

    labels: _Pairs[I]
    parents: tuple[str, ...]


class _Postings(Generic[I]):
    """Label -> value -> the things that have it."""

    def __init__(self) -> None:
        self._by_label: dict[str, dict[str, _Pair[I]]] = {}

    def add(self, labels: Labels, thing: I) -> _Pairs[I]:
        """What to give to `remove` when the thing goes."""
        pairs = tuple([self._pair(label, value) for label, value in labels.items()])
        for pair in pairs:
            pair.add(thing)
        return pairs

    def _pair(self, label: str, value: str) -> _Pair[I]:
        values = self._by_label.get(label)
        if values is None:
            values = self._by_label[label] = {}
        pair = values.get(value)
        if pair is None:
            pair = values[value] = _Pair(label, value)
        return pair

    def remove(self, pairs: _Pairs[I], thing: I) -> None:
        for pair in pairs:
            if pair.remove(thing):
                values = self._by_label[pair.label]
                del values[pair.value]
                if not values:
                    del self._by_label[pair.label]

    def having(self, label: str, values: frozenset[str] | None) -> Iterator[I]:
        """Everything with the label, with one of these values if there are any."""
        by_value = self._by_label.get(label, {})
        pairs = by_value.values() if values is None else (by_value[value] for value in values if value in by_value)
        return chain.from_iterable(pair.things() for pair in pairs)


@lru_cache(maxsize=4096)
def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    """The same object for the same names: whole namespaces have the same parents."""
    return names


class LabelIndex(Generic[I, S]):
    """`on_match(selector, item, matches)` is called once for each match that begins or ends."""

    def __init__(self, on_match: Callable[[S, I, bool], None]) -> None:
        self._on_match = on_match
        self._items: dict[I, _Item[I]] = {}
        self._parents: dict[str, Labels] = {}
        self._parent_pairs: dict[str, _Pairs[str]] = {}
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
        known = self._items[item] = _Item(self._items_by_label.add(labels, item), _shared(parents))
        for parent in parents:
            self._children.setdefault(parent, {})[item] = None
        if self._selectors:  # there are none yet while a whole cluster is read
            self._rematch(item, before, self._effective(known))

    def remove_item(self, item: I) -> None:
        before = self.selectors_of(item)
        self._forget(item)
        self._rematch(item, before, None)

    def set_parent(self, parent: str, labels: Labels) -> None:
        """Labels that every item with this parent inherits; none is the same as no such parent."""
        if self._parents.get(parent, _NO_LABELS) == labels:
            return
        children = tuple(self._children.get(parent, ())) if self._selectors else ()
        before = [self.selectors_of(child) for child in children]
        self._parents.pop(parent, None)
        self._parents_by_label.remove(self._parent_pairs.pop(parent, ()), parent)
        if labels:
            self._parents[parent] = labels
            self._parent_pairs[parent] = self._parents_by_label.add(labels, parent)
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

    def _effective(self, item: _Item[I]) -> Labels:
        merged: dict[str, str] = {}
        for parent in reversed(item.parents):
            merged.update(self._parents.get(parent, _NO_LABELS))
        for pair in item.labels:
            merged[pair.label] = pair.value
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
