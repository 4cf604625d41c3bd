"""BFD on the sessions of a real weft-reflector with real BIRDs: a client that dies without a word."""

from __future__ import annotations

import signal

import pytest

from tests.functional.bgp.fabric import Bird, Store, wait_until
from tests.functional.bgp.pair import nothing_deleted
from tests.functional.bgp.reflectors import ReflectorNode, Segment, clients, session
from weft import singleton

pytestmark = pytest.mark.root

BIRD_BFD = (
    'protocol bfd { interface "*" { interval 100 ms; multiplier 3; }; multihop { interval 100 ms; multiplier 3; }; }\n'
)
KERNEL = "protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }"


def bfd_up(bird: Bird) -> bool:
    return " Up " in bird.ask("show bfd sessions")


def bfd_process(reflector: ReflectorNode) -> int | None:
    return singleton.holder(singleton.lock_path(reflector.run_dir, f"reflector-{reflector.name}-bfd"))


def test_routes_of_a_client_that_falls_silent_go_long_before_its_hold_time_and_restart_time(
    reflector: ReflectorNode, network: Segment, store: Store
) -> None:
    clients(store, [11], annotations={"weft/bfd": "100ms x 3"})
    clients(store, [12], annotations={"weft/bfd": "100ms x 3 multihop"})
    clients(store, [13])
    birds = {
        11: network.bird(11, BIRD_BFD + session(11, extra="direct; bfd on;")),
        12: network.bird(12, BIRD_BFD + session(12, extra="multihop; bfd on;")),
        13: network.bird(13, session(13) + "\n" + KERNEL),
    }
    reflector.start()
    wait_until("the third has both routes", lambda: birds[13].routes("rr1_ipv4") == {"10.65.11.0/26", "10.65.12.0/26"})
    wait_until("BFD is up with both", lambda: all(bfd_up(birds[number]) for number in (11, 12)))
    wait_until(
        "the reflector says so", lambda: sorted(one["bfd"] for one in reflector.ask("peers")) == ["", "up", "up"]
    )
    # Its links, addresses and connections stay: only BFD can tell. Hold time is 90 s, restart time 120 s.
    frozen = birds[11].process
    assert frozen is not None
    frozen.signal(signal.SIGSTOP)
    wait_until("its route is gone", lambda: birds[13].routes("rr1_ipv4") == {"10.65.12.0/26"}, timeout_s=20)
    assert "BFD: the path is dead" in reflector.log()
    assert "are kept while it restarts" not in reflector.log()
    frozen.signal(signal.SIGCONT)
    wait_until("its route is back", lambda: "10.65.11.0/26" in birds[13].routes("rr1_ipv4"))
    network.switch.ip("link", "set", "c12", "nomaster")
    wait_until("the other's route is gone", lambda: birds[13].routes("rr1_ipv4") == {"10.65.11.0/26"}, timeout_s=20)
    network.switch.ip("link", "set", "c12", "master", "br0")
    wait_until("the other's route is back", lambda: "10.65.12.0/26" in birds[13].routes("rr1_ipv4"))


def test_a_killed_reflector_is_no_dead_path(reflector: ReflectorNode, network: Segment, store: Store) -> None:
    clients(store, [11, 12], annotations={"weft/bfd": "100ms x 3"})
    birds = {n: network.bird(n, BIRD_BFD + session(n, extra="direct; bfd on;") + "\n" + KERNEL) for n in (11, 12)}
    reflector.start()
    wait_until("BFD is up with both", lambda: all(map(bfd_up, birds.values())))
    wait_until("the first has the other's route", lambda: birds[11].routes("rr1_ipv4") == {"10.65.12.0/26"})
    process = bfd_process(reflector)
    assert process is not None
    with nothing_deleted(birds[11].netns) as deleted:
        for how in (signal.SIGKILL, signal.SIGTERM):
            reflector.end(how)
            wait_until("it has noticed", lambda: not birds[11].established("rr1_ipv4"))
            reflector.start()
            wait_until("it is back", lambda: birds[11].established("rr1_ipv4"))
            assert bfd_process(reflector) == process
            wait_until("its end-of-RIB has come", lambda: "peers are told now" in reflector.log())
            wait_until("BFD is up with both", lambda: all(map(bfd_up, birds.values())))
    assert deleted == []
    assert birds[11].routes("rr1_ipv4") == {"10.65.12.0/26"}
