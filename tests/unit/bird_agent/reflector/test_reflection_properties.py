"""Every peer ends with exactly what RFC 4456 says, however it came to that: held to a naive oracle."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from bird_agent.exabgp.events import AsSegment, PathAttributes
from bird_agent.reflector.prefixes import IPV4, nlri_of
from tests.unit.bird_agent.reflector.world import CLUSTER, LOCAL_AS, Script, World, attributes, plan, session

CLIENTS = ["10.0.0.11", "10.0.0.12", "10.0.0.13"]
OTHERS = ["10.0.0.21", "10.0.0.22"]
EXTERNAL = ["10.0.0.31", "10.0.0.32"]
ASNS = {"10.0.0.31": 65001, "10.0.0.32": 65002}
PEERS = [*CLIENTS, *OTHERS, *EXTERNAL]
PREFIXES = ["10.65.0.0/26", "10.65.1.0/26"]


@dataclass(frozen=True)
class Said:
    """A path as a peer announces it."""

    preference: int = 100
    as_path: tuple[int, ...] = ()
    med: int | None = None
    originator: str | None = None
    clusters: tuple[str, ...] = ()
    communities: tuple[tuple[int, int], ...] = ()

    def fields(self, peer: str) -> dict[str, object]:
        if peer in EXTERNAL:
            return {
                "as_path": (ASNS[peer], *self.as_path),
                "med": self.med,
                "communities": self.communities,
            }
        return {
            "local_preference": self.preference,
            "as_path": self.as_path,
            "med": self.med,
            "originator_id": None if self.originator is None else IPv4Address(self.originator),
            "cluster_list": tuple(map(IPv4Address, self.clusters)),
            "communities": self.communities,
        }


paths = st.builds(
    Said,
    preference=st.sampled_from([100, 200]),
    as_path=st.sampled_from([(), (65100,), (65100, 65101), (LOCAL_AS,)]),
    med=st.sampled_from([None, 10]),
    originator=st.sampled_from([None, None, "10.0.0.99", "10.0.0.1"]),
    clusters=st.sampled_from([(), (), ("2.2.2.2",), ("2.2.2.2", str(CLUSTER))]),
    communities=st.sampled_from([(), (), ((65535, 65281),), ((65535, 65282),), ((64512, 7),)]),
)
steps = st.lists(
    st.tuples(st.sampled_from(PEERS), st.sampled_from(PREFIXES), st.none() | paths, st.booleans()), max_size=14
)
State = dict[tuple[str, str], Said]


def kind(peer: str) -> str:
    return "client" if peer in CLIENTS else "external" if peer in EXTERNAL else "other"


def expected(state: State, prefix: str, peer: str) -> tuple[PathAttributes, str] | None:
    """What the peer has to be told: attributes and next hop."""
    usable = []
    for (source, of), said in state.items():
        if of != prefix:
            continue
        internal, fields = source not in EXTERNAL, said.fields(source)
        numbers = fields["as_path"]
        if LOCAL_AS in numbers or fields.get("originator_id") == CLUSTER or CLUSTER in fields.get("cluster_list", ()):
            continue
        originator = fields.get("originator_id") or IPv4Address(source)
        usable.append((source, internal, fields, numbers, originator))
    if not usable:
        return None

    def preference(one: tuple) -> int:  # type: ignore[type-arg]
        return one[2].get("local_preference", 100)

    highest = max(map(preference, usable))
    usable = [one for one in usable if preference(one) == highest]
    shortest = min(len(one[3]) for one in usable)
    usable = [one for one in usable if len(one[3]) == shortest]
    lowest: dict[int, int] = {}
    for one in usable:
        neighbour = one[3][0] if one[3] else 0
        lowest[neighbour] = min(lowest.get(neighbour, 1 << 32), one[2]["med"] or 0)
    usable = [one for one in usable if (one[2]["med"] or 0) == lowest[one[3][0] if one[3] else 0]]
    if not all(one[1] for one in usable):
        usable = [one for one in usable if not one[1]]
    source, internal, fields, numbers, originator = min(
        usable, key=lambda one: (int(one[4]), len(one[2].get("cluster_list", ())), int(ip_address(one[0])))
    )
    communities = fields["communities"]
    if source == peer or (kind(source) == "other" and kind(peer) == "other") or (65535, 65282) in communities:
        return None
    if kind(peer) == "external":
        if (65535, 65281) in communities:
            return None
        segments = (AsSegment("as-sequence", (LOCAL_AS, *numbers)),)
        return PathAttributes(origin=0, as_path=segments, communities=communities), "10.0.0.1"
    return (
        PathAttributes(
            origin=0,
            as_path=(AsSegment("as-sequence", numbers),) if numbers else (),
            local_preference=highest,
            med=fields["med"],
            originator_id=originator if internal else None,
            cluster_list=(CLUSTER, *fields["cluster_list"]) if internal else (),
            communities=communities,
        ),
        source,
    )


def build() -> tuple[World, dict[str, Script]]:
    sessions = [session(peer, peer in CLIENTS, ASNS.get(peer, LOCAL_AS)) for peer in PEERS]
    world = World(plan(*sessions))
    return world, {str(script.address): script for script in world.start()}


@settings(max_examples=120, deadline=None)
@given(steps)
def test_every_peer_ends_with_what_rfc_4456_says_whatever_the_order(
    history: list[tuple[str, str, Said | None, bool]],
) -> None:
    world, scripts = build()
    state: State = {}
    for peer, prefix, said, reads in history:
        script = scripts[peer]
        if said is None:
            state.pop((peer, prefix), None)
            world.withdraw(script, [prefix])
        else:
            state[peer, prefix] = said
            world.announce(script, [prefix], attributes(world.sets, **said.fields(peer)))
        if reads:
            world.read(script)
        else:
            script.reads = False
    for script in scripts.values():
        world.read(script)
    for peer, script in scripts.items():
        wanted = {(IPV4, nlri_of(ip_network(prefix))): expected(state, prefix, peer) for prefix in PREFIXES}
        got = {key: (known.path, str(next_hop)) for key, (known, next_hop) in script.table.items()}
        assert got == {key: each for key, each in wanted.items() if each is not None}, peer


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.tuples(st.sampled_from(PEERS), st.sampled_from(PREFIXES)), paths, max_size=8),
    st.randoms(use_true_random=False),
)
def test_the_order_of_updates_leaves_no_trace(state: State, random: object) -> None:
    tables = []
    for _ in range(2):
        world, scripts = build()
        ways = list(state.items())
        random.shuffle(ways)  # type: ignore[attr-defined]
        for (peer, prefix), said in ways:
            world.announce(scripts[peer], [prefix], attributes(world.sets, **said.fields(peer)))
        tables.append(
            {
                peer: {key: (known.wire, next_hop) for key, (known, next_hop) in script.table.items()}
                for peer, script in scripts.items()
            }
        )
    assert tables[0] == tables[1]
