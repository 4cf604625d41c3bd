"""Links, addresses and neighbours as rtnetlink messages and frozen values (linux/if_link.h, if_addr.h, neighbour.h).

Sans-IO: what is returned goes to a `NetlinkSocket`, what it dumps or receives is decoded here. Routes have a module of
their own. Links are named by their interface index; only creation and look-up take names."""

import struct
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from msgspec import Struct

from weft.netlink import message as nl
from weft.netlink.message import AF_INET, AF_INET6, AF_UNSPEC, MalformedMessageError, Message

IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTM_NEWNEIGH = 28
RTM_DELNEIGH = 29
RTM_GETNEIGH = 30
RTM_SETNEIGHTBL = 67

RTNLGRP_LINK = 1
RTNLGRP_NEIGH = 3
RTNLGRP_IPV4_IFADDR = 5
RTNLGRP_IPV6_IFADDR = 9

IFF_UP = 0x1
IFF_RUNNING = 0x40
IFA_F_NODAD = 0x02
IFA_F_TENTATIVE = 0x40
IFA_F_PERMANENT = 0x80
IFA_F_NOPREFIXROUTE = 0x200
SCOPE_UNIVERSE = 0
SCOPE_LINK = 253
NUD_FAILED = 0x20
NUD_PERMANENT = 0x80
NTF_PROXY = 0x08

_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINK = 5
_IFLA_LINKINFO = 18
_IFLA_AF_SPEC = 26
_IFLA_GROUP = 27
_IFLA_NET_NS_FD = 28
_IFLA_EXT_MASK = 29
_IFLA_NUM_TX_QUEUES = 31
_IFLA_NUM_RX_QUEUES = 32
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_VETH_INFO_PEER = 1
_IFLA_INET_CONF = 1
_IFLA_INET6_ADDR_GEN_MODE = 8
_RTEXT_FILTER_SKIP_STATS = 8
IN6_ADDR_GEN_MODE_NONE = 1

_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_FLAGS = 8
_IFA_PROTO = 11
_NDA_DST = 1
_NDA_LLADDR = 2
_NDTA_NAME = 1
_NDTA_PARMS = 6
_NDTPA_IFINDEX = 1
_NDTPA_PROXY_DELAY = 13

# IPV4_DEVCONF_* (linux/ip.h): the numbers of the IPv4 settings of one interface.
IPV4_SETTINGS: Mapping[str, int] = {
    "forwarding": 1,
    "proxy_arp": 3,
    "accept_redirects": 4,
    "send_redirects": 6,
    "rp_filter": 8,
    "arp_ignore": 19,
    "accept_local": 21,
    "route_localnet": 26,
}

_IFINFOMSG = struct.Struct("=BxHiII")
_IFADDRMSG = struct.Struct("=BBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")
_CREATE = nl.NLM_F_REQUEST | nl.NLM_F_CREATE | nl.NLM_F_EXCL
_CREATE_OR_REPLACE = nl.NLM_F_REQUEST | nl.NLM_F_CREATE | nl.NLM_F_REPLACE


class Link(Struct, frozen=True):
    """An interface. `peer` is the index of the other end of a veth, which may be in another namespace."""

    index: int
    name: str
    kind: str
    up: bool
    running: bool
    mtu: int
    mac: str
    group: int
    peer: int | None


class Address(Struct, frozen=True):
    index: int
    interface: IPInterface
    flags: int
    scope: int = SCOPE_UNIVERSE
    protocol: int = 0
    """Who made it; kernels before 5.18 do not keep that."""


class Neighbour(Struct, frozen=True):
    index: int
    address: IPAddress
    mac: str | None
    state: int
    flags: int = 0


def pack_mac(mac: str) -> bytes:
    """Raises ValueError if it is no Ethernet address."""
    packed = bytes.fromhex(mac.replace(":", ""))
    if len(packed) != 6:
        raise ValueError(f"{mac!r} is no Ethernet address")
    return packed


def _read_mac(packed: bytes) -> str:
    return packed.hex(":")


def _link_message(kind: int, flags: int, index: int, *attributes: bytes, up: bool | None = None) -> bytes:
    change = 0 if up is None else IFF_UP
    header = _IFINFOMSG.pack(AF_UNSPEC, 0, index, IFF_UP if up else 0, change)
    return nl.message(kind, flags, header + b"".join(attributes))


def new_veth(
    name: str,
    peer: str,
    peer_netns_fd: int,
    *,
    mtu: int,
    mac: str | None = None,
    peer_mac: str | None = None,
    indexes: tuple[int, int] = (0, 0),
) -> bytes:
    """A pair whose first end is here and up, and whose peer is made in another namespace, down (the kernel refuses
    one that is up before its first end exists).

    Each end has one queue, whatever the number of CPUs: more cost time to make, and serve nobody but XDP programs.
    `indexes` are the interface indexes of the two ends, 0 for what the kernel likes. EEXIST if either name, or the
    first index, is taken; EBUSY if the second is."""
    queues = nl.u32(_IFLA_NUM_TX_QUEUES, 1) + nl.u32(_IFLA_NUM_RX_QUEUES, 1)
    ends = []
    for own_name, own_mac in ((name, mac), (peer, peer_mac)):
        ends.append(nl.string(_IFLA_IFNAME, own_name) + nl.u32(_IFLA_MTU, mtu) + queues)
        if own_mac is not None:
            ends[-1] += nl.attribute(_IFLA_ADDRESS, pack_mac(own_mac))
    far_header = _IFINFOMSG.pack(AF_UNSPEC, 0, indexes[1], 0, 0)
    far_end = nl.attribute(_VETH_INFO_PEER, far_header + ends[1] + nl.u32(_IFLA_NET_NS_FD, peer_netns_fd))
    kind = nl.nested(_IFLA_LINKINFO, nl.string(_IFLA_INFO_KIND, "veth"), nl.nested(_IFLA_INFO_DATA, far_end))
    return _link_message(RTM_NEWLINK, _CREATE, indexes[0], ends[0], kind, up=True)


def set_link(
    index: int,
    *,
    up: bool | None = None,
    name: str | None = None,
    mtu: int | None = None,
    group: int | None = None,
    mac: str | None = None,
) -> bytes:
    """Change what is named. The kernel applies name and MTU before the flags, and renames an interface that is up."""
    attributes = []
    if mac is not None:
        attributes.append(nl.attribute(_IFLA_ADDRESS, pack_mac(mac)))
    if name is not None:
        attributes.append(nl.string(_IFLA_IFNAME, name))
    if mtu is not None:
        attributes.append(nl.u32(_IFLA_MTU, mtu))
    if group is not None:
        attributes.append(nl.u32(_IFLA_GROUP, group))
    return _link_message(RTM_NEWLINK, nl.NLM_F_REQUEST, index, *attributes, up=up)


def set_ipv4(index: int, **settings: int) -> bytes:
    """Set IPv4 settings of one interface, by their names in /proc/sys/net/ipv4/conf. KeyError for an unknown one."""
    listed = [nl.u32(IPV4_SETTINGS[setting], value) for setting, value in settings.items()]
    per_family = nl.nested(AF_INET, nl.nested(_IFLA_INET_CONF, *listed))
    return _link_message(RTM_NEWLINK, nl.NLM_F_REQUEST, index, nl.nested(_IFLA_AF_SPEC, per_family))


def set_ipv6_address_generation(index: int, mode: int) -> bytes:
    """How the interface gets its IPv6 link-local address; IN6_ADDR_GEN_MODE_NONE for not at all."""
    per_family = nl.nested(AF_INET6, nl.u8(_IFLA_INET6_ADDR_GEN_MODE, mode))
    return _link_message(RTM_NEWLINK, nl.NLM_F_REQUEST, index, nl.nested(_IFLA_AF_SPEC, per_family))


def set_proxy_delay(index: int, family: int, milliseconds: int) -> bytes:
    """How long the interface waits before it answers for somebody else (NDTPA_PROXY_DELAY)."""
    table = nl.string(_NDTA_NAME, "arp_cache" if family == AF_INET else "ndisc_cache")
    delay = struct.pack("=HHQ", 12, _NDTPA_PROXY_DELAY, milliseconds)
    parameters = nl.nested(_NDTA_PARMS, nl.u32(_NDTPA_IFINDEX, index), delay)
    return nl.message(RTM_SETNEIGHTBL, nl.NLM_F_REQUEST, struct.pack("=Bxxx", family) + table + parameters)


def delete_link(index: int) -> bytes:
    return _link_message(RTM_DELLINK, nl.NLM_F_REQUEST, index)


def delete_links_of_group(group: int) -> bytes:
    """Delete all links of a group at once, much faster than one by one. Raises ValueError for group 0, which is every
    other link of the machine."""
    if group == 0:
        raise ValueError("group 0 is everybody's")
    return _link_message(RTM_DELLINK, nl.NLM_F_REQUEST, 0, nl.u32(_IFLA_GROUP, group))


def get_link(name: str) -> bytes:
    """Look one link up by name; ENODEV if there is none."""
    mask = nl.u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return _link_message(RTM_GETLINK, nl.NLM_F_REQUEST, 0, nl.string(_IFLA_IFNAME, name), mask)


def dump_links() -> bytes:
    mask = nl.u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return _link_message(RTM_GETLINK, nl.NLM_F_REQUEST | nl.NLM_F_DUMP, 0, mask)


def is_about_bridge_port(answer: Message) -> bool:
    """A bridge tells of its ports with the same messages: its RTM_DELLINK does not mean that the link is gone."""
    return answer.payload[:1] != b"\0"


def decode_link(answer: Message) -> Link:
    """A link of an RTM_NEWLINK or RTM_DELLINK. Raises MalformedMessageError."""
    if len(answer.payload) < _IFINFOMSG.size:
        raise MalformedMessageError(f"a link of {len(answer.payload)} bytes")
    _, _, index, flags, _ = _IFINFOMSG.unpack_from(answer.payload)
    found = nl.attributes(answer.payload, _IFINFOMSG.size)
    info = nl.attributes(found.get(_IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=nl.read_string(found.get(_IFLA_IFNAME, b"")),
        kind=nl.read_string(info.get(_IFLA_INFO_KIND, b"")),
        up=bool(flags & IFF_UP),
        running=bool(flags & IFF_RUNNING),
        mtu=nl.read_u32(found[_IFLA_MTU]) if _IFLA_MTU in found else 0,
        mac=_read_mac(found.get(_IFLA_ADDRESS, b"")),
        group=nl.read_u32(found[_IFLA_GROUP]) if _IFLA_GROUP in found else 0,
        peer=nl.read_u32(found[_IFLA_LINK]) if _IFLA_LINK in found else None,
    )


def _address_message(kind: int, flags: int, address: Address) -> bytes:
    family = AF_INET if address.interface.version == 4 else AF_INET6
    packed = address.interface.ip.packed
    prefix_length = address.interface.network.prefixlen
    body = _IFADDRMSG.pack(family, prefix_length, address.flags & 0xFF, address.scope, address.index)
    body += nl.attribute(_IFA_LOCAL, packed) + nl.attribute(_IFA_ADDRESS, packed)
    if address.protocol:
        body += nl.attribute(_IFA_PROTO, bytes((address.protocol,)))
    return nl.message(kind, flags, body + nl.u32(_IFA_FLAGS, address.flags))


def new_address(address: Address) -> bytes:
    """EEXIST if the interface has it."""
    return _address_message(RTM_NEWADDR, _CREATE, address)


def delete_address(address: Address) -> bytes:
    return _address_message(RTM_DELADDR, nl.NLM_F_REQUEST, address)


def dump_addresses(index: int = 0) -> bytes:
    """All addresses, or those of one interface."""
    return nl.message(RTM_GETADDR, nl.NLM_F_REQUEST | nl.NLM_F_DUMP, _IFADDRMSG.pack(AF_UNSPEC, 0, 0, 0, index))


def decode_address(answer: Message) -> Address | None:
    """An address; None if it is of neither IP version. Raises MalformedMessageError."""
    if len(answer.payload) < _IFADDRMSG.size:
        raise MalformedMessageError(f"an address of {len(answer.payload)} bytes")
    family, prefix_length, flags, scope, index = _IFADDRMSG.unpack_from(answer.payload)
    found = nl.attributes(answer.payload, _IFADDRMSG.size)
    packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b"")
    flags = nl.read_u32(found[_IFA_FLAGS]) if _IFA_FLAGS in found else flags
    interface: IPInterface
    if family == AF_INET and len(packed) == 4 and prefix_length <= 32:
        interface = IPv4Interface((packed, prefix_length))
    elif family == AF_INET6 and len(packed) == 16 and prefix_length <= 128:
        interface = IPv6Interface((packed, prefix_length))
    elif family in (AF_INET, AF_INET6):
        raise MalformedMessageError(f"an address of {len(packed)} bytes with prefix length {prefix_length}")
    else:
        return None
    return Address(index, interface, flags, scope, found.get(_IFA_PROTO, b"\0")[0])


def _neighbour_message(kind: int, flags: int, neighbour: Neighbour) -> bytes:
    family = AF_INET if neighbour.address.version == 4 else AF_INET6
    body = _NDMSG.pack(family, neighbour.index, neighbour.state, neighbour.flags, 0)
    body += nl.attribute(_NDA_DST, neighbour.address.packed)
    if neighbour.mac is not None:
        body += nl.attribute(_NDA_LLADDR, pack_mac(neighbour.mac))
    return nl.message(kind, flags, body)


def set_neighbour(neighbour: Neighbour) -> bytes:
    """Create or replace; permanent with state NUD_PERMANENT, a proxy entry with flags NTF_PROXY."""
    return _neighbour_message(RTM_NEWNEIGH, _CREATE_OR_REPLACE, neighbour)


def delete_neighbour(neighbour: Neighbour) -> bytes:
    return _neighbour_message(RTM_DELNEIGH, nl.NLM_F_REQUEST, neighbour)


def dump_neighbours() -> bytes:
    return nl.message(RTM_GETNEIGH, nl.NLM_F_REQUEST | nl.NLM_F_DUMP, _NDMSG.pack(AF_UNSPEC, 0, 0, 0, 0))


def is_failed_neighbour(notification: Message) -> bool:
    """The kernel has given up asking for its address; decoded no further, because states change often."""
    payload = notification.payload
    return len(payload) >= _NDMSG.size and bool(_NDMSG.unpack_from(payload)[2] & NUD_FAILED)


def decode_neighbour(answer: Message) -> Neighbour | None:
    """A neighbour; None if it is not one of an IP address (a bridge's forwarding entry). MalformedMessageError."""
    if len(answer.payload) < _NDMSG.size:
        raise MalformedMessageError(f"a neighbour of {len(answer.payload)} bytes")
    family, index, state, flags, _ = _NDMSG.unpack_from(answer.payload)
    found = nl.attributes(answer.payload, _NDMSG.size)
    packed = found.get(_NDA_DST, b"")
    address: IPAddress
    if family == AF_INET and len(packed) == 4:
        address = IPv4Address(packed)
    elif family == AF_INET6 and len(packed) == 16:
        address = IPv6Address(packed)
    else:
        return None
    mac = found.get(_NDA_LLADDR)
    return Neighbour(index, address, None if mac is None else _read_mac(mac), state, flags)
