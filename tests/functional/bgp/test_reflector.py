"""weft-reflector between real BIRDs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from lab.netns import NetNs
from lab.speakers.driver import Speakers
from lab.speakers.driver import clients as scripted_clients
from lab.speakers.wire import How, Script
from tests.functional.bgp.fabric import Bird, Store, wait_until
from tests.functional.bgp.pair import nothing_deleted
from tests.functional.bgp.reflectors import CLUSTER, ReflectorNode, Segment, clients, session
from weft.model import keys
from weft.model.bgp import BGPPassword, SecretKeySelector

pytestmark = pytest.mark.root


def scrape(netns: NetNs) -> str:
    program = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9093/metrics').read().decode())"
    return netns.run([sys.executable, "-c", program])


def wait_for(bird: Bird, protocol: str, routes: set[str]) -> None:
    wait_until(f"{bird.directory.name} has {sorted(routes)}", lambda: bird.routes(protocol) == routes)


KERNEL = "protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }"


def test_clients_get_each_others_routes_of_both_families(
    reflector: ReflectorNode, network: Segment, store: Store
) -> None:
    numbers = [11, 12, 13]
    clients(store, numbers)
    for number in numbers:
        store.peer(f"six-{number}", node="rr", peer_ip=f"fd01::{number:x}", as_number=64512)
    birds = {n: network.bird(n, session(n) + "\n" + session(n, family="ipv6")) for n in numbers}
    reflector.start(WEFT_REFLECTOR_METRICS="9093")
    for number, bird in birds.items():
        others = [other for other in numbers if other != number]
        wait_for(bird, "rr1_ipv4", {f"10.65.{other}.0/26" for other in others})
        wait_for(bird, "rr1_ipv6", {f"fd65:{other:x}::/64" for other in others})
    said = birds[11].attributes("10.65.12.0/26", "rr1_ipv4")
    assert said["originator_id"] == "10.1.0.12"
    assert said["cluster_list"] == CLUSTER
    assert said["next_hop"] == "10.1.0.12"
    wait_until("the scraper sees it", lambda: 'weft_reflector_routes{reflector="rr"} 6.0' in scrape(reflector.netns))
    peers = reflector.ask("peers")
    assert {(one["state"], one["role"], one["received"], one["announced"]) for one in peers} == {
        ("Established", "client", 1, 2)
    }


def test_a_password_and_ttl_security_hold_for_their_session(
    reflector: ReflectorNode, network: Segment, store: Store
) -> None:
    secret = reflector.run_dir / "secrets" / "kube-system" / "bgp" / "key"
    secret.parent.mkdir(parents=True)
    secret.write_text("right")
    password = BGPPassword(secret_key_ref=SecretKeySelector(name="bgp", key="key"))
    clients(store, [11], password=password)
    clients(store, [12], ttl_security=1)
    clients(store, [13])
    first = network.bird(11, session(11, extra='password "right";'))
    second = network.bird(12, session(12, extra="ttl security on;"))
    third = network.bird(13, session(13, extra="multihop; ttl security off;"))
    reflector.start(WEFT_BGP_SECRETS_DIR=str(reflector.run_dir / "secrets"))
    for bird, others in ((first, (12, 13)), (second, (11, 13)), (third, (11, 12))):
        wait_for(bird, "rr1_ipv4", {f"10.65.{other}.0/26" for other in others})
    connections = second.connection(), third.connection()
    secret.write_text("another")
    wait_until("the session without the new password is down", lambda: not first.established("rr1_ipv4"))
    first.reconfigure(first.configuration.replace('"right"', '"another"'))
    wait_for(first, "rr1_ipv4", {"10.65.12.0/26", "10.65.13.0/26"})
    assert (second.connection(), third.connection()) == connections


def test_a_killed_reflector_costs_no_route_at_its_clients(
    reflector: ReflectorNode, network: Segment, store: Store
) -> None:
    numbers = [11, 12]
    clients(store, numbers)
    birds = {n: network.bird(n, session(n) + "\n" + KERNEL) for n in numbers}
    reflector.start()
    for number, other in ((11, 12), (12, 11)):
        wait_for(birds[number], "rr1_ipv4", {f"10.65.{other}.0/26"})
    with nothing_deleted(birds[11].netns) as first, nothing_deleted(birds[12].netns) as second:
        for how in (signal.SIGKILL, signal.SIGTERM):
            before = {number: bird.connection() for number, bird in birds.items()}
            reflector.end(how)
            wait_until("it has noticed", lambda: not birds[11].established("rr1_ipv4"))
            reflector.start()
            for number, bird in birds.items():
                wait_until("it is back", lambda bird=bird: bird.established("rr1_ipv4"))
                assert bird.connection() != before[number]
            wait_until("its end-of-RIB has come", lambda: "peers are told now" in reflector.log())
    assert first == []
    assert second == []
    assert birds[11].routes("rr1_ipv4") == {"10.65.12.0/26"}


def test_a_client_that_reads_nothing_delays_nobody(reflector: ReflectorNode, network: Segment, store: Store) -> None:
    clients(store, [11, 12, 20])
    birds = {n: network.bird(n, session(n)) for n in (11, 12)}
    scripts = [Script(local=IPv4Address("10.1.0.20"), peer=IPv4Address("10.1.0.1"), restart_time_s=120)]
    many = IPv4Network("11.0.0.0/8").subnets(new_prefix=24)
    reader = network.host("s20", 20)
    reader.sysctl(ipv4__tcp_rmem="4096 8192 8192")  # else its kernel reads in its place
    with Speakers(reader, scripts) as slow:
        slow.connect()
        reflector.start()
        slow.wait_established()
        wait_for(birds[12], "rr1_ipv4", {"10.65.11.0/26"})
        slow.lose((0,), How.STALL, again=True)
        routes = [str(next(many)) for _ in range(20_000)]
        for med in range(1, 6):
            static = " ".join(f"route {route} blackhole {{ bgp_med = {med}; }};" for route in routes)
            birds[11].reconfigure(birds[11].configuration.replace("ipv4; route", f"ipv4; {static} route"))
            wait_until("the other has all", lambda: len(birds[12].routes("rr1_ipv4")) == len(routes) + 1)
            wait_until(
                "and as it is now", lambda med=med: birds[12].attributes(routes[-1], "rr1_ipv4")["med"] == str(med)
            )
        peers = {one["address"]: one for one in reflector.ask("peers")}
        assert peers["10.1.0.20"]["state"] == "Established"
        assert peers["10.1.0.20"]["behind"] > 0
        assert peers["10.1.0.12"]["behind"] == 0
        slow.zero()
        slow.recover()
        slow.expect([IPv4Network(route) for route in [*routes, "10.65.11.0/26", "10.65.12.0/26"]])
        slow.wait_complete()
        assert slow.totals().announced < 4 * len(routes), "what was out of date by then is not told"


def test_twenty_clients_over_ipv6_hear_of_one_another_and_of_nobody_who_is_lost(
    reflector: ReflectorNode, network: Segment, store: Store
) -> None:
    addresses, route = IPv6Network("fd02::/64"), IPv6Network("fd66::/122")
    place = network.host("s20", 20)
    place.ip("route", "add", "local", str(addresses), "dev", "lo")
    reflector.netns.ip("route", "add", str(addresses), "via", "fd01::14")
    scripts = scripted_clients(20, IPv6Address("fd01::1"), addresses, IPv6Network("fd65::/64"), each=2)
    for number, script in enumerate(scripts):
        store.peer(f"rr-s{number}", node="rr", peer_ip=str(script.local), as_number=64512)
    with Speakers(place, scripts) as speakers:
        speakers.expect()
        speakers.connect()
        reflector.start()
        speakers.wait_complete()
        speakers.announce((3,), [route])
        speakers.wait_complete()
        assert route in speakers.held(19)
        speakers.lose((3,), How.CEASE)
        speakers.wait_complete()
        assert not {route, *scripts[3].routes} & set(speakers.held(19))


@pytest.mark.parametrize("clusters", [("1.1.1.1", "1.1.1.1"), ("1.1.1.1", "2.2.2.2")], ids=["one", "two"])
def test_two_reflectors_in_one_cluster_or_in_two(
    clusters: tuple[str, str],
    make_reflector: Callable[[str, int], ReflectorNode],
    network: Segment,
    store: Store,
) -> None:
    """Client 11 has both, 12 only the first, 13 only the second. In one cluster a path does not pass both."""
    store.node("rr", "10.1.0.1/24", cluster_id=clusters[0])
    store.node("rs", "10.1.0.2/24", cluster_id=clusters[1])
    store.peer("between", node_selector="has(reflector)", peer_selector="has(reflector)")
    birds_of_client = network_clients(store)
    reflectors = [make_reflector("rr", 1), make_reflector("rs", 2)]
    birds = {
        11: network.bird(11, session(11, to=1) + "\n" + session(11, to=2)),
        12: network.bird(12, session(12, to=1)),
        13: network.bird(13, session(13, to=2)),
    }
    assert set(birds) == birds_of_client
    for one in reflectors:
        one.start()
    both = {"10.65.11.0/26", *(["10.65.13.0/26"] if clusters[0] != clusters[1] else [])}
    wait_for(birds[12], "rr1_ipv4", both)
    wait_for(birds[13], "rr2_ipv4", {"10.65.11.0/26", *(["10.65.12.0/26"] if len(both) == 2 else [])})
    wait_until(
        "client 11 has the others'",
        lambda: birds[11].routes("rr1_ipv4") | birds[11].routes("rr2_ipv4") == {"10.65.12.0/26", "10.65.13.0/26"},
    )
    reason = {one["prefix"]: one for one in reflectors[0].ask("received", "10.1.0.2")}["10.65.13.0/26"]
    if clusters[0] == clusters[1]:
        assert "our own cluster" in reason["reason"]
    else:
        assert birds[12].attributes("10.65.13.0/26", "rr1_ipv4")["cluster_list"] == "1.1.1.1 2.2.2.2"


def network_clients(store: Store) -> set[int]:
    clients(store, [11, 12])
    clients(store, [11, 13], reflector="rs")
    return {11, 12, 13}


def test_a_reflector_without_its_datastore_goes_on_and_one_that_is_deleted_says_goodbye(
    reflector: ReflectorNode, network: Segment, store: Store
) -> None:
    clients(store, [11, 12])
    birds = {n: network.bird(n, session(n)) for n in (11, 12)}
    reflector.start()
    wait_for(birds[11], "rr1_ipv4", {"10.65.12.0/26"})
    trace = reflector.ask("trace", "10.65.12.1")
    assert trace["prefix"] == "10.65.12.0/26"
    assert [one["peer"] for one in trace["announcements"] if one["standing"] == "announced"] == ["10.1.0.11"]
    store.delete(keys.ResourceKey("Node", "rr"))
    wait_until("BIRD was told", lambda: "Received: Peer de-configured" in birds[11].ask("show protocols all rr1_ipv4"))
    assert birds[11].routes("rr1_ipv4") == set()


def test_a_reflector_writes_its_own_node_where_it_is_asked_to(
    make_reflector: Callable[[str, int], ReflectorNode], network: Segment, store: Store
) -> None:
    store.node("c11", "10.1.0.11/24")
    store.peer("reflectors", node_selector="!has(reflector)", peer_selector="has(reflector)")
    bird = network.bird(11, session(11))
    made = make_reflector("rr", 1)
    made.start(WEFT_REFLECTOR_CLUSTER_ID=CLUSTER, WEFT_REFLECTOR_IP="10.1.0.1/24", WEFT_REFLECTOR_LABELS="reflector=")
    wait_until("the session is up", lambda: bird.established("rr1_ipv4"))
    assert {(one["role"], one["resource"]) for one in made.ask("peers")} == {("client", "BGPPeer/reflectors")}
