"""Members of sets: one more in a large set, and a thousand that change sets at once.

One more: a set of 100,000 addresses and one of 100,000 prefixes, beside `nft -f` and libnftables on the same sets; a
`get element` afterwards finds the last ones added. A thousand: a profile's labelsToApply change for 1,000 endpoints
elsewhere, so that the set of one label value loses them and that of another gets them; timed from the resource to the
commit, beside rivals that are given nothing but the finished list of members, for sets of their own with the same
members. Afterwards both pairs of sets must be equal."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network

from felix.calc.ip_sets import SetKey, SetKind
from felix.rules import render_names as names
from felix.rules import values as v
from felix.rules.changes import Changes, MemberChange
from lab.netns import run
from tests.bench.cluster import Node, workload
from tests.bench.nft_rivals import Contenders, contenders, has_element, milliseconds
from tests.bench.result import Result, pairs
from weft.model.base import Metadata, Resource
from weft.model.policy import EntityRule, GlobalNetworkPolicy, GlobalNetworkPolicySpec, Profile, ProfileSpec, Rule
from weft.policy.selectors import selector_set
from weft.selector import parse

MEMBERS = 100_000
MOVED, OTHERS = 1_000, 10_000
COLOURS = ("red", "blue")


def set_member() -> list[Result]:
    """Each set in a table of its own: what a rival reads first depends on the other sets of the table."""
    first = 0x0A000000
    addresses = frozenset(IPv4Address(first + number) for number in range(MEMBERS))
    networks = frozenset(IPv4Network((first + 2 * number, 32)) for number in range(MEMBERS))
    results = []
    with contenders("hosts", v.Table.of(sets=[v.Set("members", v.KeyType.ADDRESS_V4, addresses)])) as all_of_them:
        results += _one_more(all_of_them, IPv4Address, "addresses", 0.1)
    with contenders("nets", v.Table.of(sets=[v.Set("members", v.KeyType.NETWORK_V4, networks)])) as all_of_them:
        results += _one_more(all_of_them, IPv4Network, "prefixes", 5.0)
    return results


def _one_more(
    all_of_them: Contenders, kind: type[IPv4Address] | type[IPv4Network], what: str, bar_ms: float
) -> list[Result]:
    numbers = itertools.count(0x0B000000, 2)

    def ours() -> float:
        added: frozenset[v.Member] = frozenset({kind(next(numbers))})
        return milliseconds(lambda: all_of_them.driver.apply(Changes(members={"members": MemberChange(added)}), 0.0))

    results = []
    for rival, change in all_of_them.rivals.items():

        def theirs(change: Callable[[str], None] = change) -> float:
            script = f"add element inet weft members {{ {IPv4Address(next(numbers))} }}"
            return milliseconds(lambda: change(script))

        measured = pairs(ours, theirs)
        title = f"one more of {MEMBERS:,} {what} in a set"
        results.append(measured.result(title, rival, "ms", f"median under {bar_ms} ms", lambda ms, _: ms < bar_ms))
    unused = IPv4Address(next(numbers))
    assert all(has_element("members", unused - 2 * back) for back in range(1, 4))
    assert not has_element("members", unused)
    return results


def label_change() -> list[Result]:
    """Both ways in turn: red to blue, and back."""
    node = Node(_two_colours())
    ours = [node.first.sets[_set_of(colour)] for colour in COLOURS]
    theirs = [v.Set(f"theirs-{one.name}", one.key, one.members) for one in ours]
    sets = {one.name: one for one in (*node.first.sets.values(), *theirs)}
    results = []
    with contenders("labels", v.Table(node.first.chains, sets, node.first.maps)) as all_of_them:
        for rival, change in all_of_them.rivals.items():
            colours, scripts = itertools.cycle(reversed(COLOURS)), itertools.cycle(_moves([one.name for one in theirs]))

            def mine(colours: Iterator[str] = colours) -> float:
                profile = _profile(next(colours))
                return milliseconds(lambda: all_of_them.driver.apply(node.change(profile), 0.0))

            def its(change: Callable[[str], None] = change, scripts: Iterator[str] = scripts) -> float:
                script = next(scripts)
                return milliseconds(lambda: change(script))

            measured = pairs(mine, its, 11)  # with the warm-up an even number: back where it began
            name = f"a profile's labels change: {MOVED:,} members from one set to another"
            results.append(measured.result(name, rival, "ms", "none, shown for comparison", lambda _ms, _ratio: True))
            _check(ours, theirs)
        all_of_them.driver.apply(node.change(_profile("blue")), 0.0)
        change(next(_moves([one.name for one in theirs])))
        _check(ours, theirs)
    return results


def _check(ours: list[v.Set], theirs: list[v.Set]) -> None:
    for mine, its in zip(ours, theirs, strict=True):
        assert _elements(mine.name) == _elements(its.name)


def _elements(name: str) -> set[str]:
    listing = json.loads(run(["nft", "-j", "list", "set", "inet", "weft", name]))
    return set(listing["nftables"][-1]["set"]["elem"])


def _profile(colour: str) -> Profile:
    return Profile(metadata=Metadata(name="moved"), spec=ProfileSpec(labels_to_apply={"colour": colour}))


def _two_colours() -> Iterable[Resource]:
    """One workload here that lets both colours in; elsewhere as many that keep each of them, and the thousand."""
    rules = tuple(Rule(action="Allow", source=EntityRule(selector=f"colour == '{colour}'")) for colour in COLOURS)
    spec = GlobalNetworkPolicySpec(selector="app == 'a0'", ingress=rules)
    yield GlobalNetworkPolicy(metadata=Metadata(name="colours"), spec=spec)
    yield _profile("red")
    yield workload(0, here=True)
    for number in range(1, MOVED + 1):
        yield workload(number, here=False, profiles=("moved",))
    for number in range(MOVED + 1, MOVED + OTHERS + 1):
        yield workload(number, here=False, colour=COLOURS[number % 2])


def _set_of(colour: str) -> str:
    chosen = selector_set(parse(f"colour == '{colour}'"))
    return names.selector_set(SetKey(chosen.id, 4), SetKind.ADDRESSES)


def _moves(sets: list[str]) -> Iterator[str]:
    """The scripts that bring the thousand from the first set to the second, and back."""
    elements = ", ".join(str(workload(number, here=False).spec.ip_networks[0][0]) for number in range(1, MOVED + 1))
    for source, target in (sets, reversed(sets)):
        yield (f"delete element inet weft {source} {{ {elements} }}\nadd element inet weft {target} {{ {elements} }}\n")


BENCHMARKS = {"set-member": set_member, "label-change": label_change}
