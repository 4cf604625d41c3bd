"""What is behind the Kubernetes services that active rules name: the members that their endpoint slices bring.

A slice belongs to the service of its namespace that its label names. What an endpoint's conditions say does not
matter, as in Calico. Names in place of addresses and ports that are not given bring no member."""

from collections.abc import Callable, Iterable, Iterator

from felix.calc.members import Member
from weft.model.address import IPAddress, parse_address
from weft.model.endpoint_slice import KubernetesEndpointSlice, SlicePort
from weft.model.keys import ResourceKey
from weft.policy.values import AddressPort, ServiceSet

Service = tuple[str, str]
"""Namespace and name."""

Bring = Callable[[str, Iterable[Member]], None]
_TCP = 6


class Services:
    """`add` and `remove` are called with the id of a set and the members that a slice brings to it."""

    def __init__(self, add: Bring, remove: Bring) -> None:
        self._add = add
        self._remove = remove
        self._slices: dict[ResourceKey, KubernetesEndpointSlice] = {}
        self._slices_of: dict[Service, dict[ResourceKey, None]] = {}
        self._sets_of: dict[Service, dict[str, ServiceSet]] = {}

    def set_slice(self, key: ResourceKey, endpoint_slice: KubernetesEndpointSlice | None) -> None:
        """A slice, or None where there is none any more."""
        before = self._slices.pop(key, None)
        # First what comes, then what goes: what stays is not touched.
        if endpoint_slice is not None and endpoint_slice.service:
            self._slices[key] = endpoint_slice
            service = _service(endpoint_slice, key)
            self._slices_of.setdefault(service, {})[key] = None
            for one in self._sets_of.get(service, {}).values():
                self._add(one.id, _brought(endpoint_slice, one))
        if before is not None:
            self._forget(key, before, moved=key not in self._slices or self._slices[key].service != before.service)

    def acquire(self, wanted: ServiceSet) -> None:
        service = (wanted.namespace, wanted.name)
        self._sets_of.setdefault(service, {})[wanted.id] = wanted
        for key in self._slices_of.get(service, ()):
            self._add(wanted.id, _brought(self._slices[key], wanted))

    def release(self, wanted: ServiceSet) -> None:
        service = (wanted.namespace, wanted.name)
        sets = self._sets_of[service]
        del sets[wanted.id]
        if not sets:
            del self._sets_of[service]
        for key in self._slices_of.get(service, ()):
            self._remove(wanted.id, _brought(self._slices[key], wanted))

    def _forget(self, key: ResourceKey, before: KubernetesEndpointSlice, *, moved: bool) -> None:
        service = _service(before, key)
        if moved:
            slices = self._slices_of[service]
            del slices[key]
            if not slices:
                del self._slices_of[service]
        for one in self._sets_of.get(service, {}).values():
            self._remove(one.id, _brought(before, one))


def _service(endpoint_slice: KubernetesEndpointSlice, key: ResourceKey) -> Service:
    return (key.namespace, endpoint_slice.service)


def _brought(endpoint_slice: KubernetesEndpointSlice, wanted: ServiceSet) -> Iterator[Member]:
    for endpoint in endpoint_slice.endpoints:
        for text in endpoint.addresses:
            address = _address(text)
            if address is None:
                continue
            if not wanted.with_ports:
                yield address
                continue
            for port in endpoint_slice.ports:
                number = _port(port)
                if number is not None:
                    yield AddressPort(address, port.protocol.number if port.protocol else _TCP, number)


def _address(text: str) -> IPAddress | None:
    """None for a name, and for an address that is of one link only."""
    try:
        return parse_address(text) if "%" not in text else None
    except ValueError:
        return None


def _port(port: SlicePort) -> int | None:
    has_ports = port.protocol is None or port.protocol.has_ports
    return port.port if has_ports and port.port is not None and 1 <= port.port <= 65535 else None
