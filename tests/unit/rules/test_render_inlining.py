"""Where the rules of a policy are written: in the chain that asks it, or in a chain of its own."""

import pytest

from felix.calc.delta import LocalEndpoint, NodeDelta
from felix.rules import render_names as names
from felix.rules.changes import Changes
from felix.rules.render import Renderer
from felix.rules.values import Chain, CountIn
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction, EndpointPolicy, Policy, Rule, TierPolicies

KEY = ResourceKey("GlobalNetworkPolicy", "web")
OTHER = ResourceKey("GlobalNetworkPolicy", "other")
STAGED = ResourceKey("StagedGlobalNetworkPolicy", "web")


def allowing(key: ResourceKey, count: int, action: Action = Action.ALLOW) -> Policy:
    rules = tuple(Rule(action=action, id=f"r{number}", protocol=6 + 11 * (number % 2)) for number in range(count))
    return Policy(key=key, ingress=rules, egress=None)


def endpoint(name: str, *asked: ResourceKey) -> LocalEndpoint:
    policy = EndpointPolicy((TierPolicies("default", Action.DENY, ingress=asked),))
    return LocalEndpoint(ResourceKey("WorkloadEndpoint", name, "one"), name, (), "", policy)


def counting(chains: dict[str, Chain], counter: str) -> set[str]:
    """The chains with a rule that counts in it."""
    return {
        chain.name
        for chain in chains.values()
        for rule in chain.rules
        if any(isinstance(one, CountIn) and one.counter.startswith(counter) for one in rule.statements)
    }


class Table:
    def __init__(self) -> None:
        self.renderer = Renderer()
        self.chains: dict[str, Chain] = {}

    def add(self, **delta: object) -> Changes:
        changes = self.renderer.render(NodeDelta(**delta))  # type: ignore[arg-type]
        for name, chain in changes.chains.items():
            if chain is None:
                self.chains.pop(name, None)
            else:
                self.chains[name] = chain
        return changes

    def where(self, key: ResourceKey) -> set[str]:
        return {name.split("/")[1] for name in counting(self.chains, names.policy_chain(Direction.INGRESS, key))}


def test_a_short_policy_is_written_where_it_is_asked_until_another_chain_asks_it_too() -> None:
    table = Table()
    table.add(policies={KEY: allowing(KEY, 2), OTHER: allowing(OTHER, 1)}, endpoints={"cali1": endpoint("cali1", KEY)})
    assert table.where(KEY) == {"endpoint"}
    table.add(endpoints={"cali2": endpoint("cali2", KEY)})
    assert table.where(KEY) == {"endpoint"}, "a replica shares the chain"
    table.add(endpoints={"cali3": endpoint("cali3", KEY, OTHER)})
    assert table.where(KEY) == {"gnp"}
    assert table.where(OTHER) == {"endpoint"}
    table.add(endpoints={"cali3": None})
    assert table.where(KEY) == {"endpoint"}


@pytest.mark.parametrize("between", [1, 5, 40])
def test_it_comes_back_however_many_chains_asked_it_meanwhile(between: int) -> None:
    table = Table()
    keys = [ResourceKey("GlobalNetworkPolicy", f"p{number}") for number in range(between)]
    policies = {key: allowing(key, 1) for key in (KEY, *keys)}
    table.add(policies=policies, endpoints={"cali0": endpoint("cali0", KEY)})
    alone = dict(table.chains)
    others = {f"caliX{number}": endpoint(f"caliX{number}", KEY, key) for number, key in enumerate(keys)}
    table.add(endpoints=others)
    assert table.where(KEY) == {"gnp"}
    table.add(endpoints=dict.fromkeys(others))
    assert table.chains == alone


def test_a_change_of_length_moves_it() -> None:
    table = Table()
    table.add(policies={KEY: allowing(KEY, 4)}, endpoints={"cali1": endpoint("cali1", KEY)})
    assert table.where(KEY) == {"endpoint"}
    table.add(policies={KEY: allowing(KEY, 5)})
    assert table.where(KEY) == {"gnp"}
    table.add(policies={KEY: allowing(KEY, 1)})
    assert table.where(KEY) == {"endpoint"}


def test_a_staged_policy_keeps_a_chain_of_its_own_because_its_rules_return() -> None:
    table = Table()
    table.add(policies={STAGED: allowing(STAGED, 1)}, endpoints={"cali1": endpoint("cali1", STAGED)})
    assert "endpoint" not in table.where(STAGED)
    assert table.where(STAGED)
