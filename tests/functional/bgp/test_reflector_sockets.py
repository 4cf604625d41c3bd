"""The reflector's sockets on loopback: who gets in, and what a shortage or a pause of the machine does not break."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import select
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest
from msgspec.structs import replace

from bird_agent.policy import Policies
from bird_agent.reflector.errors import Code
from bird_agent.reflector.exabgp_codec import write_open
from bird_agent.reflector.framing import KEEPALIVE, Framer, Message, framed
from bird_agent.reflector.loop import Network
from bird_agent.reflector.negotiation import OpenMessage
from bird_agent.reflector.plan import ReflectorPlan, ReflectorSession
from bird_agent.reflector.prefixes import IPV4
from bird_agent.reflector.reflector import Reflector
from bird_agent.reflector.sockets import set_password
from bird_agent.session_config import Password, SessionConfig, SessionKind

OURS, PEER = ip_address("127.0.0.1"), ip_address("127.0.0.2")
ASN, HOLD_S = 64512, 9


@dataclass
class Running:
    network: Network
    reflector: Reflector
    plan: ReflectorPlan
    now: float = 1000.0

    def calls(self, password: Password | None = None) -> socket.socket:
        made = socket.socket()
        if password is not None:
            set_password(made, OURS, password)
        made.bind((str(PEER), 0))
        made.settimeout(20)
        made.connect((str(OURS), self.plan.port))
        made.setblocking(False)
        return made


def free_port() -> int:
    with closing(socket.socket()) as made:
        made.bind((str(OURS), 0))
        return int(made.getsockname()[1])


def planned(port: int, password: str | None = None, max_prefixes: int | None = None) -> ReflectorPlan:
    config = SessionConfig(
        peer=PEER,
        peer_as=ASN,
        local=OURS,
        local_as=ASN,
        kind=SessionKind.NODE,
        resource="BGPPeer/x",
        hold_time_s=HOLD_S,
        max_prefixes=max_prefixes,
        password=None if password is None else Password(password),
    )
    router_id = IPv4Address("10.0.0.1")
    return ReflectorPlan(
        name="rr",
        asn=ASN,
        router_id=router_id,
        cluster_id=router_id,
        addresses=(OURS,),
        port=port,
        sessions={PEER: ReflectorSession(config, client=True, passive=True)},
    )


@asynccontextmanager
async def running(password: str | None = None, max_prefixes: int | None = None) -> AsyncIterator[Running]:
    reflector = Reflector(1000.0, lambda: 0.5)
    network = Network(reflector, lambda: made.now)
    made = Running(network, reflector, planned(free_port(), password, max_prefixes))
    network.start()
    try:
        network.configure(made.plan, Policies())
        yield made
    finally:
        network.stop()
        network.close()


async def says(connection: socket.socket) -> bytes:
    """What it says next; nothing: it is closed."""
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, 4096), 20)
    except ConnectionResetError:
        return b""


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with closing(socket.socket()) as highest:
        lowest_free = highest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_session_is_entered_with_its_password_alone() -> None:
    async with running("right") as made:
        with closing(made.calls(Password("right"))) as connection:
            assert await says(connection)


async def test_a_password_that_the_kernel_does_not_take_lets_nobody_in() -> None:
    async with running("x" * 81) as made:
        assert "cannot be used" in made.network.trouble
        with closing(made.calls()) as connection:
            assert await says(connection) == b""


async def test_a_password_that_could_not_be_set_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from bird_agent.reflector import sockets

    real, failures = sockets.set_password, [OSError(12, os.strerror(12))]

    def set_or_fail(of: socket.socket, peer: object, password: Password | None) -> None:
        if failures:
            raise failures.pop()
        real(of, peer, password)  # type: ignore[arg-type]

    monkeypatch.setattr(sockets, "set_password", set_or_fail)
    async with running("right") as made:
        assert made.network.trouble
        made.network.configure(made.plan, Policies())
        assert not made.network.trouble
        with closing(made.calls(Password("right"))) as connection:
            assert await says(connection)


async def test_without_descriptors_connections_wait_and_the_loop_rests(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as made:
        with closing(socket.socket()) as connection:
            connection.bind((str(PEER), 0))
            connection.setblocking(False)
            with no_descriptors_left(), caplog.at_level(logging.WARNING, "weft-reflector"):
                await asyncio.get_running_loop().sock_connect(connection, (str(OURS), made.plan.port))
                for _ in range(1000):
                    await asyncio.sleep(0)
            assert 0 < len(caplog.records) < 10
            assert await says(connection)


async def established(made: Running) -> socket.socket:
    """The peer has called, and both sides have agreed."""
    connection, framer, heard = made.calls(), Framer(), []
    theirs = OpenMessage(asn=ASN, router_id=IPv4Address("10.0.0.2"), hold_time_s=HOLD_S, asn4=True, families=(IPV4,))
    connection.sendall(write_open(theirs) + KEEPALIVE)
    while Message.KEEPALIVE not in heard:
        heard += [kind for kind, _ in framer.receive_data(await says(connection))]
    assert made.reflector.peers[PEER].established
    return connection


async def test_a_peer_that_has_spoken_is_not_silent_however_late_it_is_heard() -> None:
    async with running() as made:
        with closing(await established(made)) as connection:
            connection.sendall(KEEPALIVE)
            made.now += 2 * HOLD_S  # the machine stood still
            made.network._on_tick()
            assert made.reflector.peers[PEER].established
            made.now += 2 * HOLD_S
            made.network._on_tick()
            assert not made.reflector.peers[PEER].established


async def test_a_peer_that_is_still_speaking_hears_why_its_session_ends() -> None:
    """A reset in its place would be a loss, after which it keeps what we told it."""
    attributes = bytes.fromhex("40010100 400200 4003040a000002 40050400000064")
    async with running(max_prefixes=10) as made:
        with closing(await established(made)) as connection:
            told = b"".join(
                framed(
                    Message.UPDATE,
                    struct.pack("!HH", 0, len(attributes)) + attributes + b"\x20" + each.to_bytes(4, "big"),
                )
                for each in range(0x0A000000, 0x0A000000 + 50_000)
            )
            await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(connection, told), 20)
            framer, heard = Framer(), []
            while data := await asyncio.get_running_loop().sock_recv(connection, 4096):  # which raises at a reset
                heard += list(framer.receive_data(data))
    kind, body = heard[-1]
    assert (kind, body[:2]) == (Message.NOTIFICATION, bytes((Code.CEASE, 1)))


async def test_connections_that_a_peer_begins_again_and_again_do_not_add_up() -> None:
    async with running() as made:
        begun = [made.calls() for _ in range(50)]
        for connection in begun:
            assert await says(connection)
        assert len(made.network._by_fd) <= 3
        for connection in begun:
            connection.close()


class Batches:
    """An epoll set of which one batch is made by the test, in which something happens between two of its events."""

    def __init__(self, real: select.epoll, batch: Iterator[tuple[int, int]]) -> None:
        self._real = real
        self._batch = batch

    def poll(self, timeout: float, most: int) -> Iterator[tuple[int, int]]:
        return self._batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@contextmanager
def full_listener() -> Iterator[int]:
    """Its port. Whoever calls there from now on is not answered."""
    with closing(socket.socket()) as full, closing(socket.socket()) as first, closing(socket.socket()) as second:
        full.bind((str(PEER), 0))
        full.listen(0)
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        yield full.getsockname()[1]


async def test_an_event_of_a_closed_connection_is_not_its_descriptors_next_ones() -> None:
    with full_listener() as port:
        async with running() as made:
            network, sessions = made.network, made.plan.sessions
            calling = replace(sessions[PEER].config, port=port)
            network.configure(replace(made.plan, sessions={PEER: ReflectorSession(calling, client=True)}), Policies())
            before = network._dialing[PEER].socket.fileno()

            def batch() -> Iterator[tuple[int, int]]:
                network._dial(PEER)  # gives the attempt up and begins another
                yield before, select.EPOLLERR | select.EPOLLHUP

            network._epoll = Batches(network._epoll, batch())  # type: ignore[assignment]
            network._read_once()
            assert network._dialing[PEER].socket.fileno() == before, "the kernel gives out the lowest free number"
            assert network._by_conn == {}, "an attempt that is under way counts as a connection"
