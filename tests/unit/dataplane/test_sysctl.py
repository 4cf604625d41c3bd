"""Which kernel settings a routing node changes, and which it only complains of."""

import pytest

from felix.dataplane.sysctl import enable_routing, plan, problems
from tests.fakes.settings import FakeSettings

HOST = {
    "ipv4/ip_forward": "0",
    "ipv4/conf/all/rp_filter": "0",
    "ipv6/conf/all/forwarding": "0",
    "ipv6/conf/up0/forwarding": "0",
    "ipv6/conf/up0/accept_ra": "1",
    "ipv6/conf/up1/accept_ra": "0",
    "ipv6/conf/up2/accept_ra": "2",
}
ROUTER = {**HOST, "ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}


@pytest.mark.parametrize(
    ("before", "writes"),
    [
        pytest.param(
            HOST,
            [("ipv4/ip_forward", "1"), ("ipv6/conf/up0/accept_ra", "2"), ("ipv6/conf/all/forwarding", "1")],
            id="a host: advertisements are kept before forwarding goes on",
        ),
        pytest.param(ROUTER, [], id="a router, whose accept_ra is what its operator made it"),
        pytest.param({"ipv4/ip_forward": "0"}, [("ipv4/ip_forward", "1")], id="a kernel without IPv6"),
    ],
)
def test_only_what_differs_is_written_and_in_a_safe_order(
    before: dict[str, str], writes: list[tuple[str, str]]
) -> None:
    settings = FakeSettings(dict(before))
    changes = enable_routing(settings)
    assert settings.written == writes
    assert [(change.name, change.now) for change in changes] == writes
    assert all(change.was == before[change.name] for change in changes)
    assert plan(settings) == {}


def test_a_refused_setting_is_the_callers_to_see() -> None:
    with pytest.raises(OSError, match="Read-only"):
        enable_routing(FakeSettings(dict(HOST), read_only=frozenset({"ipv4/ip_forward"})))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        pytest.param({"ipv4/conf/all/rp_filter": "0"}, [], id="off"),
        pytest.param({"ipv4/conf/all/rp_filter": "1"}, [], id="strict"),
        pytest.param({"ipv4/conf/all/rp_filter": "2"}, ["ipv4/conf/all/rp_filter"], id="loose, which wins over strict"),
        pytest.param({"ipv6/conf/all/disable_ipv6": "1"}, ["ipv6/conf/all/disable_ipv6"], id="no IPv6"),
    ],
)
def test_what_stands_against_us_is_reported(values: dict[str, str], found: list[str]) -> None:
    settings = FakeSettings(values)
    assert [problem.name for problem in problems(settings)] == found
    assert settings.written == []
