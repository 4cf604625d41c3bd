"""Keep the kernel's check of IPv4 senders (strict rp_filter) on where nft does not check instead.

Every interface of a workload is made with the check on. It is turned off for a workload that may send from other
prefixes, too: after the rules that check instead are in the kernel, and on again before they go, so that at no moment
anything may be forged. Other interfaces than those of local workloads are never touched.

A restarted agent turns it on wherever it should be, whatever it finds."""

import errno
from collections.abc import Callable, Mapping
from typing import Protocol

from felix.calc.delta import LocalEndpoint
from weft.netlink import rtnetlink as rt
from weft.netlink.socket import NetlinkSocket


class SenderCheckKernel(Protocol):
    def set_strict(self, index: int, strict: bool) -> None:
        """Of one interface, by its index. Raises OSError."""


class KernelSenderChecks:
    """The real one, for the network namespace it is made in."""

    def __init__(self, socket: NetlinkSocket) -> None:
        self._socket = socket

    def set_strict(self, index: int, strict: bool) -> None:
        for failure in self._socket.request([rt.set_ipv4(index, rp_filter=int(strict))]):
            raise OSError(failure.errno, failure.text)


class SenderChecks:
    """`index_of`: the interface index now, None if there is no such interface."""

    def __init__(self, kernel: SenderCheckKernel, index_of: Callable[[str], int | None]) -> None:
        self._kernel = kernel
        self._index_of = index_of
        self._exempt: set[str] = set()
        self.failures: dict[str, str] = {}

    def before_policy(self, endpoints: Mapping[str, LocalEndpoint | None], take_over: bool) -> None:
        """Turn on what must be on with the policy to come; with `take_over` whatever an earlier agent left off."""
        for interface, endpoint in endpoints.items():
            if endpoint is not None and any(one.version == 4 for one in endpoint.may_send_as):
                self._exempt.add(interface)
            elif interface in self._exempt or take_over:
                self._exempt.discard(interface)
                self._set(interface, self._index_of(interface), strict=True)

    def after_policy(self, endpoints: Mapping[str, LocalEndpoint | None], checked: Callable[[str], bool]) -> None:
        """Turn off where rules check instead; `checked`: whether those of an interface are in the kernel."""
        for interface in endpoints.keys() & self._exempt:
            if checked(interface):
                self._set(interface, self._index_of(interface), strict=False)

    def on_link(self, interface: str, index: int, checked: Callable[[str], bool]) -> None:
        """An interface came, or went up or down."""
        if interface in self._exempt and checked(interface):
            self._set(interface, index, strict=False)

    def _set(self, interface: str, index: int | None, strict: bool) -> None:
        self.failures.pop(interface, None)
        if index is None:
            return
        try:
            self._kernel.set_strict(index, strict)
        except OSError as error:
            if error.errno != errno.ENODEV:
                self.failures[interface] = f"rp_filter of {interface}: {error}"
