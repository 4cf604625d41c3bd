"""Choose the node's address among those of its interfaces, by Calico's autodetection methods. Pure.

The choice is Calico's, so that a node keeps its address when it is migrated: interfaces from the highest index down,
and of the first that fits the first usable address. What Calico does silently is said here: when other addresses would
have fitted as well, the detection names them and how to pin one.
"""

import re
from collections.abc import Callable, Sequence
from ipaddress import ip_interface, ip_network
from typing import Literal, TypeAlias

from msgspec import Struct, field

from weft.model.address import IPAddress, IPInterface, IPNetwork

Version: TypeAlias = Literal[4, 6]

# Interfaces that belong to container tools or to Calico itself; searched, not matched whole, as Calico does.
SKIPPED_INTERFACES = (
    "^docker.*", "^cbr.*", "^dummy.*", "^podman.*", "^virbr.*", "^lxcbr.*", "^veth.*", "^lo", "^br-.*", "^cali.*",
    "^tunl.*", "^flannel.*", "^kube-ipvs.*", "^cni.*", r"^vxlan\.calico.*", r"^vxlan-v6\.calico.*",
    r"^wireguard\.cali.*", r"^wg-v6\.cali.*", "^nodelocaldns.*", "^weftdel.*",
)  # fmt: skip


class DetectionError(Exception):
    """No address can be told: the text says why and what would help."""


class HostInterface(Struct, frozen=True):
    """One interface of the host with its addresses in the kernel's order."""

    index: int
    name: str
    addresses: tuple[IPInterface, ...]


class Candidate(Struct, frozen=True):
    """An address that a method allows."""

    interface: str
    address: IPInterface

    def __str__(self) -> str:
        return f"{self.address} on {self.interface}"


class Detection(Struct, frozen=True):
    """The address chosen and those that would have fitted, too."""

    chosen: Candidate
    others: tuple[Candidate, ...]
    method: str

    @property
    def ambiguity(self) -> str | None:
        """Clear words when there was a choice; None when there was none."""
        if not self.others:
            return None
        version = self.chosen.address.version
        variable = "IP_AUTODETECTION_METHOD" if version == 4 else "IP6_AUTODETECTION_METHOD"
        address = self.chosen.address
        pin = f"interface=^{re.escape(self.chosen.interface)}$"
        if any(other.interface == self.chosen.interface for other in self.others):
            pin = f"cidr={address.ip}/{address.max_prefixlen}"
        return (
            f"IPv{version} autodetection by {self.method!r} chose {self.chosen}, but could also have chosen "
            f"{', '.join(map(str, self.others))}; to pin the choice set {variable}={pin}"
        )


class Surroundings(Struct, frozen=True):
    """What a detection may look at besides the interfaces."""

    interfaces: tuple[HostInterface, ...]
    source_address: Callable[[str, Version], IPAddress]
    """The local address from which a destination (a name or an address) is reached; raises OSError."""
    internal_ips: tuple[IPAddress, ...] = field(default=())
    """What Kubernetes calls the node's InternalIP."""


def check_method(method: str) -> None:
    """Raises `DetectionError` for what can never find an address, whatever the host looks like."""
    name, _, argument = method.partition("=")
    match name, bool(argument):
        case ("first-found" | "kubernetes-internal-ip", False) | ("can-reach", True):
            return
        case "interface" | "skip-interface", True:
            _regexes(argument)
        case "cidr", True:
            _networks(argument)
        case _:
            raise _unknown(method)


def _unknown(method: str) -> DetectionError:
    return DetectionError(
        f"unknown autodetection method {method!r}: expected first-found, interface=REGEX[,REGEX], "
        "skip-interface=REGEX[,REGEX], cidr=CIDR[,CIDR], can-reach=DESTINATION or kubernetes-internal-ip"
    )


def detect(method: str, version: Version, around: Surroundings) -> Detection:
    """The node's address by one of Calico's methods. Raises `DetectionError`."""
    name, _, argument = (method or "first-found").partition("=")
    interfaces = sorted(around.interfaces, key=lambda one: -one.index)
    match name, bool(argument):
        case "first-found", False:
            found = _usable(_named(interfaces, skip=SKIPPED_INTERFACES), version)
        case "interface", True:
            found = _usable(_named(interfaces, include=_regexes(argument)), version)
        case "skip-interface", True:
            found = _usable(_named(interfaces, skip=(*SKIPPED_INTERFACES, *_regexes(argument))), version)
        case "cidr", True:
            networks = _networks(argument)
            found = [
                one
                for one in _usable(interfaces, version)
                if any(one.address.ip in network for network in networks if network.version == version)
            ]
        case "can-reach", True:
            found = [_can_reach(argument, version, around)]
        case "kubernetes-internal-ip", False:
            found = _internal(version, around)
        case _:
            raise _unknown(method)
    if not found:
        seen = ", ".join(one.name for one in interfaces) or "none"
        raise DetectionError(f"no IPv{version} address fits {method!r}; interfaces: {seen}")
    return Detection(found[0], tuple(found[1:]), method)


def with_prefix(address: IPAddress, interfaces: Sequence[HostInterface]) -> IPInterface:
    """The address as its interface has it; a host prefix if no interface has it."""
    local = _local(address, interfaces)
    return local.address if local else ip_interface(address)


def interface_of(address: IPInterface, interfaces: Sequence[HostInterface]) -> str | None:
    """The name of the interface that has this address; None if none has."""
    local = _local(address.ip, interfaces)
    return local.interface if local else None


def _local(address: IPAddress, interfaces: Sequence[HostInterface]) -> Candidate | None:
    for one in interfaces:
        for local in one.addresses:
            if local.ip == address:
                return Candidate(one.name, local)
    return None


def _named(
    interfaces: Sequence[HostInterface], include: Sequence[str] = (), skip: Sequence[str] = ()
) -> list[HostInterface]:
    return [
        one
        for one in interfaces
        if (not include or any(re.search(pattern, one.name) for pattern in include))
        and not any(re.search(pattern, one.name) for pattern in skip)
    ]


def _usable(interfaces: Sequence[HostInterface], version: Version) -> list[Candidate]:
    """Global unicast as Go means it: private addresses count, link-local ones do not."""
    return [
        Candidate(one.name, address)
        for one in interfaces
        for address in one.addresses
        if address.version == version
        and not (address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local)
        and str(address.ip) != "255.255.255.255"
    ]


def _regexes(argument: str) -> tuple[str, ...]:
    patterns = tuple(part for part in re.split(r"\s*,\s*", argument.strip()) if part)
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise DetectionError(f"{pattern!r} is not a regular expression: {error}") from None
    return patterns


def _networks(argument: str) -> list[IPNetwork]:
    try:
        return [ip_network(part, strict=False) for part in re.split(r"\s*,\s*", argument.strip()) if part]
    except ValueError as error:
        raise DetectionError(f"cidr={argument}: {error}") from None


def _can_reach(destination: str, version: Version, around: Surroundings) -> Candidate:
    try:
        source = around.source_address(destination, version)
    except OSError as error:
        raise DetectionError(f"no IPv{version} route to {destination!r}: {error}") from None
    local = _local(source, around.interfaces)
    if local is None:
        raise DetectionError(f"{destination!r} is reached from {source}, which no interface has")
    return local


def _internal(version: Version, around: Surroundings) -> list[Candidate]:
    """The first InternalIP of the version; where no interface has it Kubernetes is still right."""
    for address in around.internal_ips:
        if address.version == version:
            local = _local(address, around.interfaces)
            return [local or Candidate("no local interface", ip_interface(address))]
    raise DetectionError(f"Kubernetes has told no IPv{version} InternalIP of this node")
