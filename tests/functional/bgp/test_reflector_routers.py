"""weft-reflector with every router we know as its client, and as an internal peer that is none."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.netns import NetNs
from tests.functional.bgp.fabric import Store, wait_until
from tests.functional.bgp.reflectors import CLUSTER, ReflectorNode, Segment, clients, session
from tests.functional.bgp.routers import ROUTERS, Announced, Neighbour, Router, Setup
from weft.model.bgp import BGPPassword, SecretKeySelector

EACH = [pytest.param(name, marks=pytest.mark.xdist_group(f"reflector-{name}")) for name in ROUTERS]
pytestmark = [pytest.mark.root, pytest.mark.parametrize("kind", EACH)]

AS = 64512
REFLECTOR = {4: "10.1.0.1", 6: "fd01::1"}
ROUTER = {4: "10.1.0.20", 6: "fd01::14"}
OWN = Announced("198.51.100.0/24", ("64512:7",), ("64512:8:9",))
OWN6 = Announced("2001:db8:1::/48", ("64512:7",))
PASSWORD = "not.for/any=log"


@pytest.fixture
def outside(network: Segment) -> NetNs:
    return network.host("router", 20)


@pytest.fixture
def router(kind: str, outside: NetNs, frr_directory: Path) -> Iterator[Router]:
    """Not started; its sessions with the reflector have a password, and over IPv4 TTL security."""
    sessions = (
        Neighbour(address=REFLECTOR[4], local=ROUTER[4], asn=AS, password=PASSWORD, gtsm=ROUTERS[kind].internal_gtsm),
        Neighbour(address=REFLECTOR[6], local=ROUTER[6], asn=AS, password=PASSWORD),
    )
    setup = Setup(asn=AS, router_id=ROUTER[4], neighbours=sessions, announced=(OWN, OWN6))
    made = ROUTERS[kind](outside, frr_directory / "router", setup)
    yield made
    print(f"--- {made.name}\n{made.log()[-5000:]}")


def known_to(reflector: ReflectorNode, store: Store, router: Router) -> None:
    """The router's sessions, as the reflector is to have them; starts it."""
    secret = reflector.run_dir / "secrets" / "kube-system" / "bgp" / "router"
    secret.parent.mkdir(parents=True)
    secret.write_text(PASSWORD)
    password = BGPPassword(secret_key_ref=SecretKeySelector(name="bgp", key="router"))
    hops = 1 if router.internal_gtsm else None
    store.peer("router4", node="rr", peer_ip=ROUTER[4], as_number=AS, password=password, ttl_security=hops)
    store.peer("router6", node="rr", peer_ip=ROUTER[6], as_number=AS, password=password)
    store.peer("six-11", node="rr", peer_ip="fd01::b", as_number=AS)
    reflector.start(WEFT_BGP_SECRETS_DIR=str(reflector.run_dir / "secrets"))


def test_as_a_client_it_gets_what_others_have_and_they_what_it_has_whoever_restarts(
    router: Router, reflector: ReflectorNode, network: Segment, store: Store
) -> None:
    clients(store, [11])
    bird = network.bird(11, session(11) + "\n" + session(11, family="ipv6"))
    router.start()
    known_to(reflector, store, router)
    wait_until("BIRD has the router's", lambda: bird.routes("rr1_ipv4") == {OWN.prefix})
    wait_until("of IPv6, too", lambda: bird.routes("rr1_ipv6") == {OWN6.prefix})
    wait_until("the router has BIRD's", lambda: router.learnt(REFLECTOR[4]) == {"10.65.11.0/26"})
    wait_until("of IPv6, too", lambda: router.learnt(REFLECTOR[6]) == {"fd65:b::/64"})
    said = bird.attributes(OWN.prefix, "rr1_ipv4")
    assert (said["originator_id"], said["cluster_list"], said["next_hop"]) == (ROUTER[4], CLUSTER, ROUTER[4])
    assert (said["community"], said["large_community"]) == ("(64512,7)", "(64512, 8, 9)")
    path = router.path(REFLECTOR[4], "10.65.11.0/26")
    assert path is not None
    assert (path.next_hop, path.originator, path.clusters) == ("10.1.0.11", "10.1.0.11", (CLUSTER,))
    # It asks for all again, and changes what it announces.
    router.refresh(REFLECTOR[4])
    router.announce(Announced("192.0.2.0/24"))
    router.withdraw(OWN.prefix)
    wait_until("BIRD has the change", lambda: bird.routes("rr1_ipv4") == {"192.0.2.0/24"})
    assert router.learnt(REFLECTOR[4]) == {"10.65.11.0/26"}
    # The reflector is killed: the router keeps what it had until it is told all again.
    reflector.end(signal.SIGKILL)
    wait_until("it has noticed", lambda: not router.established(REFLECTOR[4]))
    assert router.learnt(REFLECTOR[4]) == {"10.65.11.0/26"}
    reflector.start(WEFT_BGP_SECRETS_DIR=str(reflector.run_dir / "secrets"))
    seen: list[set[str]] = []

    def back() -> bool:
        seen.append(router.learnt(REFLECTOR[4]))
        return router.established(REFLECTOR[4]) and bird.established("rr1_ipv4")

    wait_until("it is back", back)
    wait_until("its end-of-RIB has come", lambda: "peers are told now" in reflector.log())
    assert seen == [{"10.65.11.0/26"}] * len(seen)
    wait_until("BIRD has the router's as before", lambda: bird.routes("rr1_ipv4") == {"192.0.2.0/24"})
    # The router is killed, and comes back with something else.
    router.kill()
    kept = {"192.0.2.0/24"} if router.restarts_gracefully else set()
    wait_until("the reflector has noticed", lambda: state(reflector, ROUTER[4]) != "Established")
    wait_until("BIRD has what is kept", lambda: bird.routes("rr1_ipv4") == kept)
    router.start(restarted=True)
    wait_until("BIRD has what is announced now", lambda: bird.routes("rr1_ipv4") == {OWN.prefix})
    router.shut_down(REFLECTOR[4])
    wait_until("a shutdown withdraws", lambda: bird.routes("rr1_ipv4") == set())


def test_as_no_client_it_gets_what_clients_have_and_gives_to_them_alone(
    router: Router, reflector: ReflectorNode, network: Segment, store: Store
) -> None:
    """Nodes of the reflector's own cluster are no clients of it."""
    store.node("router", f"{ROUTER[4]}/24", cluster_id=CLUSTER)
    store.node("other", "10.1.0.12/24", cluster_id=CLUSTER)
    store.peer("cluster", node="rr", peer_selector="has(reflector)")
    clients(store, [11])
    client, other = network.bird(11, session(11)), network.bird(12, session(12))
    router.setup = Setup(
        asn=AS,
        router_id=ROUTER[4],
        neighbours=(Neighbour(address=REFLECTOR[4], local=ROUTER[4], asn=AS),),
        announced=(OWN,),
    )
    router.start()
    reflector.start()
    wait_until("the client has all", lambda: client.routes("rr1_ipv4") == {OWN.prefix, "10.65.12.0/26"})
    wait_until("the router has the client's", lambda: router.learnt(REFLECTOR[4]) == {"10.65.11.0/26"})
    wait_until("the other one, too", lambda: other.routes("rr1_ipv4") == {"10.65.11.0/26"})
    client.ask("disable rr1_ipv4")
    wait_until("what the client had goes", lambda: router.learnt(REFLECTOR[4]) == set())
    roles = {one["address"]: one["role"] for one in reflector.ask("peers")}
    assert roles[ROUTER[4]] == roles["10.1.0.12"] != roles["10.1.0.11"] == "client"


def state(reflector: ReflectorNode, address: str) -> str:
    return next((str(one["state"]) for one in reflector.ask("peers") or [] if one["address"] == address), "")
