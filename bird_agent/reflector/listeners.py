"""The sockets that peers connect to, and which of the connections are a peer's.

A session that has a password is only entered with it: where the kernel does not take the password nobody gets in. What
a machine short of descriptors cannot accept waits in the kernel. It decides nothing about sessions."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Final

from bird_agent.reflector import sockets
from bird_agent.session_config import Password, SessionConfig
from weft.model.address import IPAddress

log = logging.getLogger("weft-reflector")

Address = tuple[IPAddress, int]
_AT_ONCE: Final = 64
_AGAIN_S: Final = 5.0
_BREATH_S: Final = 1.0


class Listeners:
    """All of them, in the loop's epoll set. `trouble` says what of the wish could not be had; it is tried again."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._sockets: dict[Address, socket.socket] = {}
        self._passwords: dict[Address, dict[IPAddress, Password]] = {}
        self._wanted: tuple[frozenset[Address], Mapping[IPAddress, Password]] = frozenset(), {}
        self._again: asyncio.TimerHandle | None = None
        self.trouble = ""

    def __contains__(self, descriptor: int) -> bool:
        return any(each.fileno() == descriptor for each in self._sockets.values())

    def configure(self, addresses: Iterable[Address], sessions: Iterable[SessionConfig]) -> None:
        """Listen there, and there alone, with the passwords of these sessions."""
        passwords = {one.peer: one.password for one in sessions if one.password is not None}
        self._wanted = frozenset(addresses), passwords
        self._try()

    def close(self) -> None:
        if self._again is not None:
            self._again.cancel()
        for listener in self._sockets.values():
            listener.close()

    def _try(self) -> None:
        addresses, passwords = self._wanted
        troubles = []
        for address in self._sockets.keys() - addresses:
            self._sockets.pop(address).close()  # which takes it out of the epoll set
            del self._passwords[address]
        for address in addresses - self._sockets.keys():
            try:
                self._sockets[address] = listener = sockets.listener(*address)
            except OSError as error:
                troubles.append(f"cannot listen on {address[0]}, port {address[1]}: {error.strerror}")
                continue
            self._passwords[address] = {}
            self._epoll.register(listener.fileno(), select.EPOLLIN)
        for address, listener in self._sockets.items():
            wanted = {peer: one for peer, one in passwords.items() if peer.version == address[0].version}
            troubles += self._set_passwords(listener, self._passwords[address], wanted)
        before, self.trouble = self.trouble, "; ".join(sorted(set(troubles)))
        if self.trouble and self.trouble != before:
            log.error("%s", self.trouble)
        if self._again is not None:
            self._again.cancel()
        self._again = asyncio.get_running_loop().call_later(_AGAIN_S, self._try) if self.trouble else None

    @staticmethod
    def _set_passwords(
        listener: socket.socket, known: dict[IPAddress, Password], wanted: Mapping[IPAddress, Password]
    ) -> Iterator[str]:
        """The kernel answers a peer's SYN before anybody asks us, so it has to know. `known`: what it knows."""
        for peer in known.keys() | wanted.keys():
            password = wanted.get(peer)
            if known.get(peer) == password:
                continue
            try:
                sockets.set_password(listener, peer, password)
            except (OSError, ValueError) as error:
                yield f"the password of {peer} cannot be used: {error}"
            else:
                known.pop(peer, None)
                if password is not None:
                    known[peer] = password

    def accept(
        self, descriptor: int, config_of: Callable[[IPAddress], SessionConfig | None]
    ) -> Iterator[tuple[IPAddress, socket.socket]]:
        """Some of the connections that wait, ready for their sessions; those of others are closed."""
        address, listener = next(one for one in self._sockets.items() if one[1].fileno() == descriptor)
        for _ in range(_AT_ONCE):
            try:
                accepted, name = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except (
                OSError
            ) as error:  # no descriptors or memory left: it stays ready, and would be tried without a pause
                log.warning("no connections to %s are accepted for %.0f s: %s", address[0], _BREATH_S, error.strerror)
                self._epoll.modify(descriptor, 0)
                asyncio.get_running_loop().call_later(_BREATH_S, self._listen_again, address, listener)
                return
            peer = ip_address(str(name[0]).partition("%")[0])
            if self._prepared(accepted, peer, config_of(peer), self._passwords[address].get(peer)):
                yield peer, accepted
            else:
                accepted.close()

    def _listen_again(self, address: Address, listener: socket.socket) -> None:
        if self._sockets.get(address) is listener:
            self._epoll.modify(listener.fileno(), select.EPOLLIN)

    @staticmethod
    def _prepared(
        accepted: socket.socket, peer: IPAddress, config: SessionConfig | None, known: Password | None
    ) -> bool:
        """Whether the connection may be used, which was begun with the password that is `known` to the kernel."""
        if config is None:
            log.debug("%s is no peer: its connection is closed", peer)
            return False
        if config.password is not None and config.password != known:
            log.debug("connection from %s without its password", peer)
            return False
        accepted.setblocking(False)
        try:
            sockets.prepare(accepted, config)
        except OSError as error:
            log.warning("connection from %s: %s", peer, error)
            return False
        return True
