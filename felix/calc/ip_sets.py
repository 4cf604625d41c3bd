"""The members of the sets that active rules look into.

A set is kept for as long as a rule uses it. Its members are what items (endpoints and network sets of the whole
cluster) bring to it that its selector matches, or what the slices of its service do; counted, since two may bring
the same. What changed is collected until `flush`, and what was undone in between is not reported."""

from collections.abc import Iterable, Iterator, Set
from ipaddress import IPv4Address, IPv6Address

from felix.calc.label_index import LabelIndex, Labels
from felix.calc.members import Family
from felix.calc.members import Member as Member
from felix.calc.members import SetChange as SetChange
from felix.calc.members import SetKey as SetKey
from felix.calc.members import SetKind as SetKind
from felix.calc.members import as_member as as_member
from felix.calc.services import Services
from weft.model.address import IPAddress
from weft.model.endpoint import EndpointPort
from weft.model.endpoint_slice import KubernetesEndpointSlice
from weft.model.keys import ResourceKey
from weft.policy.values import AddressPort, AddressSet, PortSet, SelectorSet, ServiceSet
from weft.selector import Selector, conjunction
from weft.selector.nodes import Has

Ports = tuple[EndpointPort, ...]
_ENDPOINTS = ("WorkloadEndpoint", "HostEndpoint")


def usable_ports(ports: Iterable[EndpointPort]) -> Ports:
    """Those whose protocol has ports."""
    return tuple(port for port in ports if port.protocol.has_ports)


def _order(key: ResourceKey) -> tuple[str, str, str]:
    return key.kind, key.namespace, key.name


class IPSets:
    """A `Membership` of the sets in use: who is in them now."""

    def __init__(self) -> None:
        self._index: LabelIndex[ResourceKey, str] = LabelIndex(self._on_match)
        self._services = Services(self._add, self._remove)
        self._members: dict[ResourceKey, tuple[Member, ...]] = {}
        self._ports: dict[ResourceKey, Ports] = {}
        self._wanted: dict[str, AddressSet] = {}
        self._users: dict[str, int] = {}
        self._families: dict[SetKey, Family] = {}
        self._dirty: dict[SetKey, None] = {}

    # --- input --------------------------------------------------------------------------------------------------

    def set_item(
        self,
        item: ResourceKey,
        labels: Labels,
        parents: tuple[str, ...],
        members: tuple[Member, ...],
        ports: Ports = (),
    ) -> None:
        """An endpoint or network set, its labels, the profiles it inherits labels from, its addresses and, of an
        endpoint, its named ports."""
        before, ports_before = self._members.get(item), self._ports.get(item, ())
        if before is not None and (before, ports_before) != (members, ports):
            for set_id in self._index.selectors_of(item):
                self._add(set_id, self._brought(set_id, members, ports))
                self._remove(set_id, self._brought(set_id, before, ports_before))
        self._members[item] = members
        self._ports.pop(item, None)
        if ports:
            self._ports[item] = ports
            labels = {**labels, **{_label_of(port.name): "" for port in ports}}
        self._index.set_item(item, labels, parents)

    def remove_item(self, item: ResourceKey) -> None:
        self._index.remove_item(item)
        self._members.pop(item, None)
        self._ports.pop(item, None)

    def holders(self, addresses: Set[IPAddress]) -> dict[IPAddress, ResourceKey]:
        """Endpoints, not network sets, that bring these single addresses; of several the first by key."""
        found: dict[IPAddress, ResourceKey] = {}
        numbers = {int(address) for address in addresses}  # an address is slow to hash
        for item, members in self._members.items():
            if item.kind not in _ENDPOINTS:
                continue
            for member in members:
                if isinstance(member, (IPv4Address, IPv6Address)) and int(member) in numbers and member in addresses:
                    found[member] = min(item, found.get(member, item), key=_order)
        return found

    def set_parent(self, profile: str, labels: Labels) -> None:
        self._index.set_parent(profile, labels)

    def set_slice(self, key: ResourceKey, endpoint_slice: KubernetesEndpointSlice | None) -> None:
        self._services.set_slice(key, endpoint_slice)

    def acquire(self, wanted: AddressSet) -> None:
        """One more rule set uses it; the first makes it."""
        users = self._users[wanted.id] = self._users.get(wanted.id, 0) + 1
        if users > 1:
            return
        self._wanted[wanted.id] = wanted
        match wanted:
            case SelectorSet(id, selector):
                self._index.set_selector(id, selector)
            case PortSet(id, selector, port):
                self._index.set_selector(id, conjunction(selector, Selector(Has(_label_of(port)))))
            case ServiceSet():
                self._services.acquire(wanted)

    def release(self, set_id: str) -> None:
        """One user less; with the last it is gone."""
        self._users[set_id] -= 1
        if self._users[set_id]:
            return
        wanted = self._wanted[set_id]
        if isinstance(wanted, ServiceSet):
            self._services.release(wanted)
        else:
            self._index.remove_selector(set_id)
        del self._users[set_id], self._wanted[set_id]

    def flush(self) -> dict[SetKey, SetChange]:
        changes = {}
        for key in self._dirty:
            family = self._families[key]
            change = family.flush()
            if change is not None:
                changes[key] = change
            if not family:
                del self._families[key]
        self._dirty = {}
        return changes

    # --- questions ----------------------------------------------------------------------------------------------

    def contains(self, set_id: str, address: IPAddress) -> bool:
        family = self._families.get(SetKey(set_id, address.version))
        return family is not None and family.contains(address)

    def contains_port(self, set_id: str, address: IPAddress, protocol: int, port: int) -> bool:
        family = self._families.get(SetKey(set_id, address.version))
        return family is not None and family.contains_port(address, protocol, port)

    # --- workings -----------------------------------------------------------------------------------------------

    def _brought(self, set_id: str, members: tuple[Member, ...], ports: Ports) -> Iterable[Member]:
        """What an item with these addresses and ports brings to a set that matches it."""
        wanted = self._wanted[set_id]
        return _named_ports(wanted, members, ports) if isinstance(wanted, PortSet) else members

    def _on_match(self, set_id: str, item: ResourceKey, matches: bool) -> None:
        brought = self._brought(set_id, self._members[item], self._ports.get(item, ()))
        if matches:
            self._add(set_id, brought)
        else:
            self._remove(set_id, brought)

    def _add(self, set_id: str, members: Iterable[Member]) -> None:
        for member in members:
            self._family(set_id, member).add(member)

    def _remove(self, set_id: str, members: Iterable[Member]) -> None:
        for member in members:
            self._family(set_id, member).remove(member)

    def _family(self, set_id: str, member: Member) -> Family:
        key = SetKey(set_id, member.version)
        self._dirty[key] = None
        family = self._families.get(key)
        if family is None:
            family = self._families[key] = Family(of_ports=isinstance(member, AddressPort))
        return family


def _label_of(port: str) -> str:
    """Endpoints with a port of this name are filed under it. No selector can name such a label: it has a space."""
    return f"port {port}"


def _named_ports(wanted: PortSet, members: Iterable[Member], ports: Ports) -> Iterator[Member]:
    found = {
        (port.protocol.number, port.port)
        for port in ports
        if port.name == wanted.port and wanted.protocol in (None, port.protocol.number)
    }
    for member in members:
        if isinstance(member, (IPv4Address, IPv6Address)):
            for protocol, number in found:
                yield AddressPort(member, protocol, number)
