"""The addresses at which local workloads find their node (localWorkloadPeeringIPV4 and IPV6), on the loopback link.

The adapter: what is wanted goes in, and the kernel is made equal to it. Ours are those of protocol 186 on that link, by
which the next agent knows them; any other address there is somebody else's. It decides nothing."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from ipaddress import ip_interface
from typing import Final

from bird_agent.fib import OWNER
from weft.model.address import IPAddress
from weft.netlink.rtnetlink import (
    IFA_F_NODAD,
    IFA_F_PERMANENT,
    Address,
    decode_address,
    delete_address,
    dump_addresses,
    new_address,
)
from weft.netlink.socket import DumpInterruptedError, NetlinkSocket

log = logging.getLogger(__name__)

LOOPBACK: Final = 1  # its index in every network namespace


class VirtualAddresses:
    """See the module. Belongs to the network namespace of `requests`."""

    def __init__(self, requests: NetlinkSocket) -> None:
        self._requests = requests
        self._wanted: frozenset[IPAddress] | None = None
        self._stands = False

    def keep(self, wanted: Sequence[IPAddress]) -> None:
        """To be called again and again: what could not be done is done the next time."""
        if self._stands and frozenset(wanted) == self._wanted:
            return
        self._wanted = frozenset(wanted)
        try:
            self._stands = self._apply(self._wanted)
        except (OSError, DumpInterruptedError) as error:
            self._stands = False
            log.warning("the addresses for local workloads could not be read, trying again: %s", error)

    def _apply(self, wanted: frozenset[IPAddress]) -> bool:
        found = [decode_address(answer) for answer in self._requests.dump(dump_addresses())]
        here = [one for one in found if one is not None and one.index == LOOPBACK]
        ours = {one.interface.ip: one for one in here if one.protocol == OWNER.protocol}
        changes = [delete_address(one) for address, one in ours.items() if address not in wanted]
        flags = IFA_F_NODAD | IFA_F_PERMANENT
        for address in wanted - {one.interface.ip for one in here}:
            changes.append(new_address(Address(LOOPBACK, ip_interface(address), flags, protocol=OWNER.protocol)))
        if not changes:
            return True
        failures = [one for one in self._requests.request(changes) if one.errno not in (errno.EEXIST, errno.ENOENT)]
        for failure in failures:
            log.warning("an address for local workloads was refused by the kernel: %s", failure.text)
        return not failures
