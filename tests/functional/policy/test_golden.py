"""The golden scripts are what the real nft takes."""

from collections.abc import Callable

import pytest

from lab.netns import NetNs
from tests.unit.rules.render_cases import CASES, path

pytestmark = pytest.mark.root


@pytest.mark.parametrize("case", CASES)
def test_nft_takes_the_golden_script_and_the_change_after_it(netns: Callable[[str], NetNs], case: str) -> None:
    where = netns("golden")
    where.run(["nft", "-c", "-f", str(path(case, 0))])
    where.run(["nft", "-f", str(path(case, 0))])
    where.run(["nft", "-c", "-f", str(path(case, 1))])
    where.run(["nft", "-f", str(path(case, 1))])
