"""The reflector's table keeps of a silent peer what nobody else brings."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network

from msgspec.structs import replace

from bird_agent.bestpath import Peer
from bird_agent.exabgp.commands import Family
from bird_agent.exabgp.events import PathAttributes
from bird_agent.reflector.attributes import AttributeSets
from bird_agent.reflector.prefixes import IPV4, Nlri, nlri_of
from bird_agent.reflector.rib import Rib, Route

ONE, OTHER = IPv4Address("10.0.1.1"), IPv4Address("10.0.1.2")
PREFIX = nlri_of(ip_network("10.65.0.0/26"))


def test_what_a_peer_that_is_back_announces_as_before_takes_the_place_of_what_is_kept_of_another() -> None:
    refused = {OTHER}

    def judge(route: Route, family: Family, nlri: Nlri) -> Route:
        return replace(route, refused="no" if route.path.peer.address in refused else "")

    table = Rib(judge, lambda peer: False)
    attributes = AttributeSets().of(PathAttributes(), [])
    for peer in (ONE, OTHER):
        table.set_peer(Peer(peer, peer, 64512, internal=True))
        table.update(peer, IPV4, (attributes, peer), [PREFIX], [])
        table.mark_stale(peer, IPV4)
    for peer in (ONE, OTHER):
        table.fall_silent(peer, frozenset())
    refused.clear()
    table.judge_all_again()  # so that both have kept it
    table.end_silence(ONE)
    table.update(ONE, IPV4, (attributes, ONE), [PREFIX], [])
    assert table.received(OTHER) == 0
    table.update(ONE, IPV4, None, [], [PREFIX])
    table.take_changes()
    assert table.best(IPV4) == {}
