"""The selector language: what parses, how it prints, what it matches, what a match requires."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.selector import ALL, NONE, Restriction, SelectorError, conjunction, parse
from weft.selector.nodes import Compare, Everything, Has, Junction, Member, Node, Not

CANONICAL = {
    "empty": ("", "all()"),
    "only spaces": (" \t ", "all()"),
    "all": (" all( ) ", "all()"),
    "global": ("global()", "global()"),
    "parentheses around one thing": (" (( all() ))", "all()"),
    "equal": ("a=='b'", 'a == "b"'),
    "not equal": ("a!= 'b'", 'a != "b"'),
    "double quotes kept inside single": ("""a == 'say "x"'""", """a == 'say "x"'"""),
    "single quotes kept inside double": ('''a == "it's"''', '''a == "it's"'''),
    "empty value": ("a == ''", 'a == ""'),
    "in, sorted and each value once": ("a in {'d','a' , 'b','a'}", 'a in {"a", "b", "d"}'),
    "in with a trailing comma": ("a in {'a',}", 'a in {"a"}'),
    "in nothing": ("a in{}", "a in {}"),
    "in with mixed quotes": ("""a in {'"', "'"}""", """a in {'"', "'"}"""),
    "not in": ("a not  in {'x'}", 'a not in {"x"}'),
    "not in without a space": ("a notin{'x'}", 'a not in {"x"}'),
    "contains": ("a contains'x'", 'a contains "x"'),
    "starts with": ("a starts\twith 'x'", 'a starts with "x"'),
    "startswith": ("a startswith 'x'", 'a starts with "x"'),
    "ends with": ("a ends with 'x'", 'a ends with "x"'),
    "endswith": ("a endswith'x'", 'a ends with "x"'),
    "has": ("has( projectcalico.org/namespace )", "has(projectcalico.org/namespace)"),
    "a label named like an operator": ("in in {'in'}", 'in in {"in"}'),
    "a label named like a function": ("all == 'x' && has == 'y'", '(all == "x" && has == "y")'),
    "negation": ("! has(a)", "!has(a)"),
    "double negation": ("!! has(a)", "has(a)"),
    "triple negation": ("!!!has(a)", "!has(a)"),
    "negation of a negation in parentheses": ("!(!has(a))", "has(a)"),
    "negated comparison": ("!a == 'b'", '!a == "b"'),
    "and": ("has(a)&&has(b)&&has(c)", "(has(a) && has(b) && has(c))"),
    "and binds closer than or": ("has(a)||has(b)&&has(c)", "(has(a) || (has(b) && has(c)))"),
    "parentheses change the grouping": ("(has(a)||has(b))&&has(c)", "((has(a) || has(b)) && has(c))"),
    "same junction inside itself stays": ("has(a)&&(has(b)&&has(c))", "(has(a) && (has(b) && has(c)))"),
    "negated group": ("!(has(b)||! has(a ))", "!(has(b) || !has(a))"),
    "every character a label may have": ("aZ09_./- == 'x'", 'aZ09_./- == "x"'),
}


@pytest.mark.parametrize(("text", "canonical"), CANONICAL.values(), ids=CANONICAL.keys())
def test_a_selector_prints_its_canonical_form_and_reads_it_again(text: str, canonical: str) -> None:
    selector = parse(text)
    assert str(selector) == canonical
    assert parse(canonical) == selector
    assert hash(parse(canonical)) == hash(selector)


BAD = {
    "a bare label": ("a", 1, "=="),
    "a label before a label": ("a b", 2, "=="),
    "a label for a value": ("a == b", 5, "quotes"),
    "a value for a label": ("'a' == 'b'", 0, "label name"),
    "a newline": ("has(a)\n", 6, "the end"),
    "nothing after not": ("!", 1, "label name"),
    "nothing after and": ("has(a) &&", 9, "label name"),
    "half an and": ("has(a) & has(b)", 7, "&&"),
    "half an or": ("has(a) | has(b)", 7, "||"),
    "single equals": ("a = 'b'", 2, "=="),
    "an open string": ("a == 'b", 7, "closing '"),
    "an open set": ("a in {'b'", 9, "}"),
    "no set after in": ("a in 'b'", 5, "{"),
    "no comma in a set": ("a in {'b' 'c'}", 10, "}"),
    "a label in a set": ("a in {b}", 6, "}"),
    "an operator that goes on": ("a inner {'b'}", 2, "=="),
    "an open parenthesis": ("(has(a)", 7, ")"),
    "a lone closing parenthesis": (")", 0, "label name"),
    "empty parentheses": ("()", 1, "label name"),
    "has of nothing": ("has()", 4, "label name"),
    "has with a space before its parenthesis": ("has (a)", 4, "=="),
    "all of something": ("all(a)", 4, ")"),
    "an unknown character": ("has(a) && %", 10, "label name"),
    "something after the end": ("has(a) has(b)", 7, "the end"),
    "a label that is too long": ("has(" + "a" * 513 + ")", 4, "512"),
    "too many parentheses": ("(" * 101 + "has(a)" + ")" * 101, 101, "100"),
}


@pytest.mark.parametrize(("text", "position", "expected"), BAD.values(), ids=BAD.keys())
def test_text_that_is_no_selector_is_refused_with_the_position(text: str, position: int, expected: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse(text)
    assert caught.value.position == position
    assert expected in caught.value.expected
    assert caught.value.text == text


def test_a_hundred_thousand_parentheses_are_an_error_and_not_a_crash() -> None:
    with pytest.raises(SelectorError):
        parse("!(" * 100_000)


MATCHES = {
    "all matches no labels": ("all()", {}, True),
    "not all matches nothing": ("!all()", {"a": "b"}, False),
    "global matches like all": ("global()", {}, True),
    "equal": ("a == 'b'", {"a": "b"}, True),
    "equal, another value": ("a == 'b'", {"a": "c"}, False),
    "equal, absent": ("a == 'b'", {}, False),
    "equal to nothing is not absent": ("a == ''", {}, False),
    "not equal": ("a != 'b'", {"a": "c"}, True),
    "not equal, absent": ("a != 'b'", {}, True),
    "not equal, the value": ("a != 'b'", {"a": "b"}, False),
    "in": ("a in {'b','c'}", {"a": "c"}, True),
    "in, absent": ("a in {'b','c'}", {}, False),
    "in nothing": ("a in {}", {"a": ""}, False),
    "not in": ("a not in {'b'}", {"a": "c"}, True),
    "not in, absent": ("a not in {'b'}", {}, True),
    "not in, a member": ("a not in {'b'}", {"a": "b"}, False),
    "contains": ("a contains 'b'", {"a": "abc"}, True),
    "contains, absent": ("a contains ''", {}, False),
    "contains nothing": ("a contains ''", {"a": ""}, True),
    "starts with": ("a starts with 'ab'", {"a": "abc"}, True),
    "starts with, absent": ("a starts with ''", {}, False),
    "starts with, elsewhere": ("a starts with 'b'", {"a": "abc"}, False),
    "ends with": ("a ends with 'bc'", {"a": "abc"}, True),
    "ends with, absent": ("a ends with ''", {}, False),
    "has": ("has(a)", {"a": ""}, True),
    "has, absent": ("has(a)", {"b": ""}, False),
    "not binds to one term": ("!has(a) && has(b)", {"b": ""}, True),
    "or, second": ("has(a) || has(b)", {"b": ""}, True),
    "three of and": ("has(a) && has(b) && has(c)", {"a": "", "b": ""}, False),
    "three of or": ("has(a) || has(b) || has(c)", {"c": ""}, True),
    "case counts": ("a == 'B'", {"a": "b"}, False),
}


@pytest.mark.parametrize(("text", "labels", "expected"), MATCHES.values(), ids=MATCHES.keys())
def test_a_selector_matches_as_calico_does(text: str, labels: dict[str, str], expected: bool) -> None:
    assert parse(text).matches(labels) is expected


def present(*values: str) -> Restriction:
    return Restriction(present=True, values=frozenset(values) if values else None)


ABSENT = Restriction(absent=True)
RESTRICTIONS = {
    "equal": ("a == 'x'", {"a": present("x")}),
    "not equal": ("a != 'x'", {}),
    "in": ("a in {'x','y'}", {"a": present("x", "y")}),
    "not in": ("a not in {'x'}", {}),
    "has": ("has(a)", {"a": present()}),
    "contains": ("a contains 'x'", {"a": present()}),
    "not has": ("!has(a)", {"a": ABSENT}),
    "not equal by negation": ("!a == 'x'", {}),
    "all": ("all()", {}),
    "and adds up": ("a == 'x' && has(b)", {"a": present("x"), "b": present()}),
    "and intersects": ("a in {'x','y'} && a in {'y','z'}", {"a": present("y")}),
    "and can become impossible": (
        "a == 'x' && a == 'y'",
        {"a": Restriction(present=True, values=frozenset())},
    ),
    "or keeps what is common": ("(a == 'x' && has(b)) || a == 'y'", {"a": present("x", "y")}),
    "or with a free value": ("a == 'x' || has(a)", {"a": present()}),
    "or of different labels": ("has(a) || has(b)", {}),
    "or of absences": ("!has(a) || !has(a)", {"a": ABSENT}),
}


@pytest.mark.parametrize(("text", "expected"), RESTRICTIONS.values(), ids=RESTRICTIONS.keys())
def test_restrictions_say_what_a_match_requires(text: str, expected: dict[str, Restriction]) -> None:
    assert parse(text).restrictions == expected


def test_required_equality_leaves_out_labels_that_must_be_absent() -> None:
    selector = parse("a == 'x' && !has(b) && has(c)")
    assert selector.required_equality() == {"a": frozenset({"x"}), "c": None}


def test_keys_are_every_label_that_counts() -> None:
    assert parse("a == 'x' && !(has(b) || c not in {'y'}) && all()").keys() == {"a", "b", "c"}


def test_a_prefix_goes_before_every_label() -> None:
    selector = parse("a == 'x' && !(has(b) || c not in {'y'}) && all()")
    assert str(selector.prefixed("pcns.")) == ('(pcns.a == "x" && !(has(pcns.b) || pcns.c not in {"y"}) && all())')


def test_a_conjunction_leaves_out_what_adds_nothing() -> None:
    one, other = parse("has(a)"), parse("has(b)")
    assert conjunction() == ALL
    assert conjunction(ALL, one, one) == one
    assert str(conjunction(one, ALL, other)) == "(has(a) && has(b))"
    assert NONE.matches({}) is False


def test_only_the_plain_words_are_all_and_global() -> None:
    assert parse("").is_all
    assert parse("global()").is_global
    assert not parse("all() && all()").is_all


names = st.text("ab._/-9", min_size=1, max_size=3)
values = st.one_of(st.text("ab '", max_size=3), st.text('ab "', max_size=3))
comparisons = st.builds(Compare, names, st.sampled_from(["==", "!=", "contains", "starts with", "ends with"]), values)
members = st.builds(
    Member,
    names,
    st.sampled_from(["in", "not in"]),
    st.sets(values, max_size=3).map(lambda found: tuple(sorted(found))),
)
leaves = st.one_of(
    comparisons, members, st.builds(Has, names), st.builds(Everything, st.sampled_from(["all", "global"]))
)


def _negated(node: Node) -> Node:
    return node.operand if isinstance(node, Not) else Not(node)


nodes = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(_negated),
        st.builds(Junction, st.sampled_from(["&&", "||"]), st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)
labels = st.dictionaries(st.text("ab", min_size=1, max_size=1), st.text("ab", max_size=2), max_size=3)


def naive(node: Node, found: dict[str, str]) -> bool:
    """The definition, one case at a time."""
    match node:
        case Everything():
            return True
        case Not(operand):
            return not naive(operand, found)
        case Junction("&&", operands):
            return all(naive(operand, found) for operand in operands)
        case Junction(_, operands):
            return any(naive(operand, found) for operand in operands)
        case Has(label):
            return label in found
        case Compare(label, "!=", value):
            return label not in found or found[label] != value
        case Member(label, "not in", wanted):
            return label not in found or found[label] not in wanted
        case Member(label, _, wanted):
            return label in found and found[label] in wanted
        case Compare(label, operator, value):
            if label not in found:
                return False
            held = found[label]
            return {
                "==": held == value,
                "contains": value in held,
                "starts with": held.startswith(value),
                "ends with": held.endswith(value),
            }[operator]


@settings(max_examples=200, deadline=None)
@given(nodes)
def test_what_is_printed_parses_to_the_same_tree(node: Node) -> None:
    assert parse(str(node)).root == node


@settings(max_examples=200, deadline=None)
@given(nodes, labels)
def test_the_compiled_form_agrees_with_the_definition_and_with_its_own_hints(node: Node, found: dict[str, str]) -> None:
    selector = parse(str(node))
    assert selector.matches(found) is naive(node, found)
    if selector.matches(found):
        for label, needed in selector.restrictions.items():
            assert not needed.present or label in found
            assert not needed.absent or label not in found
            assert needed.values is None or found[label] in needed.values


@settings(max_examples=300, deadline=None)
@given(st.text("ab ='\"!&|(){}inhas,\n", max_size=20))
def test_any_text_gives_a_selector_or_a_position_in_the_text(text: str) -> None:
    try:
        selector = parse(text)
    except SelectorError as error:
        position = error.position
    else:
        position = 0
        assert parse(str(selector)) == selector
    assert 0 <= position <= len(text)
