"""The flow log of a node: names are looked up for many at once, work is bounded, what is lost is counted."""

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import pytest

from felix import flows
from felix.flow_file import FlowFile
from felix.flows import FlowLog
from tests.unit.felix.test_flowlog import Node, _ipv4, _packet
from weft.model.address import IPAddress
from weft.model.keys import ResourceKey
from weft.netlink.nflog import LoggedPacket

DENIED = "ingress/np/shop/db/deny-b"
POD = ResourceKey("WorkloadEndpoint", "here-k8s-db-eth0", "shop")
HOST = ResourceKey("HostEndpoint", "there")


class Source:
    def __init__(self) -> None:
        self.waiting: list[LoggedPacket] = []
        self.lost = 0

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        return None

    def receive(self) -> list[LoggedPacket]:
        found, self.waiting = self.waiting, []
        return found


class Cluster:
    def __init__(self) -> None:
        self.asked: list[set[IPAddress]] = []

    def __call__(self, addresses: set[IPAddress]) -> Mapping[IPAddress, ResourceKey]:
        self.asked.append(addresses)
        known = {ip_address("10.0.0.1"): POD, ip_address("10.0.0.3"): HOST}
        return {address: key for address, key in known.items() if address in addresses}


def _log(file: FlowFile | None = None) -> tuple[Source, Cluster, FlowLog]:
    source, cluster = Source(), Cluster()
    names = {2: "eth0", 3: "cali1"}
    log = FlowLog(source, "here", Node(), lambda index: names.get(index, ""), cluster, file)  # type: ignore[arg-type]
    return source, cluster, log


def test_both_ends_are_named_with_one_look_at_the_cluster() -> None:
    source, cluster, log = _log()
    for peer in ("10.0.0.2", "10.0.0.3"):
        source.waiting.append(_packet(DENIED, payload=_ipv4(peer, "10.0.0.1")))
    assert log.on_readable()
    log.tick()
    assert [(one.source.name, one.destination.name) for one in log.flows().flows] == [("", "db"), ("there", "db")]
    assert cluster.asked == [{ip_address("10.0.0.1"), ip_address("10.0.0.2"), ip_address("10.0.0.3")}]
    source.waiting.append(_packet(DENIED, payload=_ipv4("10.0.0.3", "10.0.0.1", port=9)))
    log.on_readable()
    log.tick()
    assert len(cluster.asked) == 1
    assert [one.sequence for one in log.flows(after=2).flows] == [3]


def test_too_many_packets_wait_for_the_next_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "BUDGET", 10)
    source, _, log = _log()
    log.tick()
    source.waiting = [_packet(DENIED)] * 9
    assert log.on_readable()
    source.waiting = [_packet(DENIED)] * 9
    assert not log.on_readable()
    log.tick()
    assert log.on_readable()
    assert log.flows().flows[0].packets == 18


def test_what_is_lost_anywhere_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = FlowFile(tmp_path / "f")
    monkeypatch.setattr(file, "write", lambda lines: False)
    source, _, log = _log(file)
    source.lost = 5
    source.waiting = [_packet(DENIED), _packet(DENIED), _packet("ingress/np/shop/db/deny-gone")]
    log.on_readable()
    log.tick()
    assert log.flows().lost == 5 + 1 + 2
    log.close()
