"""Peers that send garbage: each costs at most its own session, and what RFC 7606 says not even that."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lab.netns import NetNs
from tests.functional.bgp.fabric import Store, wait_until
from tests.functional.bgp.garbage import LAST, Garbage, Garbled, Peer, cast
from tests.functional.bgp.pair import BLOCK, FIRST, Pair, nothing_deleted
from tests.functional.bgp.reflectors import ReflectorNode, Segment, clients, session

pytestmark = pytest.mark.root

AS = 65009
# RFC 4271 6.3 has a NOTIFICATION for it; here it costs the peer that route.
ONE_ROUTE = {"unknown well-known attribute": "withdrawn"}


def addresses(netns: NetNs, of: Sequence[tuple[Garbage, Peer]]) -> None:
    for _, peer in of:
        netns.ip("address", "add", f"{peer.address}/24", "dev", "up0")


def test_the_agent_and_its_speaker_outlive_it_and_other_sessions_do_not_notice(pair: Pair) -> None:
    played = cast(AS, instead=ONE_ROUTE | {"a second OPEN": "kept"})  # ExaBGP reads none on a session that is up
    addresses(pair.bird.netns, played)
    connection, speaker = pair.bird.connection(), pair.node.speaker()
    for _, peer in played:
        pair.store.peer(f"garbage-{peer.address}", peer_ip=str(peer.address), as_number=AS)
    with nothing_deleted(pair.node.netns) as deleted, Garbled(pair.bird.netns, "10.1.0.1", played) as garbled:
        wait_until("what is proper is used", lambda: garbled.announced() <= pair.routes())
        outcomes = garbled.misbehave()
        wait_until("what is proper later is used", lambda: garbled.announced_after() <= pair.routes())
        assert garbled.judge(outcomes, pair.routes()) == []
        # Of a peer that is well again but for what it announces: ours, this node, and what is no unicast.
        garbled.announce_what_is_not_its_own(BLOCK, "10.1.0.1/32", "127.0.0.0/8", "224.0.0.0/4", "169.254.0.0/16")
        wait_until("what it announces last", lambda: str(LAST) in pair.routes())
        assert pair.routes() <= FIRST | garbled.announced() | garbled.announced_after() | {str(LAST)}
    assert not FIRST & {line.split()[1] for line in deleted}
    wait_until("of the garbage nothing is left", lambda: pair.routes() == FIRST)
    assert pair.node.speaker() == speaker
    assert pair.bird.connection() == connection
    assert pair.bird.routes("p0") == {BLOCK}
    for log in (pair.node.log(), (pair.node.run_dir / "speaker.log").read_text()):
        assert "Traceback" not in log
    assert "down: message header error, subcode 1 (sent to the peer)" in pair.node.log()


def test_the_reflector_treats_as_withdrawn_what_it_can_and_its_clients_do_not_notice(
    reflector: ReflectorNode, network: Segment, store: Store
) -> None:
    played = cast(AS, instead=ONE_ROUTE | {"ROUTE-REFRESH of two octets": "kept"})
    clients(store, [11, 12])
    for _, peer in played:
        store.peer(f"garbage-{peer.address}", node="rr", peer_ip=str(peer.address), as_number=AS)
    first, second = (network.bird(number, session(number)) for number in (11, 12))
    outside = network.host("garbage", 99)
    addresses(outside, played)
    reflector.start()
    wait_until("the clients' sessions are up", lambda: first.routes("rr1_ipv4") == {"10.65.12.0/26"})
    connections = first.connection(), second.connection()
    with Garbled(outside, "10.1.0.1", played) as garbled:
        wait_until("what is proper is reflected", lambda: garbled.announced() <= first.routes("rr1_ipv4"))
        outcomes = garbled.misbehave()
        wait_until("what is proper later is", lambda: garbled.announced_after() <= first.routes("rr1_ipv4"))
        assert garbled.judge(outcomes, first.routes("rr1_ipv4")) == []
        # What nobody knows is passed on: attribute 99, now with the partial bit, as RFC 4271 5 has it.
        assert "BGP.63 [t]: 78" in first.ask(f"show route {garbled.unknown()} all")
    wait_until("of the garbage nothing is left", lambda: first.routes("rr1_ipv4") == {"10.65.12.0/26"})
    assert (first.connection(), second.connection()) == connections
    assert "Traceback" not in reflector.log()
