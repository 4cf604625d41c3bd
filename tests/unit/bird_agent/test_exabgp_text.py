"""What we write for ExaBGP: configuration, commands, and the check before it is started at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import exabgp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bird_agent.exabgp import commands, corrections, launcher
from bird_agent.exabgp.commands import Announcement
from bird_agent.exabgp.configuration import Neighbor, UnrenderableSessionError, render
from bird_agent.exabgp.corrections import Correction, UnknownExaBGPError
from tests.fakes.speaker import unpacked
from weft.model.address import IPNetwork

REPOSITORY = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden"
HELPER = [sys.executable, "-I", "-S", "/x/speaker_link.py", "/run/weft/speaker.sock"]


def neighbor(peer: str = "10.1.0.2", **changes: Any) -> Neighbor:
    base = Neighbor(
        peer=ip_address(peer),
        local=ip_address("10.1.0.1" if "." in peer else "fd00::1"),
        router_id=IPv4Address("10.1.0.1"),
        local_as=64512,
        peer_as=64512,
    )
    return replace(base, **changes)


NEIGHBORS = [
    neighbor("fd00::2"),
    neighbor("10.1.0.10", peer_as=4_200_000_001, hold_time_s=9, port=1179, passive=True),
    neighbor("fd00::3", versions=(4, 6)),
    neighbor("10.1.0.3", versions=(4, 6)),
    neighbor("10.1.0.2", password="pa55:word", ttl_security_hops=1, restart_time_s=60),
]


def test_the_configuration_is_the_golden_one_in_any_order_of_sessions() -> None:
    text = render(NEIGHBORS, ["/usr/bin/python3", *HELPER[1:]])
    assert text == (GOLDEN / "speaker.conf").read_text()
    assert render(reversed(NEIGHBORS), ["/usr/bin/python3", *HELPER[1:]]) == text


@pytest.mark.parametrize(
    ("text", "status"),
    [
        pytest.param(render(NEIGHBORS, HELPER), 0, id="every option"),
        pytest.param(render([], HELPER), 0, id="no session"),
        pytest.param(render(NEIGHBORS, HELPER) + "nonsense\n", 1, id="syntax error"),
    ],
)
def test_exabgp_itself_reads_what_is_rendered(tmp_path: Path, text: str, status: int) -> None:
    path = tmp_path / "speaker.conf"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "bird_agent.exabgp.launcher", "validate", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, bool(done.stderr.strip())) == (status, bool(status)), done.stderr


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"password": "two words"}, id="space in the password"),
        pytest.param({"password": 'x"; local-as 1;'}, id="password that ends its statement"),
        pytest.param({"password": "x" * 81}, id="password too long for TCP MD5"),
        pytest.param({"local": ip_address("fd00::1")}, id="addresses of two families"),
        pytest.param({"hold_time_s": 2}, id="hold time below three seconds"),
        pytest.param({"peer_as": 0}, id="AS 0"),
        pytest.param({"restart_time_s": 4096}, id="restart time of more than 12 bits"),
        pytest.param({"peer": "fe80::2%up0"}, id="peer with a zone"),
    ],
)
def test_a_session_that_cannot_be_expressed_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UnrenderableSessionError):
        neighbor(**changes)


PEER = ip_address("10.1.0.2")


def test_prefixes_with_equal_attributes_share_lines_of_at_most_500() -> None:
    us = Announcement(ip_address("10.1.0.1"))
    marked = Announcement(ip_address("10.1.0.1"), ("64512:1",), ("64512:1:2",), 200, (64512, 65001))
    routes = {ip_network(("10.64.0.0", 32)): us} | {
        ip_network((0x0A000000 + number, 32)): marked for number in range(1001)
    }
    lines = list(commands.announce(PEER, routes))
    assert [len(prefixes(line)) for line in lines] == [1, 500, 500, 1]
    assert lines[0] == b"weft announce 200a400000 ipv4 to 10.1.0.2 with next-hop 10.1.0.1 origin igp\n"
    assert lines[3] == (
        b"weft announce 200a0003e8 ipv4 to 10.1.0.2 with next-hop 10.1.0.1 origin igp local-preference 200 "
        b"as-path [ 64512 65001 ] community [64512:1] large-community [64512:1:2]\n"
    )


def prefixes(line: bytes) -> list[IPNetwork]:
    _, _, packed, family, *_ = line.decode().split()
    return unpacked(bytes.fromhex(packed), family)


def test_peers_that_are_told_the_same_are_told_in_one_line_whatever_the_order_of_the_routes() -> None:
    us, nets = Announcement(PEER), [ip_network("10.0.1.0/24"), ip_network("10.0.0.0/24"), ip_network("fd00::/64")]
    (ipv4, ipv6) = commands.announcements(dict.fromkeys(nets, us))
    assert [ipv4, ipv6] == list(commands.announcements(dict.fromkeys(reversed(nets), us)))
    assert list(commands.to([PEER, ip_address("fd00::2")], ipv4)) == [
        b"weft announce 180a0000180a0001 ipv4 to 10.1.0.2 fd00::2 with next-hop 10.1.0.2 origin igp\n"
    ]


def test_exabgp_sends_what_is_passed_on_as_it_was_said() -> None:
    """Read by ExaBGP's own parser, packed by its codec: two bytes of flags and code begin each attribute."""
    passed = Announcement(
        PEER,
        communities=("64512:1",),
        as_path=(64512, (7, 8), 65001),
        origin=2,
        med=5,
        originator_id=IPv4Address("1.2.3.4"),
        cluster_list=(IPv4Address("5.6.7.8"), IPv4Address("9.9.9.9")),
        extended_communities=(0x0002FC0000000001,),
        others=("atomic-aggregate", "aggregator ( 65001:1.1.1.1 )", "attribute [ 0x63 0xE0 0x0102 ]"),
    )
    (told,) = commands.announcements({ip_network("10.0.0.0/24"): passed})
    done = subprocess.run(
        [sys.executable, "-c", PARSE, told.attributes], capture_output=True, text=True, check=True, timeout=30
    )
    path, text = done.stdout.strip().splitlines()
    assert path == "SEQUENCE [64512] SET [7, 8] SEQUENCE [65001]"
    assert text == (
        "med 5 atomic-aggregate aggregator ( 65001:1.1.1.1 ) community 64512:1 originator-id 1.2.3.4 "
        "cluster-list [ 5.6.7.8 9.9.9.9 ] attribute [ 0x10 0xC0 0x0002fc0000000001 ] attribute [ 0x63 0xE0 0x0102 ]"
    )


PARSE = """
import sys
from exabgp.environment import getenv
from exabgp.logger import log
getenv().log.enable = False
log.init(getenv())
from exabgp.configuration.configuration import Configuration
from exabgp.reactor.api import API
from bird_agent.exabgp import announced

class Reactor:
    configuration = Configuration([])

attributes, _ = announced._attributes(API(Reactor), "ipv4", sys.argv[1])
assert str(attributes[1]) == "incomplete"
print(*(f"{type(each).__name__} {list(map(int, each))}" for each in attributes[2].aspath))
print(str(attributes).partition(") med")[2].join(["med", ""]))
"""


networks = st.integers(0, 2**20).map(lambda number: ip_network((number << 8, 24))) | st.integers(0, 2**20).map(
    lambda number: ip_network((number << 100, 28 + number % 40), strict=False)
)
attributes = st.builds(Announcement, st.just(PEER), local_preference=st.none() | st.integers(0, 3))


@given(st.dictionaries(networks, attributes, max_size=40))
def test_every_prefix_is_announced_once_with_its_attributes(routes: dict[Any, Announcement]) -> None:
    said: dict[IPNetwork, str] = {}
    for line in commands.announce(PEER, routes):
        for prefix in prefixes(line):
            assert prefix not in said
            said[prefix] = line.decode().strip().partition(" to 10.1.0.2 with ")[2]
    assert said == {prefix: announcement.text() for prefix, announcement in routes.items()}


def test_withdrawals_are_split_by_family() -> None:
    gone = [ip_network("fd00::/122"), ip_network("10.0.0.0/26")]
    assert list(commands.withdraw(PEER, gone)) == [
        b"weft withdraw 1a0a000000 ipv4 to 10.1.0.2\n",
        b"weft withdraw 7afd000000000000000000000000000000 ipv6 to 10.1.0.2\n",
    ]


def test_another_version_of_exabgp_is_refused_in_words_that_help() -> None:
    with pytest.raises(UnknownExaBGPError, match=r"ExaBGP 5\.0\.16 is installed.*exabgp==5\.0\.15"):
        corrections.verify("5.0.16")


def test_the_installed_exabgp_is_the_one_that_is_known() -> None:
    corrections.verify(corrections.KNOWN_VERSION)


def altered(self: object) -> bool:
    return True


def test_a_function_that_reads_differently_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrections.Reactor, "_pending_adjribout", altered)
    with pytest.raises(UnknownExaBGPError, match=r"Reactor\._pending_adjribout .*B2"):
        corrections.verify(corrections.KNOWN_VERSION)


@pytest.mark.parametrize("command", ["validate", "serve"])
@pytest.mark.parametrize(
    ("file", "text", "other", "complaint"),
    [
        ("rib/outgoing.py", "new_nlri[change_index] = change\n", "pass\n", "OutgoingRIB._update_rib"),
        (
            "reactor/protocol.py",
            "number += 1\n                for",
            "number += 2\n                for",
            "Protocol.new_update",
        ),
        ("version.py", "5.0.15", "5.0.16", "ExaBGP 5.0.16 is installed"),
    ],
)
def test_an_altered_exabgp_is_not_started(
    command: str, file: str, text: str, other: str, complaint: str, tmp_path: Path
) -> None:
    package = tmp_path / "exabgp"
    shutil.copytree(Path(exabgp.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    source = (package / file).read_text()
    assert text in source
    (package / file).write_text(source.replace(text, other))
    (tmp_path / "speaker.conf").write_text("")
    lock = ["--lock", str(tmp_path / "speaker.lock")] if command == "serve" else []
    done = subprocess.run(
        [sys.executable, "-m", "bird_agent.exabgp.launcher", command, str(tmp_path / "speaker.conf"), *lock],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == launcher.EXIT_REFUSED
    assert complaint in done.stderr


def test_every_replaced_function_is_verified() -> None:
    def names(correction: Correction) -> set[str]:
        return {f"{owner.__name__}.{method}" for owner, method in correction.replaces}

    known: Callable[[Correction], set[str]] = lambda correction: set(correction.digests)  # noqa: E731
    assert all(names(correction) <= known(correction) for correction in corrections.CORRECTIONS)
