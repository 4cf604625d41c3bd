"""Documents are written together only where their order cannot matter."""

from __future__ import annotations

import pytest

from weft.ctl.resources import MOST_AT_ONCE, batches
from weft.ctl.sources import Document
from weft.model.address import parse_network
from weft.model.base import Metadata, Resource
from weft.model.policy import GlobalNetworkSet, Tier
from weft.model.pool import IPPool, IPPoolSpec


def resource(text: str) -> Resource:
    metadata = Metadata(name=text[1:])
    match text[0]:
        case "t":
            return Tier(metadata=metadata)
        case "s":
            return GlobalNetworkSet(metadata=metadata)
        case _:
            return IPPool(metadata=metadata, spec=IPPoolSpec(cidr=parse_network("10.65.0.0/16")))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        pytest.param([], [], id="none"),
        pytest.param(["sa", "sb", "sc"], [3], id="one kind goes together"),
        pytest.param(["ta", "sb", "sc", "td"], [1, 2, 1], id="another kind waits"),
        pytest.param(["sa", "sb", "sa", "sc"], [2, 2], id="the same resource again waits"),
        pytest.param(["pa", "pb", "pc"], [1, 1, 1], id="pools go one by one"),
        pytest.param(
            [f"s{number}" for number in range(MOST_AT_ONCE + 1)], [MOST_AT_ONCE, 1], id="not all of many at once"
        ),
    ],
)
def test_batches_keep_the_order_where_it_matters(texts: list[str], expected: list[int]) -> None:
    documents = [Document(resource(text), "f", index) for index, text in enumerate(texts)]
    found = list(batches(documents))
    assert [len(batch) for batch in found] == expected
    assert [index for batch in found for index in batch] == list(range(len(texts)))
