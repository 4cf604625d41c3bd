"""What the index looks at: a change is compared with what it can concern, and with nothing else."""

from collections.abc import Mapping

import pytest

from felix.calc.label_index import LabelIndex
from weft.selector import Selector, parse

MANY = 300


class Counting(Selector):
    """Counts how often any selector is asked."""

    asked = 0

    def __init__(self, text: str) -> None:
        super().__init__(parse(text).root)
        matches = self.matches

        def counted(labels: Mapping[str, str]) -> bool:
            Counting.asked += 1
            return matches(labels)

        self.matches = counted


class Index(LabelIndex[int, str]):
    """Items 0 to MANY, each with its own `app`, one of three `tier`s, and a parent of its own; a selector per app."""

    def __init__(self) -> None:
        super().__init__(lambda selector, item, matches: self.events.append((selector, item, matches)))
        self.events: list[tuple[str, int, bool]] = []
        for number in range(MANY):
            self.set_item(number, {"app": f"a{number}", "tier": f"t{number % 3}"}, (f"p{number}",))
            self.set_selector(f"app == 'a{number}'", Counting(f"app == 'a{number}'"))
        self.events.clear()
        Counting.asked = 0


@pytest.fixture
def index() -> Index:
    return Index()


def test_a_changed_item_is_compared_with_selectors_of_its_labels_only(index: Index) -> None:
    index.set_item(1, {"app": "a2"})
    assert index.events == [("app == 'a1'", 1, False), ("app == 'a2'", 1, True)]
    assert Counting.asked == 1


def test_the_same_labels_again_change_nothing(index: Index) -> None:
    index.set_item(1, {"app": "a1", "tier": "t1"}, ("p1",))
    assert not index.events


@pytest.mark.parametrize(
    ("text", "asked", "matched"),
    [
        ("app == 'a7'", 1, 1),
        ("app in {'a7', 'a8', 'none'}", 2, 2),
        ("app == 'a7' && tier == 't1'", 1, 1),
        ("tier == 't1' && app starts with 'a1'", MANY // 3, 39),
        ("has(none)", 0, 0),
        ("app == 'a1' && app == 'a2'", 0, 0),
        ("!has(none)", MANY, MANY),
        ("app == 'a7' || tier == 't1'", MANY, MANY // 3),
    ],
)
def test_a_new_selector_is_compared_with_items_it_can_match(index: Index, text: str, asked: int, matched: int) -> None:
    index.set_selector("new", Counting(text))
    assert (Counting.asked, len(index.events)) == (asked, matched)


def test_inherited_labels_concern_the_children_only(index: Index) -> None:
    index.set_selector("env", Counting("env == 'prod'"))
    Counting.asked = 0
    index.set_parent("p5", {"env": "prod"})
    assert index.events == [("env", 5, True)]
    assert Counting.asked == 2  # "env", and that its own app still matches
    index.set_parent("p5", {})
    assert index.events[-1] == ("env", 5, False)


def test_a_selector_over_inherited_labels_is_compared_with_the_children_only(index: Index) -> None:
    index.set_parent("p5", {"env": "prod"})
    Counting.asked = 0
    index.set_selector("env", Counting("env == 'prod' && app == 'a5'"))
    assert (Counting.asked, index.items_of("env")) == (1, {5})


def test_an_own_label_goes_before_an_inherited_one_and_the_first_parent_before_the_second(index: Index) -> None:
    index.set_parent("first", {"app": "inherited", "env": "one"})
    index.set_parent("second", {"env": "two", "zone": "z"})
    index.set_item(1, {"app": "own"}, ("first", "second"))
    assert index.effective_labels(1) == {"app": "own", "env": "one", "zone": "z"}


def test_what_is_removed_is_forgotten(index: Index) -> None:
    for number in range(MANY):
        index.remove_item(number)
        index.remove_selector(f"app == 'a{number}'")
    assert len(index.events) == MANY
    index.set_item(1, {"app": "a1"})
    assert index.selectors_of(1) == []
    assert index.items_of("app == 'a1'") == frozenset()
