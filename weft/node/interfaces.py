"""Read the host's interfaces and addresses from the kernel, and ask it for source addresses.

Reads only. pyroute2 is slow but good here: this runs at start and once a minute.
"""

import socket
from ipaddress import ip_address, ip_interface

from pyroute2 import IPRoute

from weft.model.address import IPAddress, IPInterface
from weft.node.autodetect import HostInterface, Version

# <linux/if_addr.h>: privacy addresses, and those that may not be used (yet, or any more).
IFA_F_TEMPORARY = 0x01
IFA_F_DADFAILED = 0x08
IFA_F_DEPRECATED = 0x20
IFA_F_TENTATIVE = 0x40
_LAST_RESORT = IFA_F_TEMPORARY | IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE


def read_interfaces() -> tuple[HostInterface, ...]:
    """Every interface of this network namespace with its addresses; temporary and unusable ones come last."""
    addresses: dict[int, list[tuple[bool, IPInterface]]] = {}
    with IPRoute() as route:
        for message in route.get_addr():
            # IFA_LOCAL is the own address where IFA_ADDRESS is the peer's; IPv6 has only the latter.
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if text is None:
                continue
            flags = message.get_attr("IFA_FLAGS") or message["flags"]
            address = ip_interface(f"{text}/{message['prefixlen']}")
            addresses.setdefault(message["index"], []).append((bool(flags & _LAST_RESORT), address))
        return tuple(
            HostInterface(
                index=link["index"],
                name=link.get_attr("IFLA_IFNAME"),
                addresses=tuple(
                    address for _, address in sorted(addresses.get(link["index"], ()), key=lambda one: one[0])
                ),
            )
            for link in route.get_links()
        )


def source_address(destination: str, version: Version) -> IPAddress:
    """The local address the kernel would use towards a destination; nothing is sent. Raises OSError."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    *_, target = socket.getaddrinfo(destination, 80, family, socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(target)
        return ip_address(probe.getsockname()[0])
