"""Who is in the sets that rules look into, of a cluster whose resources do not change.

No set is ever written out: what an address stands for (endpoints, network sets with a prefix around it) is found by the
address, and asked whether the set's selector chooses it. So a question costs the same in a large cluster."""

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from weft.model.address import IPAddress, IPNetwork, parse_address
from weft.model.endpoint import EndpointPort
from weft.model.endpoint_slice import KubernetesEndpointSlice
from weft.policy.values import AddressPort, AddressSet, PortSet, SelectorSet, ServiceSet
from weft.selector import Labels

_TCP = 6


class Item(Struct, frozen=True):
    """An endpoint or a network set: its labels, inherited ones included, and its named ports."""

    labels: Labels
    ports: tuple[EndpointPort, ...] = ()


class Members:
    """A `Membership`. Sets must be made known before they are asked for."""

    def __init__(self) -> None:
        self._sets: dict[str, AddressSet] = {}
        self._port_sets: dict[str, list[PortSet]] = {}
        self._by_address: dict[IPAddress, list[Item]] = {}
        self._by_prefix: dict[int, dict[int, dict[int, list[Item]]]] = {4: {}, 6: {}}
        self._slices: dict[tuple[str, str], list[KubernetesEndpointSlice]] = {}
        self._behind: dict[str, frozenset[IPAddress | AddressPort]] = {}
        self._found: dict[IPAddress, tuple[Item, ...]] = {}
        self._services: dict[IPAddress, set[tuple[str, int, int]]] | None = None

    # --- input --------------------------------------------------------------------------------------------------

    def add_endpoint(self, item: Item, addresses: Iterable[IPAddress]) -> None:
        for address in addresses:
            self._by_address.setdefault(address, []).append(item)

    def add_networks(self, item: Item, networks: Iterable[IPNetwork]) -> None:
        for network in networks:
            by_head = self._by_prefix[network.version].setdefault(network.prefixlen, {})
            head = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
            by_head.setdefault(head, []).append(item)

    def add_slice(self, endpoint_slice: KubernetesEndpointSlice) -> None:
        if endpoint_slice.service:
            service = (endpoint_slice.namespace, endpoint_slice.service)
            self._slices.setdefault(service, []).append(endpoint_slice)

    def know(self, sets: Mapping[str, AddressSet]) -> None:
        for one in sets.values():
            if isinstance(one, PortSet) and one.id not in self._sets:
                self._port_sets.setdefault(one.port, []).append(one)
        self._sets.update(sets)
        self._services = None

    # --- questions ----------------------------------------------------------------------------------------------

    def contains(self, set_id: str, address: IPAddress) -> bool:
        wanted = self._sets[set_id]
        if isinstance(wanted, SelectorSet):
            chooses = wanted.selector.matches
            return any(chooses(item.labels) for item in self.at(address))
        return isinstance(wanted, ServiceSet) and address in self._service(wanted)

    def contains_port(self, set_id: str, address: IPAddress, protocol: int, port: int) -> bool:
        wanted = self._sets[set_id]
        if isinstance(wanted, PortSet):
            return any(
                _has_port(item, wanted, protocol, port) and wanted.selector.matches(item.labels)
                for item in self._by_address.get(address, ())
            )
        return isinstance(wanted, ServiceSet) and AddressPort(address, protocol, port) in self._service(wanted)

    def at(self, address: IPAddress) -> tuple[Item, ...]:
        """What the address stands for."""
        found = self._found.get(address)
        if found is None:
            found = self._found[address] = tuple(self._find(address))
        return found

    def named_ports(self) -> frozenset[int]:
        """Every port that has a name at some endpoint or belongs to a service: no other is in any set."""
        items = (item for at in self._by_address.values() for item in at)
        services = (port.port for slices in self._slices.values() for one in slices for port in one.ports if port.port)
        return frozenset(port.port for item in items for port in item.ports) | frozenset(services)

    def labels_asked(self) -> frozenset[str]:
        """Every label that a set which is known can depend on."""
        chosen = (one.selector.keys() for one in self._sets.values() if not isinstance(one, ServiceSet))
        return frozenset[str]().union(*chosen)

    def services_of(self, address: IPAddress) -> frozenset[tuple[str, int, int]]:
        """What the address is in of the services that are known: set, protocol and port (0, 0 without)."""
        if self._services is None:
            self._services = {}
            for one in self._sets.values():
                for member in self._service(one) if isinstance(one, ServiceSet) else ():
                    if isinstance(member, AddressPort):
                        address_of, place = member.address, (one.id, member.protocol, member.port)
                    else:
                        address_of, place = member, (one.id, 0, 0)
                    self._services.setdefault(address_of, set()).add(place)
        return frozenset(self._services.get(address, ()))

    def names_of(self, address: IPAddress) -> frozenset[tuple[str, int, int]]:
        """Set, protocol and port of everything that `contains_port` says yes to for the address."""
        found = {one for one in self.services_of(address) if one[2]}
        for item in self._by_address.get(address, ()):
            for port in item.ports:
                number = port.protocol.number
                found |= {
                    (one.id, number, port.port)
                    for one in self._port_sets.get(port.name, ())
                    if one.protocol in (None, number) and one.selector.matches(item.labels)
                }
        return frozenset(found)

    # --- workings -----------------------------------------------------------------------------------------------

    def _find(self, address: IPAddress) -> Iterator[Item]:
        yield from self._by_address.get(address, ())
        number, length = int(address), address.max_prefixlen
        for prefixlen, by_head in self._by_prefix[address.version].items():
            yield from by_head.get(number >> (length - prefixlen), ())

    def _service(self, wanted: ServiceSet) -> frozenset[IPAddress | AddressPort]:
        found = self._behind.get(wanted.id)
        if found is None:
            slices = self._slices.get((wanted.namespace, wanted.name), ())
            found = frozenset(member for one in slices for member in _behind(one, with_ports=wanted.with_ports))
            self._behind[wanted.id] = found
        return found


def _has_port(item: Item, wanted: PortSet, protocol: int, port: int) -> bool:
    if wanted.protocol not in (None, protocol):
        return False
    return any(one.name == wanted.port and one.port == port and one.protocol.number == protocol for one in item.ports)


def _behind(endpoint_slice: KubernetesEndpointSlice, *, with_ports: bool) -> Iterator[IPAddress | AddressPort]:
    """What a slice brings to the sets of its service. Names in place of addresses and ports that are not given bring
    nothing, whatever an endpoint's conditions say, as in Calico."""
    ports = [
        (one.protocol.number if one.protocol else _TCP, one.port)
        for one in endpoint_slice.ports
        if one.port and (one.protocol is None or one.protocol.has_ports)
    ]
    for endpoint in endpoint_slice.endpoints:
        for text in endpoint.addresses:
            try:
                address = parse_address(text)
            except ValueError:
                continue
            if with_ports:
                yield from (AddressPort(address, protocol, port) for protocol, port in ports)
            else:
                yield address
