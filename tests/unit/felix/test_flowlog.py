"""A logged packet is named by its mark or prefix and its interfaces; repeats are counted, not told again and again."""

import json
from ipaddress import ip_address, ip_network
from typing import Any, ClassVar

import pytest

from felix import flowlog
from felix.calc.delta import LocalEndpoint, LocalHostEndpoint
from felix.rules.render_actions import DENIED_PREFIX, flow_id
from weft.model.keys import ResourceKey
from weft.netlink.nflog import LoggedPacket
from weft.policy.values import Action, Direction, EndpointPolicy, HostPolicy, Policy, Rule, TierPolicies

DB = ResourceKey("NetworkPolicy", "db", "shop")
PROFILE = ResourceKey("Profile", "kns.shop")
HOST = ResourceKey("GlobalNetworkPolicy", "host")
POLICIES = {
    DB: Policy(key=DB, ingress=(Rule(action=Action.ALLOW, id="a"), Rule(action=Action.DENY, id="b")), egress=None),
    PROFILE: Policy(key=PROFILE, ingress=(), egress=(Rule(action=Action.DENY, id="c"),)),
    HOST: Policy(key=HOST, ingress=(Rule(action=Action.DENY, id="d"),), egress=None),
}
ENDPOINT = EndpointPolicy((TierPolicies("default", Action.DENY, ingress=(DB,)),), (PROFILE,))


class Node:
    endpoints: ClassVar[dict[str, LocalEndpoint]] = {
        "cali1": LocalEndpoint(
            ResourceKey("WorkloadEndpoint", "here-k8s-db-eth0", "shop"),
            "cali1",
            (ip_network("10.0.0.1"),),
            "",
            ENDPOINT,
        )
    }
    host_endpoints: ClassVar[dict[str, LocalHostEndpoint]] = {
        "*": LocalHostEndpoint(
            ResourceKey("HostEndpoint", "here"),
            "*",
            HostPolicy(forward=EndpointPolicy((TierPolicies("default", Action.DENY, ingress=(HOST,)),))),
        )
    }
    policies: ClassVar[dict[ResourceKey, Policy]] = POLICIES


def _ipv4(source: str, destination: str, source_port: int = 40000, port: int = 5432) -> bytes:
    head = bytes.fromhex("4500002800004000401100") + b"\0"
    addresses = ip_address(source).packed + ip_address(destination).packed
    return head + addresses + source_port.to_bytes(2, "big") + port.to_bytes(2, "big") + bytes(4)


def _packet(counter: str = "", prefix: str = DENIED_PREFIX, **fields: Any) -> LoggedPacket:
    mark = flow_id(counter) if counter else 0
    given = {"payload": _ipv4("10.0.0.2", "10.0.0.1"), "sequence": 1} | fields
    return LoggedPacket(4517, prefix, mark, 2, 3, **given)


CASES: dict[str, tuple[LoggedPacket, tuple[str, str], flowlog.Decision | None]] = {
    "a rule of a policy": (
        _packet("ingress/np/shop/db/deny-b"),
        ("eth0", "cali1"),
        flowlog.Decision(Action.DENY, Direction.INGRESS, "cali1", "default", DB, 1, "b"),
    ),
    "a rule of a profile": (
        _packet("egress/profile/kns.shop/deny-c"),
        ("cali1", "eth0"),
        flowlog.Decision(Action.DENY, Direction.EGRESS, "cali1", "", PROFILE, 0, "c"),
    ),
    "the end of a tier": (
        _packet("ingress/tier/default/end"),
        ("eth0", "cali1"),
        flowlog.Decision(Action.DENY, Direction.INGRESS, "cali1", "default"),
    ),
    "nothing allowed it": (
        _packet("egress/final/end"),
        ("cali1", ""),
        flowlog.Decision(Action.DENY, Direction.EGRESS, "cali1"),
    ),
    "an allowed one": (
        _packet(prefix=f"weft allow {flow_id('ingress/np/shop/db/allow-a'):08x}"),
        ("eth0", "cali1"),
        flowlog.Decision(Action.ALLOW, Direction.INGRESS, "cali1", "default", DB, 0, "a"),
    ),
    "a policy of the host": (
        _packet("ingress/gnp/host/deny-d"),
        ("eth0", ""),
        flowlog.Decision(Action.DENY, Direction.INGRESS, "eth0", "default", HOST, 0, "d"),
    ),
    "another direction's rule": (_packet("egress/np/shop/db/deny-b"), ("eth0", "cali1"), None),
    "a rule that is no more": (_packet("ingress/np/shop/db/deny-z"), ("eth0", "cali1"), None),
    "an interface that is gone": (_packet("ingress/np/shop/db/deny-b"), ("eth0", ""), None),
    "somebody else's prefix": (_packet("ingress/np/shop/db/deny-b", prefix="ulog"), ("eth0", "cali1"), None),
    "a prefix with no number": (_packet(prefix="weft allow x"), ("eth0", "cali1"), None),
}


@pytest.mark.parametrize(("packet", "interfaces", "expected"), CASES.values(), ids=CASES)
def test_a_packet_is_laid_at_the_door_of_its_rule(
    packet: LoggedPacket, interfaces: tuple[str, str], expected: flowlog.Decision | None
) -> None:
    assert flowlog.decision_of(packet, *interfaces, Node()) == expected


DECISION = flowlog.Decision(Action.DENY, Direction.INGRESS, "cali1", "default", DB, 1, "b")


def test_a_flow_is_told_at_once_and_its_repeats_once_in_a_window() -> None:
    table = flowlog.FlowTable()
    for number in range(3):
        table.on_packet(DECISION, _packet(payload=_ipv4("10.0.0.2", "10.0.0.1", 40000 + number)), 100.0 + number)
    first = table.take(103.0)
    assert [(one.packets, one.first_s, one.last_s, one.source_port) for one in first] == [(3, 100.0, 102.0, 40002)]
    table.on_packet(DECISION, _packet(), 104.0)
    table.on_packet(DECISION, _packet(), 109.0)
    assert table.take(109.5) == []
    assert [(one.packets, one.first_s, one.last_s) for one in table.take(110.0)] == [(2, 104.0, 109.0)]
    assert table.take(115.0) == []
    assert table
    assert table.take(120.0) == []
    assert not table


def test_flows_to_other_ports_are_others() -> None:
    table = flowlog.FlowTable()
    for port in (80, 443, 80):
        table.on_packet(DECISION, _packet(payload=_ipv4("10.0.0.2", "10.0.0.1", port=port)), 1.0)
    assert sorted((one.key.headers.destination_port, one.packets) for one in table.take(1.0)) == [(80, 2), (443, 1)]


def test_what_nothing_can_be_said_about_is_counted_as_lost() -> None:
    table = flowlog.FlowTable()
    table.on_packet(None, _packet(), 1.0)
    table.on_packet(DECISION, _packet(payload=b"\x45"), 1.0)
    for number in range(flowlog.MOST_FLOWS + 5):
        table.on_packet(DECISION, _packet(payload=_ipv4("10.0.0.2", "10.0.0.1", port=number)), 1.0)
    assert table.lost == 7
    assert len(table.take(1.0)) == flowlog.MOST_FLOWS


def test_the_log_s_line_names_both_ends_and_the_rule() -> None:
    table = flowlog.FlowTable()
    table.on_packet(DECISION, _packet(), 100.0)
    parties = {ip_address("10.0.0.1"): ("shop", "db")}
    line = json.loads(json.dumps(flowlog.tree(flowlog.flow(table.take(100.0)[0], 1, parties), "here")))
    assert line == {
        "start": 100.0,
        "end": 100.0,
        "node": "here",
        "action": "deny",
        "direction": "ingress",
        "interface": "cali1",
        "source": {"address": "10.0.0.2", "port": 40000, "endpoint": ""},
        "destination": {"address": "10.0.0.1", "port": 5432, "endpoint": "shop/db"},
        "protocol": 17,
        "packets": 1,
        "tier": "default",
        "policy": {"kind": "NetworkPolicy", "namespace": "shop", "name": "db"},
        "rule": 1,
        "ruleId": "b",
    }
