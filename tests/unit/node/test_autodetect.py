"""Which address each of Calico's methods chooses, and what is said when there was a choice."""

from ipaddress import ip_address, ip_interface

import pytest

from weft.model.address import IPAddress
from weft.node.autodetect import (
    DetectionError,
    HostInterface,
    Surroundings,
    Version,
    detect,
    interface_of,
    with_prefix,
)


def interface(index: int, name: str, *addresses: str) -> HostInterface:
    return HostInterface(index, name, tuple(ip_interface(address) for address in addresses))


HOST = (
    interface(1, "lo", "127.0.0.1/8", "10.255.0.1/32", "::1/128"),
    interface(2, "eth0", "169.254.3.4/16", "192.168.1.2/24", "192.168.1.3/24", "fe80::1/64", "2001:db8::2/64"),
    interface(3, "eth1", "10.0.0.2/24", "fd00::2/64"),
    interface(4, "docker0", "172.17.0.1/16"),
    interface(5, "cali1234567890a", "10.65.0.1/32"),
    interface(6, "vxlan.calico", "10.65.0.64/32"),
)


def source_address(destination: str, version: Version) -> IPAddress:
    answers = {("tor", 4): "10.0.0.2", ("tor", 6): "2001:db8::2", ("nat", 4): "100.64.0.1"}
    if (destination, version) not in answers:
        raise OSError("no route to host")
    return ip_address(answers[destination, version])


AROUND = Surroundings(HOST, source_address, (ip_address("192.168.1.3"), ip_address("2001:db8::99")))


@pytest.mark.parametrize(
    ("method", "version", "address", "where"),
    [
        ("first-found", 4, "10.0.0.2/24", "eth1"),
        ("", 4, "10.0.0.2/24", "eth1"),
        ("first-found", 6, "fd00::2/64", "eth1"),
        ("interface=eth0", 4, "192.168.1.2/24", "eth0"),
        ("interface=eth0", 6, "2001:db8::2/64", "eth0"),
        ("interface=nothing, eth.*", 4, "10.0.0.2/24", "eth1"),
        ("interface=docker.*", 4, "172.17.0.1/16", "docker0"),
        ("interface=^lo", 4, "10.255.0.1/32", "lo"),
        ("skip-interface=eth1", 4, "192.168.1.2/24", "eth0"),
        ("skip-interface=eth1,wlan.*", 6, "2001:db8::2/64", "eth0"),
        ("cidr=192.168.1.0/24", 4, "192.168.1.2/24", "eth0"),
        ("cidr=10.255.0.0/16,172.17.0.0/16", 4, "172.17.0.1/16", "docker0"),
        ("cidr=2001:db8::/32", 6, "2001:db8::2/64", "eth0"),
        ("can-reach=tor", 4, "10.0.0.2/24", "eth1"),
        ("can-reach=tor", 6, "2001:db8::2/64", "eth0"),
        ("kubernetes-internal-ip", 4, "192.168.1.3/24", "eth0"),
        ("kubernetes-internal-ip", 6, "2001:db8::99/128", "no local interface"),
    ],
)
def test_each_method_chooses_as_calico_does(method: str, version: Version, address: str, where: str) -> None:
    chosen = detect(method, version, AROUND).chosen
    assert (str(chosen.address), chosen.interface) == (address, where)


@pytest.mark.parametrize(
    ("method", "version", "words"),
    [
        ("interface=wlan0", 4, "no IPv4 address fits 'interface=wlan0'; interfaces: vxlan.calico,"),
        ("interface=docker0", 6, "no IPv6 address"),
        ("interface=[", 4, "not a regular expression"),
        ("cidr=10.0.0.0/40", 4, "10.0.0.0/40"),
        ("can-reach=nowhere", 4, "no route to host"),
        ("can-reach=nat", 4, "100.64.0.1, which no interface has"),
        ("interface=", 4, "unknown autodetection method"),
        ("first", 4, "expected first-found, interface="),
    ],
)
def test_what_cannot_be_told_is_said_clearly(method: str, version: Version, words: str) -> None:
    with pytest.raises(DetectionError) as refused:
        detect(method, version, AROUND)
    assert words in str(refused.value)


def test_kubernetes_internal_ip_needs_kubernetes() -> None:
    with pytest.raises(DetectionError, match="Kubernetes"):
        detect("kubernetes-internal-ip", 4, Surroundings(HOST, source_address))


def test_a_choice_is_named_with_what_pins_it() -> None:
    text = detect("first-found", 4, AROUND).ambiguity
    assert text is not None
    for part in ("10.0.0.2/24 on eth1", "192.168.1.2/24 on eth0", "IP_AUTODETECTION_METHOD=interface=^eth1$"):
        assert part in text


@pytest.mark.parametrize(("version", "variable"), [(4, "IP_AUTODETECTION_METHOD"), (6, "IP6_AUTODETECTION_METHOD")])
def test_what_pins_a_choice_leaves_no_choice(version: Version, variable: str) -> None:
    host = (interface(2, "eth0", "10.0.0.1/24", "10.0.0.9/24", "fd00::1/64", "fd00::9/64"), interface(3, "eth1"))
    around = Surroundings(host, source_address)
    text = detect("first-found", version, around).ambiguity
    assert text is not None
    pinned = detect(text.rpartition(f"{variable}=")[2], version, around)
    assert pinned.ambiguity is None
    assert pinned.chosen == detect("first-found", version, around).chosen


def test_without_a_choice_nothing_is_said() -> None:
    assert detect("interface=eth1", 4, AROUND).ambiguity is None


def test_an_address_takes_the_prefix_of_its_interface() -> None:
    assert str(with_prefix(ip_address("10.0.0.2"), HOST)) == "10.0.0.2/24"
    assert str(with_prefix(ip_address("10.9.9.9"), HOST)) == "10.9.9.9/32"
    assert interface_of(ip_interface("10.0.0.2/8"), HOST) == "eth1"
    assert interface_of(ip_interface("10.9.9.9/8"), HOST) is None
