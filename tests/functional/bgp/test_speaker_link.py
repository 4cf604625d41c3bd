"""The speaker link as a process: it always reads, never loses a whole line, and says what it could not keep."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bird_agent.exabgp.supervisor import SpeakerPaths
from lab.netns import NetNs
from tests.functional.bgp.fabric import AgentNode, Bird, Store, bird_configuration, segment, wait_until
from tests.functional.bgp.pair import BODY, nothing_deleted

PEER = "10.1.0.254"


def state(name: str, peer: str = PEER) -> bytes:
    return json.dumps(
        {"type": "state", "neighbor": {"address": {"local": "10.1.0.1", "peer": peer}, "state": name}}
    ).encode()


def update(number: int, peer: str = PEER) -> bytes:
    return json.dumps(
        {"type": "update", "neighbor": {"address": {"local": "10.1.0.1", "peer": peer}}, "number": number}
    ).encode()


class LinkProcess:
    """The link with the test at ExaBGP's ends of its pipes."""

    def __init__(self, directory: Path, limit: int) -> None:
        paths = SpeakerPaths(directory, limit)
        self.path = paths.socket
        self.process = subprocess.Popen(paths.helper(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        wait_until("the socket is there", self.path.exists)

    def write(self, *lines: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(line + b"\n" for line in lines))
        self.process.stdin.flush()

    def attach(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(5)
        made.connect(str(self.path))
        return made

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(5)


def read_lines(connection: socket.socket, until: bytes) -> list[bytes]:
    data = b""
    while until + b"\n" not in data:
        part = connection.recv(1 << 16)
        assert part, data
        data += part
    return data.splitlines()


@pytest.fixture
def make_link(tmp_path: Path) -> Iterator[Callable[[int], LinkProcess]]:
    made: list[LinkProcess] = []

    def make(limit: int = 1 << 20) -> LinkProcess:
        made.append(LinkProcess(tmp_path, limit))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_later_agent_is_told_the_whole_session_again_and_then_what_comes(
    make_link: Callable[[], LinkProcess],
) -> None:
    link = make_link()
    session = [state("connected"), state("up"), update(1), update(2)]
    link.write(*session)
    for _ in range(2):
        with link.attach() as agent:
            lines = read_lines(agent, b"!live")
            assert lines[0] == b"!hello 1 %d %d" % (os.getpid(), link.process.pid)
            assert lines[1:] == [b"!peer 10.1.0.254 complete", *session, b"!live"]
    with link.attach() as agent:
        read_lines(agent, b"!live")
        link.write(update(3))
        assert read_lines(agent, update(3)) == [update(3)]


def test_it_reads_megabytes_with_no_agent_attached_and_says_which_peer_has_a_gap(
    make_link: Callable[[int], LinkProcess],
) -> None:
    link = make_link(100_000)
    link.write(state("connected", "10.1.0.9"), state("up", "10.1.0.9"), update(0, "10.1.0.9"))
    link.write(state("connected"), state("up"), *(update(number) for number in range(50_000)))
    with link.attach() as agent:
        lines = read_lines(agent, b"!live")
        assert b"!peer 10.1.0.254 gap" in lines
        assert b"!peer 10.1.0.9 complete" in lines
        assert lines.count(state("up")) == 1
        agent.sendall(b"!forget 10.1.0.254\n")
        time.sleep(0.1)
        link.write(update(7))
    with link.attach() as agent:
        lines = read_lines(agent, b"!live")
        assert lines[lines.index(b"!peer 10.1.0.254 complete") :][:4] == [
            b"!peer 10.1.0.254 complete", state("connected"), state("up"), update(7),
        ]  # fmt: skip


def test_only_whole_commands_reach_exabgp_and_the_half_line_of_a_dead_agent_is_dropped(
    make_link: Callable[[], LinkProcess],
) -> None:
    link = make_link()
    assert link.process.stdout is not None
    with link.attach() as agent:
        agent.sendall(b"announce one\nannounce tw")
        assert link.process.stdout.readline() == b"announce one\n"
    with link.attach() as agent:
        agent.sendall(b"announce three\n")
        assert link.process.stdout.readline() == b"announce three\n"


def test_an_agent_that_does_not_read_does_not_stop_it(make_link: Callable[[], LinkProcess]) -> None:
    link = make_link()
    with link.attach():
        link.write(*(update(number) for number in range(100_000)))
        with link.attach() as other:
            assert read_lines(other, b"!live")


def test_it_ends_with_exabgp_and_is_small(make_link: Callable[[], LinkProcess]) -> None:
    link = make_link()
    status = Path(f"/proc/{link.process.pid}/status").read_text()
    assert int(status.split("VmRSS:")[1].split()[0]) < 16_000
    assert link.process.stdin is not None
    link.process.stdin.close()
    assert link.process.wait(5) == 0


@pytest.mark.root
def test_after_a_gap_the_next_agent_asks_the_peer_for_everything_and_no_route_goes(
    node: AgentNode, store: Store, netns: Callable[[str], NetNs], tmp_path: Path
) -> None:
    tor = netns("tor")
    segment(node.netns, tor, "up0", "10.1.0.1/24", "10.1.0.254/24")
    store.node("n1", "10.1.0.1/24")
    store.block("n1", "10.65.0.0/26")
    store.peer("tor", peer_ip="10.1.0.254", as_number=65001)
    many = {f"100.64.{number}.0/24" for number in range(200)}
    bird = Bird(tor, tmp_path / "bird", bird_configuration("10.1.0.254", [BODY], sorted(many)))
    bird.start()
    node.environ = {**node.environ, "WEFT_SPEAKER_SPOOL_BYTES": "4000"}
    node.start()
    wait_until("all are learnt", lambda: set(node.routes()) == many)
    node.kill()
    bird.reconfigure(bird_configuration("10.1.0.254", [BODY], [*sorted(many)[:100], "192.0.2.0/24"]))
    wait_until("BIRD has changed", lambda: "192.0.2.0/24" in bird.routes("announced"))
    with nothing_deleted(node.netns) as deleted:
        node.start()
        wait_until("the kernel is right", lambda: set(node.routes()) == {*sorted(many)[:100], "192.0.2.0/24"})
    assert {line.split()[1] for line in deleted} == set(sorted(many)[100:])
    assert "connection lost" not in node.log()
