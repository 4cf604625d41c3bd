"""The addresses of this node's reflector on its loopback interface.

An adapter: which they should be, is decided elsewhere. Ours carry a mark (the address's protocol), so that one that an
earlier run left is found and taken away; others on the interface are never touched, those for local workloads
(bird_agent/virtual.py) least of all."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from ipaddress import ip_interface
from typing import Final

from weft.model.address import IPAddress
from weft.netlink.rtnetlink import (
    IFA_F_NODAD,
    RTM_NEWADDR,
    Address,
    decode_address,
    delete_address,
    dump_addresses,
    new_address,
)
from weft.netlink.socket import NetlinkSocket

MARK: Final = 190


def read() -> set[IPAddress]:
    """Ours. Raises OSError, DumpInterruptedError."""
    with NetlinkSocket(buffer_bytes=None) as kernel:
        return _read(kernel, _loopback())


def set_addresses(wanted: Iterable[IPAddress]) -> None:
    """These and no others are ours from now on. Raises OSError, DumpInterruptedError."""
    index, wished = _loopback(), set(wanted)
    with NetlinkSocket(buffer_bytes=None) as kernel:
        there = _read(kernel, index)
        batch = [delete_address(_address(index, each)) for each in there - wished]
        batch += [new_address(_address(index, each)) for each in wished - there]
        for failure in kernel.request(batch, ack_each=True):
            if failure.errno not in (errno.EEXIST, errno.EADDRNOTAVAIL):
                raise OSError(failure.errno, f"an address of the reflector on lo: {failure.text}")


def _loopback() -> int:
    return socket.if_nametoindex("lo")


def _address(index: int, address: IPAddress) -> Address:
    return Address(index, ip_interface(address), IFA_F_NODAD if address.version == 6 else 0, protocol=MARK)


def _read(kernel: NetlinkSocket, index: int) -> set[IPAddress]:
    found = [decode_address(answer) for answer in kernel.dump(dump_addresses(index)) if answer.kind == RTM_NEWADDR]
    return {one.interface.ip for one in found if one is not None and one.index == index and one.protocol == MARK}
