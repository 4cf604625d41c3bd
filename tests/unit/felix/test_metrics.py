"""What a scraper gets of felix, and that the number of series is bounded."""

from prometheus_client import CollectorRegistry, generate_latest

from felix.dataplane.nft_state import Refusal
from felix.metrics import OTHERS, FelixCollector, MeasuredKernel, Snapshot, bounded
from felix.rules import operations as op
from felix.rules.values import Count
from tests.fakes.nft import FakeNft
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction

DB, WEB = ResourceKey("NetworkPolicy", "db", "shop"), ResourceKey("NetworkPolicy", "web", "shop")
NOW = Snapshot(
    in_kernel=True,
    endpoints=3,
    host_endpoints=1,
    policies=2,
    sets=4,
    members=50,
    not_enforced={"NetworkPolicy": 1},
    malformed={},
    failures=0,
    tallies=[
        (DB, Direction.INGRESS, Action.ALLOW, Count(5, 500)),
        (DB, Direction.INGRESS, Action.DENY, Count(2, 200)),
        (WEB, Direction.EGRESS, Action.DENY, Count(1, 100)),
    ],
    ended={Direction.INGRESS: Count(7, 700), Direction.EGRESS: Count(0, 0)},
)


def _lines(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_a_scraper_finds_policies_and_what_was_denied() -> None:
    registry = CollectorRegistry()
    registry.register(FelixCollector(lambda: NOW))
    lines = _lines(registry)
    labels = 'action="allow",direction="ingress",kind="NetworkPolicy",namespace="shop",policy="db"'
    assert f"weft_felix_policy_packets_total{{{labels}}} 5.0" in lines
    assert "weft_felix_denied_packets_total 10.0" in lines
    assert "weft_felix_denied_bytes_total 1000.0" in lines
    assert "felix_active_local_endpoints 3.0" in lines
    assert 'weft_felix_not_enforced{kind="NetworkPolicy"} 1.0' in lines


def test_more_policies_than_are_shown_are_added_up_under_one_name() -> None:
    assert bounded(NOW.tallies, 2) == list(NOW.tallies)
    assert bounded(NOW.tallies, 1) == [
        *NOW.tallies[:2],
        (OTHERS, Direction.EGRESS, Action.DENY, Count(1, 100)),
    ]
    everything = bounded(NOW.tallies, 0)
    assert {key for key, *_ in everything} == {OTHERS}
    assert sum((count for *_, count in everything), Count()) == Count(8, 800)


def test_batches_are_timed_and_refusals_counted() -> None:
    registry = CollectorRegistry()
    fake = FakeNft()
    kernel = MeasuredKernel(fake, registry)
    assert kernel.commit([op.CreateTable()]) == []
    assert kernel.commit([op.FlushChain("none")]) == [Refusal(op.FlushChain("none"), 2, "No such file or directory")]
    assert kernel.read() == fake.read()
    lines = _lines(registry)
    assert "weft_felix_nft_commit_seconds_count 2.0" in lines
    assert "weft_felix_nft_refusals_total 1.0" in lines
