"""Make and take away the pair of interfaces between a workload and the host, and what is inside its namespace.

The host's end is `cali...`, up, with strict reverse path filtering; the workload's end has its addresses as /32 and
/128 and reaches everything through 169.254.1.1 and fe80::ecee:eeff:feee:eeee, which are permanent neighbours. The host
route and the policy are not made here. Three batches make a pair: create it, set the host's end, set the workload's;
the last brings the carrier, so that nothing leaves before the host's end is ready.

Everything runs on the calling thread, without waiting: a pair that goes is only taken out of service (see reaper)."""

import errno
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from felix.dataplane import sysctl
from felix.dataplane.attachment import Attached, Attachment, Inspection, InterfaceExistsError
from felix.dataplane.reaper import Reaper, retirement
from weft.model.address import IPAddress
from weft.netlink import rtnetlink as rt
from weft.netlink.message import AF_INET, AF_INET6
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


class KernelWiring:
    """Implements `felix.cni.ports.Wiring` for the network namespace it is made in."""

    def __init__(self, reaper: Reaper) -> None:
        self._socket = NetlinkSocket()
        self._reaper = reaper
        self._routes = RouteWriter(_WORKLOAD_ROUTES)

    def close(self) -> None:
        self._socket.close()

    def attach(self, attachment: Attachment) -> Attached:
        """As `Wiring.attach`; raises ValueError for a host interface name that is not ours."""
        if not _is_ours(attachment.host_interface):
            raise ValueError(f"{attachment.host_interface!r} is no name for the host's end of a workload")
        with_ipv6 = any(isinstance(address, IPv6Address) for address in attachment.addresses)
        with NetlinkSocket(netns_fd=attachment.netns) as inside, ExitStack() as undo:
            host, workload_index = self._create(attachment)
            undo.callback(self._retire, host.index, inside, workload_index)
            _check(self._socket.request(_host_settings(host.index, with_ipv6)))
            if with_ipv6:
                in_netns(attachment.netns, lambda: sysctl.allow_ipv6(attachment.interface))
            settings = _workload_settings(self._routes, workload_index, attachment.addresses)
            answers = inside.exchange([*settings, rt.get_link(attachment.interface)])
            _check(answers.failures)
            workload = decode_link(answers.replies[0])
            undo.pop_all()
        return Attached(host.index, workload.mac, workload.mtu)

    def detach(self, host_interface: str, netns: int | None, interface: str) -> bool:
        host = _find(self._socket, host_interface) if _is_ours(host_interface) else None
        if host is None or host.kind != "veth":
            return False
        if netns is None:
            self._retire(host.index, None, None)
            return True
        with NetlinkSocket(netns_fd=netns) as inside:
            workload = _find(inside, interface)
            is_pair = workload is not None and (workload.peer, workload.index) == (host.index, host.peer)
            self._retire(host.index, inside, workload.index if workload is not None and is_pair else None)
        return True

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

    def _create(self, attachment: Attachment) -> tuple[Link, int]:
        """The host's end, and the index of the other."""
        name = attachment.host_interface
        pair = rt.new_veth(
            name,
            attachment.interface,
            attachment.netns,
            mtu=attachment.mtu,
            mac=HOST_MAC,
            peer_mac=attachment.mac,
        )
        answers = self._socket.exchange([pair, rt.get_link(name)])
        created = not any(failure.index == 0 for failure in answers.failures)
        if not created and answers.failures[0].errno == errno.EEXIST:
            raise InterfaceExistsError(name if answers.replies else attachment.interface)
        _check(answers.failures)
        host = decode_link(answers.replies[0])
        if host.peer is None:
            raise OSError(errno.ENODEV, f"the kernel does not name the peer of {name}")
        return host, host.peer

    def _retire(self, host_index: int, inside: NetlinkSocket | None, workload_index: int | None) -> None:
        """Free both names at once and leave the pair to the reaper. One that is gone already is no failure."""
        failures = self._socket.request(retirement(host_index))
        if inside is not None and workload_index is not None:
            failures += inside.request(retirement(workload_index))
        self._reaper.notify()
        _check([failure for failure in failures if failure.errno != errno.ENODEV])


def _is_ours(host_interface: str) -> bool:
    return host_interface.startswith(HOST_PREFIX) and len(host_interface) > len(HOST_PREFIX)


def _check(failures: Sequence[NetlinkFailure]) -> None:
    if failures:
        raise OSError(failures[0].errno, failures[0].text)


def _host_settings(index: int, with_ipv6: bool) -> list[bytes]:
    batch = [rt.set_ipv4(index, forwarding=1, proxy_arp=1, rp_filter=1), rt.set_proxy_delay(index, AF_INET, 0)]
    if with_ipv6:
        # The address is the one that the kernel would make of the MAC, but ready at once: no duplicate detection.
        gateway = Address(index, IPv6Interface((GATEWAY_IPV6, 64)), rt.IFA_F_NODAD, rt.SCOPE_LINK)
        batch += [rt.set_ipv6_address_generation(index, rt.IN6_ADDR_GEN_MODE_NONE), rt.new_address(gateway)]
    return batch


def _workload_settings(routes: RouteWriter, index: int, addresses: Sequence[IPAddress]) -> list[bytes]:
    batch = [rt.set_link(index, up=True)]
    for address in addresses:
        if isinstance(address, IPv6Address):
            batch.append(rt.new_address(Address(index, IPv6Interface((address, 128)), rt.IFA_F_NODAD)))
        else:
            batch.append(rt.new_address(Address(index, IPv4Interface((address, 32)), 0)))
    if any(isinstance(address, IPv4Address) for address in addresses):
        link_route = (pack(IPv4Network(GATEWAY_IPV4)), device(index))
        default = (pack(_DEFAULT_IPV4), via(Hop(GATEWAY_IPV4, index)))
        batch += routes.add([link_route, default])
        batch.append(rt.set_neighbour(Neighbour(index, GATEWAY_IPV4, HOST_MAC, rt.NUD_PERMANENT)))
    if any(isinstance(address, IPv6Address) for address in addresses):
        batch += routes.add([(pack(_DEFAULT_IPV6), via(Hop(GATEWAY_IPV6, index)))])
        batch.append(rt.set_neighbour(Neighbour(index, GATEWAY_IPV6, HOST_MAC, rt.NUD_PERMANENT)))
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
