"""Counters and flows as a person and as a program sees them."""

import json
from ipaddress import ip_address

from weft.admin.policy import Count, Counters, EndCount, Flow, Flows, Party, PolicyCount, RuleCount
from weft.ctl import policy_view as view
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction

DB, ALL = ResourceKey("NetworkPolicy", "db", "shop"), ResourceKey("GlobalNetworkPolicy", "all")
IN = Direction.INGRESS
COUNTERS = Counters(
    (
        PolicyCount(
            DB,
            (
                RuleCount(IN, 0, "a", Action.ALLOW, Count(3, 300)),
                RuleCount(IN, 1, "b", Action.DENY, Count(1, 100)),
            ),
            ingress=Count(9, 900),
        ),
        PolicyCount(ALL, (RuleCount(Direction.EGRESS, 0, "c", Action.PASS, Count(2, 200)),), egress=Count(2, 200)),
    ),
    (EndCount(IN, "default", Count(4, 400)), EndCount(IN, "", Count(5, 500))),
)
FLOW = Flow(
    sequence=1,
    first_s=1.0,
    last_s=2.0,
    packets=3,
    action=Action.DENY,
    direction=IN,
    interface="cali1",
    source=Party(ip_address("fd00::9"), 40000),
    destination=Party(ip_address("fd00::1"), 5432, "shop", "db"),
    protocol=6,
    tier="default",
    policy=DB,
    rule=1,
    rule_id="b",
)


def _cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()[1:]]


def test_totals_are_one_line_a_direction() -> None:
    assert _cells(view.counters_table(COUNTERS, rules=False)) == [
        ["NetworkPolicy", "shop", "db", "ingress", "all", "9", "900"],
        ["GlobalNetworkPolicy", "all", "egress", "all", "2", "200"],
        ["(end", "of", "tier", "default)", "ingress", "Deny", "4", "400"],
        ["(nothing", "allowed", "it)", "ingress", "Deny", "5", "500"],
    ]


def test_rules_are_told_each_with_what_former_ones_counted() -> None:
    chosen = view.chosen(COUNTERS, ["db"], "")
    assert _cells(view.counters_table(chosen, rules=True)) == [
        ["NetworkPolicy", "shop", "db", "ingress", "all", "9", "900"],
        ["NetworkPolicy", "shop", "db", "ingress", "0", "Allow", "3", "300"],
        ["NetworkPolicy", "shop", "db", "ingress", "1", "Deny", "1", "100"],
        ["NetworkPolicy", "shop", "db", "ingress", "(former)", "5", "500"],
    ]


def test_policies_are_chosen_by_name_and_namespace() -> None:
    assert [one.policy for one in view.chosen(COUNTERS, [], "shop").policies] == [DB]
    assert view.chosen(COUNTERS, ["db"], "other") == Counters()
    assert view.counters_table(Counters(), rules=False) == "No counters.\n"


def test_a_flow_is_a_line_that_names_both_ends_and_the_rule() -> None:
    line = view.flow_line(FLOW, as_json=False)
    assert "deny  ingress  [fd00::9]:40000  shop/db ([fd00::1]:5432)  tcp  3  default  shop/db  1" in line
    told = json.loads(view.flow_line(FLOW, as_json=True))
    assert told["policy"] == {"kind": "NetworkPolicy", "namespace": "shop", "name": "db"}
    assert told["destination"] == {"address": "fd00::1", "port": 5432, "namespace": "shop", "name": "db"}


def test_lost_packets_are_said() -> None:
    assert view.flows_table(Flows()) == "No flows.\n"
    assert "7 packets were not logged" in view.flows_table(Flows([FLOW], 1, 7))
