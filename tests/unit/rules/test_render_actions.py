"""What rules of every action become: they count, name themselves where they deny, and staged ones decide nothing."""

import pytest

from felix.rules import text
from felix.rules import values as nft
from felix.rules.render_actions import (
    ActionSettings,
    Place,
    denied_chain,
    flow_id,
    rule_endings,
)
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction, Rule

PLACE = Place(Direction.EGRESS, ResourceKey("GlobalNetworkPolicy", "p"))
STAGED = Place(Direction.EGRESS, ResourceKey("StagedGlobalNetworkPolicy", "p"))
MARK = f"meta mark set {flow_id('egress/gnp/p/deny-ab12'):#x} goto denied"
ALLOWED = f'log prefix "weft allow {flow_id("egress/gnp/p/allow-ab12"):08x}" group 4517 snaplen 128'


def _count(action: str, kind: str = "gnp") -> str:
    return f'counter name "egress/{kind}/p/{action}-ab12"'


CASES: dict[str, tuple[Action, ActionSettings, list[str]]] = {
    "allow": (Action.ALLOW, ActionSettings(), [f"{_count('allow')} accept"]),
    "allow, with its flows": (
        Action.ALLOW,
        ActionSettings(flow_logs="All"),
        [f"limit rate 20/second burst 40 packets {ALLOWED}", f"{_count('allow')} accept"],
    ),
    "deny": (Action.DENY, ActionSettings(), [f"{_count('deny')} {MARK}"]),
    "deny, with all flows": (Action.DENY, ActionSettings(flow_logs="All"), [f"{_count('deny')} {MARK}"]),
    "deny without flow logs": (Action.DENY, ActionSettings(flow_logs="Disabled"), [f"{_count('deny')} drop"]),
    "reject without flow logs": (
        Action.DENY,
        ActionSettings(reject=True, flow_logs="Disabled"),
        [f"{_count('deny')} reject with icmpx type admin-prohibited"],
    ),
    "pass": (Action.PASS, ActionSettings(flow_logs="All"), [f"{_count('pass')} return"]),
    "log": (Action.LOG, ActionSettings("x: "), [_count("log") + ' log prefix "x: "']),
    "log, not too often": (
        Action.LOG,
        ActionSettings("x: ", log_limit=nft.Limit(10, 5, seconds=60)),
        [_count("log") + ' limit rate 10/minute burst 5 packets log prefix "x: "'],
    ),
}


def _texts(endings: tuple[tuple[nft.Statement, ...], ...]) -> list[str]:
    return [text.rule(nft.Rule(ending)) for ending in endings]


@pytest.mark.parametrize(("action", "settings", "expected"), CASES.values(), ids=CASES)
def test_an_action_becomes(action: Action, settings: ActionSettings, expected: list[str]) -> None:
    assert _texts(rule_endings(Rule(action=action, id="ab12"), PLACE, settings)) == expected


def test_what_allow_and_pass_become_is_the_place_s_to_say() -> None:
    place = Place(Direction.EGRESS, PLACE.key, on_allow=(nft.NoTrack(), nft.Accept()), on_pass=(nft.Goto("next"),))
    made = [
        rule_endings(Rule(action=one, id="ab12"), place, ActionSettings())[0] for one in (Action.ALLOW, Action.PASS)
    ]
    assert _texts(tuple(made)) == [f"{_count('allow')} notrack accept", f"{_count('pass')} goto next"]


@pytest.mark.parametrize(
    ("action", "expected"),
    [(one, "return") for one in (Action.ALLOW, Action.DENY, Action.PASS)] + [(Action.LOG, "")],
)
def test_a_staged_rule_counts_and_ends_nothing_but_its_policy(action: Action, expected: str) -> None:
    rule = Rule(action=action, id="ab12")
    made = _texts(rule_endings(rule, STAGED, ActionSettings(flow_logs="All")))
    assert made == [f"{_count(action.value.lower(), 'sgnp')} {expected}".strip()]


def test_a_rule_without_effect_has_no_ending_and_no_counter() -> None:
    rule = Rule(action=Action.ALLOW, id="ab12", unenforced=("http",))
    assert rule_endings(rule, PLACE, ActionSettings(flow_logs="All")) == ()


@pytest.mark.parametrize(("reject", "end"), [(False, "drop"), (True, "reject with icmpx type admin-prohibited")])
def test_denied_packets_are_logged_within_a_limit_and_end(reject: bool, end: str) -> None:
    chain = denied_chain(ActionSettings(reject=reject))
    assert chain is not None
    assert [text.rule(one) for one in chain.rules] == [
        'limit rate 200/second burst 400 packets log prefix "weft deny" group 4517 snaplen 128',
        end,
    ]


def test_without_flow_logs_there_is_no_chain_for_them() -> None:
    assert denied_chain(ActionSettings(flow_logs="Disabled")) is None
