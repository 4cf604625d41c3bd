"""Make and take away the pair of interfaces between a workload and the host, and what is inside its namespace.

The host's end is `cali...`, up, with strict reverse path filtering; the workload's end has its addresses as /32 and
/128 and reaches everything through 169.254.1.1 and fe80::ecee:eeff:feee:eeee, which are permanent neighbours. The host
route and the policy are not made here. Three batches make a pair: create it, set the host's end, set the workload's;
the last brings the carrier, so that nothing leaves before the host's end is ready.

Everything runs on the calling thread, without waiting: a pair that goes is only taken out of service (see reaper).
Between two calls the processor forgets all of this, so that what a call touches costs more than what it computes:
nothing is asked that is known, and messages that differ only in an index are made once."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import TypeAlias

from felix.dataplane import sysctl
from felix.dataplane.attachment import Attachment, Inspection, InterfaceExistsError
from felix.dataplane.reaper import HIGHEST_INDEX, Reaper, retirement
from weft.model.address import IPAddress
from weft.netlink import rtnetlink as rt
from weft.netlink.message import AF_INET, AF_INET6, U32
from weft.netlink.route import RTPROT_STATIC, Hop, RouteOwner, RouteWriter, decode_route, device, dump_routes, pack, via
from weft.netlink.rtnetlink import Address, Link, Neighbour, decode_address, decode_link
from weft.netlink.socket import NetlinkFailure, NetlinkSocket, in_netns

HOST_PREFIX = "cali"
HOST_MAC = "ee:ee:ee:ee:ee:ee"
GATEWAY_IPV4 = IPv4Address("169.254.1.1")
GATEWAY_IPV6 = IPv6Address("fe80::ecee:eeff:feee:eeee")
_DEFAULT_IPV4 = IPv4Network("0.0.0.0/0")
_DEFAULT_IPV6 = IPv6Network("::/0")
_WORKLOAD_ROUTES = RouteOwner(RTPROT_STATIC, 0, 1024)
_ANY_ROUTES = RouteOwner(0, 0, 1024)

FIRST_INDEX = 1_000_000
"""Our interfaces' indexes are chosen by us, from here on: the kernel's own counting does not come this far."""
_INDEX_ATTEMPTS = 16
_STAND_IN = 0x7FFFFFFF  # in a message made beforehand, for the index of an interface that is not made yet


_Pair: TypeAlias = tuple[int, int]
"""The indexes of the host's end and of the workload's."""


class KernelWiring:
    """Implements `felix.cni.ports.Wiring` for the network namespace it is made in."""

    def __init__(self, reaper: Reaper) -> None:
        self._socket = NetlinkSocket()
        self._reaper = reaper
        self._indexes = _unused_indexes(self._socket)
        self._made: dict[str, _Pair] = {}

    def close(self) -> None:
        self._socket.close()

    def attach(self, attachment: Attachment) -> int:
        """As `Wiring.attach`; raises ValueError for a host interface name that is not ours."""
        if not _is_ours(attachment.host_interface):
            raise ValueError(f"{attachment.host_interface!r} is no name for the host's end of a workload")
        with_ipv6 = any(isinstance(address, IPv6Address) for address in attachment.addresses)
        with NetlinkSocket(netns_fd=attachment.netns, buffer_bytes=None) as inside, ExitStack() as undo:
            host, workload = self._create(attachment, inside)
            undo.callback(self._retire, host, inside, workload)
            _check(self._socket.request(_for_link(_host_settings(with_ipv6), host)))
            settings = _workload_settings(workload, attachment.addresses)
            failures = inside.request(settings)
            if failures and with_ipv6:
                # A container runtime has turned IPv6 off, perhaps. It is no use asking first: it hardly ever has.
                in_netns(attachment.netns, lambda: sysctl.allow_ipv6(attachment.interface))
                failures = inside.request([settings[failure.index] for failure in failures])
            _check(failures)
            undo.pop_all()
        self._made[attachment.host_interface] = host, workload
        return host

    def detach(self, host_interface: str, netns: int | None, interface: str) -> bool:
        if not _is_ours(host_interface):
            return False
        made = self._made.pop(host_interface, None)
        if made is not None and self._take_away(made, netns, interface):
            return True
        pair = self._look_up(host_interface)
        return pair is not None and self._take_away(pair, netns, interface)

    def inspect(self, host_interface: str, netns: int, interface: str) -> Inspection:
        host = _find(self._socket, host_interface)
        with NetlinkSocket(netns_fd=netns) as inside:
            workload = _find(inside, interface)
            if workload is None:
                return Inspection(host is not None and host.up, False, None, (), False)
            addresses = _addresses_of(inside, workload.index)
            routed = all(
                _has_default(inside, version, workload.index) for version in {one.version for one in addresses}
            )
        return Inspection(
            host_interface_up=host is not None and host.up,
            interface_up=workload.up,
            mac=workload.mac,
            addresses=addresses,
            has_default_route=bool(addresses) and routed,
        )

    def _create(self, attachment: Attachment, inside: NetlinkSocket) -> _Pair:
        for _ in range(_INDEX_ATTEMPTS):
            indexes = next(self._indexes), next(self._indexes)
            pair = rt.new_veth(
                attachment.host_interface,
                attachment.interface,
                attachment.netns,
                mtu=attachment.mtu,
                mac=HOST_MAC,
                peer_mac=attachment.mac,
                indexes=indexes,
            )
            failures = self._socket.request([pair])
            if not failures:
                return indexes
            if failures[0].errno not in (errno.EEXIST, errno.EBUSY):
                _check(failures)
            for socket, name in ((self._socket, attachment.host_interface), (inside, attachment.interface)):
                if _find(socket, name) is not None:
                    raise InterfaceExistsError(name)
        raise OSError(errno.EBUSY, "no free interface index was found")

    def _take_away(self, pair: _Pair, netns: int | None, interface: str) -> bool:
        if netns is None:
            return self._retire(pair[0], None, None)
        with NetlinkSocket(netns_fd=netns, buffer_bytes=None) as inside:
            workload = _find(inside, interface)
            is_pair = workload is not None and (workload.peer, workload.index) == pair
            return self._retire(pair[0], inside, pair[1] if is_pair else None)

    def _look_up(self, host_interface: str) -> _Pair | None:
        """A pair that an earlier agent made."""
        host = _find(self._socket, host_interface)
        return None if host is None or host.kind != "veth" else (host.index, host.peer or 0)

    def _retire(self, host: int, inside: NetlinkSocket | None, workload: int | None) -> bool:
        """Free both names at once and leave the pair to the reaper. False if it was gone already."""
        failures = self._socket.request(retirement(host))
        was_there = not failures
        if inside is not None and workload is not None:
            failures += inside.request(retirement(workload))
        self._reaper.notify()
        _check([failure for failure in failures if failure.errno != errno.ENODEV])
        return was_there


def _unused_indexes(socket: NetlinkSocket) -> Iterator[int]:
    """Behind those of all interfaces that are here; an index is not used again for a very long time."""
    links = (decode_link(answer).index for answer in socket.dump(rt.dump_links()))
    first = max((index for index in links if FIRST_INDEX <= index < HIGHEST_INDEX), default=FIRST_INDEX - 2) + 2
    while True:
        yield from range(first, HIGHEST_INDEX)
        first = FIRST_INDEX


def _is_ours(host_interface: str) -> bool:
    return host_interface.startswith(HOST_PREFIX) and len(host_interface) > len(HOST_PREFIX)


def _check(failures: Sequence[NetlinkFailure]) -> None:
    if failures:
        raise OSError(failures[0].errno, failures[0].text)


@cache
def _host_settings(with_ipv6: bool) -> tuple[bytes, ...]:
    """For the stand-in."""
    batch = [rt.set_ipv4(_STAND_IN, forwarding=1, proxy_arp=1, rp_filter=1), rt.set_proxy_delay(_STAND_IN, AF_INET, 0)]
    if with_ipv6:
        # The address is the one that the kernel would make of the MAC, but ready at once: no duplicate detection.
        gateway = Address(_STAND_IN, IPv6Interface((GATEWAY_IPV6, 64)), rt.IFA_F_NODAD, rt.SCOPE_LINK)
        batch += [rt.set_ipv6_address_generation(_STAND_IN, rt.IN6_ADDR_GEN_MODE_NONE), rt.new_address(gateway)]
    return tuple(batch)


@cache
def _workload_way_out(version: int) -> tuple[bytes, ...]:
    """The default route and its gateway, for the stand-in."""
    routes = RouteWriter(_WORKLOAD_ROUTES)
    if version == 4:
        link_route = (pack(IPv4Network(GATEWAY_IPV4)), device(_STAND_IN))
        way_out = routes.add([link_route, (pack(_DEFAULT_IPV4), via(Hop(GATEWAY_IPV4, _STAND_IN)))])
    else:
        way_out = routes.add([(pack(_DEFAULT_IPV6), via(Hop(GATEWAY_IPV6, _STAND_IN)))])
    gateway = GATEWAY_IPV4 if version == 4 else GATEWAY_IPV6
    return *way_out, rt.set_neighbour(Neighbour(_STAND_IN, gateway, HOST_MAC, rt.NUD_PERMANENT))


def _for_link(batch: Sequence[bytes], index: int) -> list[bytes]:
    stand_in, real = U32.pack(_STAND_IN), U32.pack(index)
    return [message.replace(stand_in, real) for message in batch]


def _workload_settings(index: int, addresses: Sequence[IPAddress]) -> list[bytes]:
    batch = [rt.set_link(index, up=True)]
    for address in addresses:
        if isinstance(address, IPv6Address):
            batch.append(rt.new_address(Address(index, IPv6Interface((address, 128)), rt.IFA_F_NODAD)))
        else:
            batch.append(rt.new_address(Address(index, IPv4Interface((address, 32)), 0)))
    for version in sorted({address.version for address in addresses}):
        batch += _for_link(_workload_way_out(version), index)
    return batch


def _find(socket: NetlinkSocket, name: str) -> Link | None:
    answers = socket.exchange([rt.get_link(name)])
    _check([failure for failure in answers.failures if failure.errno != errno.ENODEV])
    return decode_link(answers.replies[0]) if answers.replies else None


def _addresses_of(inside: NetlinkSocket, index: int) -> tuple[IPAddress, ...]:
    found = (decode_address(answer) for answer in inside.dump(rt.dump_addresses(index)))
    return tuple(one.interface.ip for one in found if one is not None and not one.interface.is_link_local)


def _has_default(inside: NetlinkSocket, version: int, index: int) -> bool:
    family, default = (AF_INET, _DEFAULT_IPV4) if version == 4 else (AF_INET6, _DEFAULT_IPV6)
    routes = (decode_route(answer) for answer in inside.dump(dump_routes(family, _ANY_ROUTES, index)))
    return any(route is not None and route.destination == default for route in routes)
