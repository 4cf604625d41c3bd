"""Start scripted speakers in a namespace and tell them what to do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_interface
from types import TracebackType
from typing import Self

from lab.netns import NetNs, link
from lab.speakers import wire
from lab.speakers.wire import How, Numbers, Script, SessionTotals, Totals
from weft.model.address import IPAddress, IPNetwork


class SpeakersEndedError(Exception):
    """The process of the speakers has ended; its standard error says why."""


class NotInTimeError(AssertionError):
    """Carries what there was instead."""

    def __init__(self, what: str, totals: Totals) -> None:
        super().__init__(f"not in time: {what}; there is {totals}")
        self.totals = totals


def attach(tested: NetNs, speakers: NetNs, subnet: IPNetwork, addresses: IPNetwork, device: str = "scr0") -> None:
    """Join two namespaces by a link of `subnet` (its first address is the tested one's), behind which the second has
    all of `addresses`: one neighbour, because the kernel's neighbour table is smaller than some of our groups."""
    link(tested, device, speakers, device)
    first, second = subnet[1], subnet[2]
    for end, address in ((tested, first), (speakers, second)):
        nodad = ["nodad"] if subnet.version == 6 else []
        end.ip("address", "add", str(ip_interface((address, subnet.prefixlen))), "dev", device, *nodad)
    tested.ip("route", "add", str(addresses), "via", str(second))
    speakers.ip("route", "add", "local", str(addresses), "dev", "lo")


def clients(
    number: int, peer: IPAddress, addresses: IPNetwork, routes: IPNetwork, each: int = 1, asn: int = 64512
) -> list[Script]:
    """Sessions of one AS with `peer`, from successive addresses, with `each` successive blocks (of 64) of `routes`."""
    blocks: Iterator[IPNetwork] = routes.subnets(new_prefix=routes.max_prefixlen - 6)
    return [
        Script(
            local=addresses[1 + one], peer=peer, asn=asn, peer_asn=asn, routes=tuple(next(blocks) for _ in range(each))
        )
        for one in range(number)
    ]


class Speakers:
    """`with Speakers(netns, scripts) as speakers: speakers.connect(); speakers.wait_established() ...`"""

    def __init__(self, netns: NetNs, scripts: Sequence[Script]) -> None:
        self._netns, self._scripts = netns, scripts
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = self._netns.popen(
            [sys.executable, "-m", "lab.speakers.process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.add(self._scripts)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def add(self, scripts: Sequence[Script]) -> None:
        self._tell(wire.Add(tuple(scripts)))

    def connect(self, sessions: Numbers = None, at_once: int = 100) -> None:
        self._tell(wire.Connect(sessions, at_once))

    def announce(self, sessions: Numbers, prefixes: Iterable[IPNetwork]) -> None:
        self._tell(wire.Announce(sessions, tuple(prefixes)))

    def withdraw(self, sessions: Numbers, prefixes: Iterable[IPNetwork]) -> None:
        self._tell(wire.Withdraw(sessions, tuple(prefixes)))

    def lose(self, sessions: Numbers, how: How = How.RESET, *, again: bool = False) -> None:
        self._tell(wire.Lose(sessions, how, again))

    def recover(self, sessions: Numbers = None) -> None:
        self._tell(wire.Recover(sessions))

    def expect(self, prefixes: Iterable[IPNetwork] = (), *, mutual: bool = True) -> None:
        self._tell(wire.Expect(tuple(prefixes), mutual))

    def zero(self) -> None:
        self._tell(wire.Zero())

    def totals(self) -> Totals:
        return self._tell(wire.Ask())

    def each(self, sessions: Numbers = None) -> list[SessionTotals]:
        return wire.EACH.decode(self._ask(wire.AskEach(sessions)))

    def held(self, session: int) -> list[IPNetwork]:
        return wire.HELD.decode(self._ask(wire.AskHeld(session)))

    def wait_established(self, timeout_s: float = 60) -> float:
        """The moment (time.monotonic) at which the last of those to be connected was."""
        return self._wait("every session is established", lambda totals: totals.established_at, timeout_s)

    def wait_complete(self, timeout_s: float = 60) -> float:
        """The moment at which the last had exactly what is expected."""
        return self._wait("every session is complete", lambda totals: totals.complete_at, timeout_s)

    def _wait(self, what: str, moment: Callable[[Totals], float | None], timeout_s: float) -> float:
        deadline = time.monotonic() + timeout_s
        while True:
            totals = self.totals()
            at = moment(totals)
            if at is not None:
                return at
            if time.monotonic() > deadline:
                raise NotInTimeError(what, totals)
            time.sleep(0.05)

    def _tell(self, command: wire.Command) -> Totals:
        return wire.TOTALS.decode(self._ask(command))

    def _ask(self, command: wire.Command) -> bytes:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(wire.ENCODER.encode(command) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, as the empty answer says, too
        answer: bytes = self._process.stdout.readline()
        if not answer:
            raise SpeakersEndedError(f"exit status {self._process.wait()}")
        return answer
