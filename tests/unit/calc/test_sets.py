"""Sets of named ports and of services: what is in them, and what a change of one costs."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from felix.calc.ip_sets import IPSets, SetChange, SetKey, SetKind, usable_ports
from felix.calc.members import Family, Member, as_member
from weft.model.base import Metadata
from weft.model.endpoint import EndpointPort
from weft.model.endpoint_slice import SERVICE_LABEL, KubernetesEndpointSlice, SliceEndpoint, SlicePort
from weft.model.keys import ResourceKey
from weft.model.values import Protocol
from weft.policy.selectors import port_set, selector_set, service_set
from weft.policy.values import AddressPort
from weft.selector import ALL, parse

TCP, UDP, ICMP = (Protocol.parse(name) for name in ("TCP", "UDP", "ICMP"))
A1, A2, A6 = ip_address("10.0.0.1"), ip_address("10.0.0.2"), ip_address("fd00::1")
WEB = EndpointPort(name="web", protocol=TCP, port=80)
DB = parse("app == 'db'")
TO_DNS, FROM_DNS = (service_set("kube-system", "dns", with_ports=with_ports) for with_ports in (True, False))


def key(name: str) -> ResourceKey:
    return ResourceKey("WorkloadEndpoint", name, "one")


def put(sets: IPSets, name: str, *members: Member, app: str = "db", ports: tuple[EndpointPort, ...] = ()) -> None:
    sets.set_item(key(name), {"app": app}, (), members, usable_ports(ports))


def only(changes: dict[SetKey, SetChange]) -> SetChange:
    (change,) = changes.values()
    return change


def slice_of(
    *addresses: str, ports: tuple[SlicePort, ...] = (SlicePort(port=53),), service: str = "dns"
) -> KubernetesEndpointSlice:
    return KubernetesEndpointSlice(
        metadata=Metadata(name="s", namespace="kube-system", labels={SERVICE_LABEL: service} if service else {}),
        endpoints=tuple(SliceEndpoint(addresses=(one,)) for one in addresses),
        ports=ports,
    )


SLICE = ResourceKey("KubernetesEndpointSlice", "s", "kube-system")
OTHER_SLICE = ResourceKey("KubernetesEndpointSlice", "t", "kube-system")


@pytest.fixture
def sets() -> IPSets:
    return IPSets()


def test_a_set_of_ports_holds_each_address_of_what_is_chosen_with_its_port(sets: IPSets) -> None:
    sets.acquire(port_set(DB, "web", 6))
    put(sets, "db", A1, A6, ports=(WEB, EndpointPort(name="admin", protocol=TCP, port=81)))
    put(sets, "other", A2, app="web", ports=(WEB,))
    changes = sets.flush()
    assert {one.version: change.added for one, change in changes.items()} == {
        4: {AddressPort(A1, 6, 80)},
        6: {AddressPort(A6, 6, 80)},
    }
    assert {change.kind for change in changes.values()} == {SetKind.PORTS}


def test_without_a_protocol_the_ports_own_counts_if_it_has_ports(sets: IPSets) -> None:
    sets.acquire(port_set(ALL, "web", None))
    ports = tuple(EndpointPort(name="web", protocol=one, port=80) for one in (TCP, UDP, ICMP))
    put(sets, "db", A1, ports=ports)
    assert only(sets.flush()).added == {AddressPort(A1, 6, 80), AddressPort(A1, 17, 80)}


def test_a_network_set_has_no_ports(sets: IPSets) -> None:
    sets.acquire(port_set(DB, "web", 6))
    put(sets, "nets", ip_network("10.0.0.0/24"), A1)
    assert not sets.flush()


def test_a_port_that_moves_is_one_removal_and_one_addition(sets: IPSets) -> None:
    sets.acquire(port_set(DB, "web", 6))
    put(sets, "db", A1, ports=(WEB,))
    put(sets, "db2", A2, ports=(WEB,))
    sets.flush()
    put(sets, "db", A1, ports=(EndpointPort(name="web", protocol=TCP, port=8080),))
    change = only(sets.flush())
    assert (change.replaced, change.added, change.removed) == (
        False,
        {AddressPort(A1, 6, 8080)},
        {AddressPort(A1, 6, 80)},
    )
    put(sets, "db", A1)
    assert only(sets.flush()).removed == {AddressPort(A1, 6, 8080)}


def test_a_new_set_of_ports_looks_at_endpoints_with_such_a_port_only(sets: IPSets) -> None:
    for number in range(300):
        put(sets, f"w{number}", ip_address(number), ports=(WEB,) if number == 7 else ())
    asked = 0
    matches = sets._index.effective_labels

    def counted(item: ResourceKey) -> object:
        nonlocal asked
        asked += 1
        return matches(item)

    sets._index.effective_labels = counted  # type: ignore[method-assign,assignment]
    sets.acquire(port_set(ALL, "web", 6))
    assert len(only(sets.flush()).added) == asked == 1


def test_an_endpoint_is_compared_with_the_sets_of_its_own_ports_only(sets: IPSets) -> None:
    for number in range(300):
        sets.acquire(port_set(ALL, f"port-{number}", 6))
    asked = 0
    for one in sets._index._selectors.values():
        inner = one.matches

        def counted(labels: object, inner: Any = inner) -> bool:
            nonlocal asked
            asked += 1
            return bool(inner(labels))

        one.matches = counted
    put(sets, "db", A1, ports=(EndpointPort(name="port-7", protocol=TCP, port=80),))
    assert only(sets.flush()).added == {AddressPort(A1, 6, 80)}
    assert asked == 1


def test_a_slice_touches_the_sets_of_its_own_service_only(sets: IPSets) -> None:
    for number in range(300):
        sets.acquire(service_set("kube-system", f"service-{number}", with_ports=True))
    sets.set_slice(SLICE, slice_of("10.0.0.1", service="service-7"))
    assert len(sets._dirty) == 1


def test_a_service_has_the_addresses_of_its_slices_with_their_ports(sets: IPSets) -> None:
    sets.acquire(TO_DNS)
    sets.acquire(FROM_DNS)
    ports = (SlicePort(port=53), SlicePort(port=53, protocol=UDP), SlicePort(name="any"))
    sets.set_slice(SLICE, slice_of("10.0.0.1", "dns.example.org", "fe80::1%eth0", ports=ports))
    sets.set_slice(OTHER_SLICE, slice_of("10.0.0.9", service="web"))
    changes = sets.flush()
    assert changes[SetKey(TO_DNS.id, 4)].added == {AddressPort(A1, 6, 53), AddressPort(A1, 17, 53)}
    assert changes[SetKey(TO_DNS.id, 4)].kind is SetKind.PORTS
    assert changes[SetKey(FROM_DNS.id, 4)] == SetChange(SetKind.ADDRESSES, True, frozenset({A1}))


def test_what_two_slices_hold_stays_until_both_are_gone(sets: IPSets) -> None:
    sets.acquire(FROM_DNS)
    for one in (SLICE, OTHER_SLICE):
        sets.set_slice(one, slice_of("10.0.0.1"))
    sets.flush()
    sets.set_slice(SLICE, slice_of("10.0.0.2"))
    assert only(sets.flush()).added == {A2}
    sets.set_slice(OTHER_SLICE, None)
    assert only(sets.flush()).removed == {A1}


@pytest.mark.parametrize("service", ["web", ""])
def test_a_slice_that_another_service_has_now_leaves_the_first(sets: IPSets, service: str) -> None:
    sets.acquire(FROM_DNS)
    sets.set_slice(SLICE, slice_of("10.0.0.1"))
    sets.flush()
    sets.set_slice(SLICE, slice_of("10.0.0.1", service=service))
    assert only(sets.flush()).kind is None
    sets.set_slice(SLICE, slice_of("10.0.0.1"))
    assert only(sets.flush()).added == {A1}


def test_a_service_asked_for_later_finds_its_slices_and_leaves_nothing_behind(sets: IPSets) -> None:
    sets.set_slice(SLICE, slice_of("10.0.0.1"))
    for _ in range(2):
        sets.acquire(TO_DNS)
    assert only(sets.flush()).added == {AddressPort(A1, 6, 53)}
    sets.release(TO_DNS.id)
    assert not sets.flush()
    sets.release(TO_DNS.id)
    assert only(sets.flush()).kind is None


def test_who_is_a_member_is_answered_from_the_sets_themselves(sets: IPSets) -> None:
    addresses, ports = selector_set(DB), port_set(DB, "web", 6)
    sets.acquire(addresses)
    sets.acquire(ports)
    put(sets, "db", A1, ports=(WEB,))
    put(sets, "nets", ip_network("10.8.0.0/13"), ip_network("10.9.0.0/16"), ip_network("fd00::/64"))
    inside = {"10.0.0.1": True, "10.0.0.2": False, "10.9.1.1": True, "10.15.255.255": True, "10.16.0.0": False}
    for text, expected in {**inside, "fd00::abcd": True, "fd00:0:0:1::": False}.items():
        assert sets.contains(addresses.id, ip_address(text)) is expected, text
    assert sets.contains_port(ports.id, A1, 6, 80)
    assert not sets.contains_port(ports.id, A1, 17, 80)
    assert not sets.contains("none", A1)
    sets.remove_item(key("nets"))
    assert not sets.contains(addresses.id, ip_address("10.9.1.1"))


def test_a_prefix_is_looked_up_by_its_length_and_not_among_all() -> None:
    family = Family(of_ports=False)
    for number in range(2000):
        family.add(as_member(ip_network((number << 8, 24))))
    assert len(family._prefixes) == 1
    assert family.contains(ip_address(1999 << 8 | 5))
    assert not family.contains(ip_address(2000 << 8))
