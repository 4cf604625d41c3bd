"""How BGP looks on a screen and to a program."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

from weft.admin.bgp import ConfigReport, PathReport, PeerReport, TraceReport
from weft.ctl import bgp_view
from weft.ctl.arguments import parse

PEER = PeerReport(
    address=ip_address("10.1.0.254"),
    asn=65001,
    local_as=64512,
    local_address=ip_address("10.1.0.1"),
    resource="BGPPeer/tor",
    state="Active",
    last_error="hold timer expired",
    received=12,
    accepted=11,
    flaps=2,
    restarting=True,
    filters=("tor",),
    has_password=True,
    max_prefixes=100,
)


def path(**values: Any) -> PathReport:
    base: dict[str, Any] = {
        "prefix": ip_network("203.0.113.0/24"),
        "peer": ip_address("10.1.0.254"),
        "next_hop": ip_address("10.1.0.254"),
        "standing": "best",
        "reason": "the only path that can be used",
        "as_path": "65001",
        "local_preference": 100,
        "communities": ("1:2",),
    }
    return PathReport(**{**base, **values})


def test_peers() -> None:
    text = bgp_view.peers_table([PEER], [], 0.0, wide=False)
    assert "Active" in text
    assert "hold timer expired; its routes are kept" in text
    assert "password" not in text
    assert "password, at most 100 prefixes, filter tor" in bgp_view.peers_table([PEER], [], 0.0, wide=True)
    assert bgp_view.peers_table([], [], 0.0, wide=False) == "No BGP peers.\n"
    left_out = bgp_view.peers_table([], ["BGPPeer/tor\x1b: no AS number"], 0.0, wide=False)
    assert left_out == "No BGP peers.\n\nNot enforced: BGPPeer/tor\\x1b: no AS number\n"


def test_paths_say_how_they_fared() -> None:
    refused = path(standing="refused", reason="rejected by BGPFilter/tor importV4[0]", stale=True)
    first, second = bgp_view.paths_table([path(), refused], wide=False).splitlines()[1:]
    assert first.split()[:6] == [">", "203.0.113.0/24", "10.1.0.254", "10.1.0.254", "100", "65001"]
    assert first.endswith("the only path that can be used")
    assert second.startswith("xs ")
    assert "1:2" not in first
    assert "1:2" in bgp_view.paths_table([path()], wide=True)


def test_a_trace_tells_paths_kernel_and_announcements() -> None:
    told = path(standing="not announced", next_hop=None, reason="rejected by BGPFilter/tor exportV4[1]")
    trace = TraceReport(ip_network("203.0.113.0/24"), (path(),), (told,), ("via 10.1.0.254 dev up0",))
    text = bgp_view.trace_text(trace, "203.0.113.7", wide=False)
    assert "203.0.113.7 lies in 203.0.113.0/24" in text
    assert "via 10.1.0.254 dev up0" in text
    assert "rejected by BGPFilter/tor exportV4[1]" in text
    assert bgp_view.trace_text(TraceReport(None), "1.1.1.1", wide=False) == "Nothing is known that leads to 1.1.1.1.\n"


def test_the_configuration_says_who_this_node_is() -> None:
    config = ConfigReport(64512, IPv4Address("10.1.0.1"), 179, (ip_address("10.1.0.1"),), None, "neighbor ...\n")
    text = bgp_view.config_text(config)
    assert text.startswith("# AS 64512, router id 10.1.0.1, listens on 10.1.0.1, port 179\n")
    assert text.endswith("neighbor ...\n")
    assert "no BGP speaker" in bgp_view.config_text(ConfigReport(0, None, 0, (), None, ""))


def test_programs_get_everything_by_name() -> None:
    tree = bgp_view.tree([path(med=None)])
    assert tree[0]["nextHop"] == "10.1.0.254"
    assert tree[0]["localPreference"] == 100
    assert "med" not in tree[0]


def test_the_command_line() -> None:
    arguments = parse(["bgp", "received", "10.1.0.254", "-o", "wide"])
    assert (arguments.command, arguments.action, arguments.peer) == ("bgp", "received", "10.1.0.254")
    assert parse(["bgp", "trace", "10.65.0.0/26", "-o", "json"]).destination == "10.65.0.0/26"
