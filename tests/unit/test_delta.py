"""The difference of two mappings, applied to the second, gives the first."""

from hypothesis import given
from hypothesis import strategies as st

from weft.delta import diff

mappings = st.dictionaries(st.integers(0, 8), st.integers(0, 2))


@given(desired=mappings, actual=mappings)
def test_applying_the_difference_gives_the_desired(desired: dict[int, int], actual: dict[int, int]) -> None:
    delta = diff(desired, actual)
    result = {key: value for key, value in actual.items() if key not in delta.delete}
    assert not delta.create.keys() & actual.keys()
    assert delta.update.keys() <= actual.keys()
    assert {**result, **delta.create, **delta.update} == desired
    assert bool(delta) == (desired != actual)


@given(mapping=mappings)
def test_equal_sides_differ_in_nothing(mapping: dict[int, int]) -> None:
    assert not diff(mapping, dict(mapping))
