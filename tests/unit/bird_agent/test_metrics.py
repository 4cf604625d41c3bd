"""What Prometheus is told."""

from __future__ import annotations

from ipaddress import ip_address

from prometheus_client import CollectorRegistry, generate_latest

from bird_agent.metrics import BgpMetrics, Convergence, Snapshot
from weft.admin.bgp import PeerReport

PEER = PeerReport(
    address=ip_address("10.1.0.254"),
    asn=65001,
    local_as=64512,
    local_address=ip_address("10.1.0.1"),
    resource="BGPPeer/tor",
    state="Established",
    received=12,
    accepted=11,
    announced=3,
    updates=7,
    flaps=2,
)


def scraped(metrics: BgpMetrics) -> str:
    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry).decode()


def test_sessions_prefixes_updates_and_flaps_are_told_by_peer() -> None:
    metrics = BgpMetrics(Convergence())
    metrics.snapshot = Snapshot([PEER], routes=5, kernel_failures=1, speaker_restarts=4, in_sync=True)
    text = scraped(metrics)
    labels = '{asn="65001",peer="10.1.0.254",resource="BGPPeer/tor"}'
    for line in (
        f"weft_bgp_session_up{labels} 1.0",
        f"weft_bgp_prefixes_received{labels} 12.0",
        f"weft_bgp_prefixes_accepted{labels} 11.0",
        f"weft_bgp_prefixes_announced{labels} 3.0",
        f"weft_bgp_updates_total{labels} 7.0",
        f"weft_bgp_session_flaps_total{labels} 2.0",
        "weft_bgp_routes 5.0",
        "weft_bgp_kernel_failures 1.0",
        "weft_bgp_speaker_restarts_total 4.0",
        "weft_bgp_in_sync 1.0",
    ):
        assert f"{line}\n" in text


def test_before_the_first_snapshot_there_is_nothing_to_say_of_peers() -> None:
    assert "peer=" not in scraped(BgpMetrics(Convergence()))


def test_convergence_is_from_the_first_news_to_the_routes_that_come_of_it() -> None:
    convergence = Convergence()
    convergence.on_news(10.0)
    convergence.on_news(10.3)
    convergence.on_written(10.4, True)
    convergence.on_news(11.0)
    convergence.on_written(11.5, False)  # nothing came of it
    convergence.on_written(12.0, True)  # of no news, but of time
    convergence.on_news(20.0)
    convergence.on_written(20.004, True)
    text = scraped(BgpMetrics(convergence))
    for line in (
        'weft_bgp_convergence_seconds_bucket{le="0.005"} 1.0',
        'weft_bgp_convergence_seconds_bucket{le="0.2"} 1.0',
        'weft_bgp_convergence_seconds_bucket{le="0.5"} 2.0',
        'weft_bgp_convergence_seconds_bucket{le="+Inf"} 2.0',
    ):
        assert line in text
    assert round(convergence.sum_s, 3) == 0.404
