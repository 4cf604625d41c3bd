"""Random nft values, as Hypothesis strategies: rules, sets, whole tables that the kernel accepts."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from felix.rules import values as v

SIDES = st.sampled_from(v.Side)
WAYS = st.sampled_from(v.Way)
VERSIONS: SearchStrategy[v.IPVersion] = st.sampled_from([4, 6])
INTERFACES = ("cali0", "cali1", "cali2", "eth0", "weftdel7")
MASKS = st.sampled_from([0xFFFFFFFF, 0xFF00, 0x80000000, 1])


@st.composite
def networks(draw: st.DrawFn, version: v.IPVersion) -> v.IPNetwork:
    """Many that nest, touch or are the same; also /0 and the very last address."""
    kind, bits = (IPv4Network, 32) if version == 4 else (IPv6Network, 128)
    length = draw(st.sampled_from([0, 1, 2, 8, 9, 24, 30, 31, bits - 1, bits, bits]))
    high = draw(st.sampled_from([0, 0x0A, 0x80, 0xFD, 0xFF])) << (bits - 8)
    address = high | draw(st.sampled_from([0, 1, 2, 3, 1 << (bits - 9), (1 << (bits - 8)) - 1]))
    return kind((address >> (bits - length) << (bits - length), length))  # type: ignore[arg-type]


port_ranges = st.tuples(
    st.sampled_from([0, 1, 80, 81, 443, 1000, 65534, 65535]), st.sampled_from([0, 0, 1, 100, 65535])
).map(lambda p: v.PortRange(p[0], min(p[0] + p[1], 65535)))


@st.composite
def services(draw: st.DrawFn, version: v.IPVersion) -> v.AddressPort:
    address = (IPv4Address if version == 4 else IPv6Address)(draw(st.integers(1, 4)))
    return v.AddressPort(address, draw(st.sampled_from([v.TCP, v.UDP])), draw(st.sampled_from([53, 80])))


def members(key: v.KeyType) -> SearchStrategy[v.Member]:
    strategies: dict[v.KeyType, SearchStrategy[Any]] = {
        v.KeyType.ADDRESS_V4: st.integers(1, 6).map(IPv4Address),
        v.KeyType.ADDRESS_V6: st.integers(1, 6).map(IPv6Address),
        v.KeyType.NETWORK_V4: networks(4),
        v.KeyType.NETWORK_V6: networks(6),
        v.KeyType.PORT: port_ranges,
        v.KeyType.SERVICE_V4: services(4),
        v.KeyType.SERVICE_V6: services(6),
    }
    return strategies[key]


@st.composite
def sets(draw: st.DrawFn, name: str) -> v.Set:
    key = draw(st.sampled_from(v.KeyType))
    return v.Set(name, key, draw(st.frozensets(members(key), max_size=6)))


plain_matches: SearchStrategy[v.Statement] = st.one_of(
    st.builds(v.Interface, WAYS, st.sampled_from([*INTERFACES, "cali*", "weftdel*"]), st.booleans()),
    st.builds(
        v.ConntrackState,
        st.lists(st.sampled_from(["established", "related", "new", "invalid"]), min_size=1, unique=True).map(tuple),
        st.booleans(),
    ),
    st.builds(v.ConntrackStatus, st.just(("dnat",)), st.booleans()),
    st.builds(lambda m, n: v.Mark(0x100 & m, m, n), MASKS, st.booleans()),
    st.builds(lambda m, n: v.ConntrackMark(0x100 & m, m, n), MASKS, st.booleans()),
    st.builds(v.AddressType, SIDES, st.sampled_from(["local", "unicast", "multicast"]), st.booleans()),
    st.builds(v.Counter),
    st.builds(v.CountIn, st.sampled_from(["ingress/np/a/b/1", "ingress/np/a/b/2", "egress/gnp/c/3"])),
    st.builds(v.Limit, st.sampled_from([1, 200]), st.sampled_from([1, 400]), st.sampled_from([1, 60, 86400])),
    st.builds(v.Log, st.sampled_from(["", "denied: "]), st.sampled_from([None, 0, 3])),
    st.builds(v.Log, st.just(""), st.just(7), st.just(128)),
    st.builds(lambda m: v.SetMark(0x100 & m, m), MASKS),
    st.builds(lambda m: v.SetConntrackMark(0x100 & m, m), MASKS),
)


@st.composite
def rules(draw: st.DrawFn, jumps: tuple[str, ...] = (), looked_up: tuple[v.Set, ...] = ()) -> v.Rule:
    """A rule that the kernel accepts in a forward chain, with jumps and lookups to what is given."""
    version = draw(VERSIONS)
    statements: list[v.Statement] = draw(st.lists(plain_matches, max_size=2))
    if draw(st.booleans()):
        nets = draw(st.lists(networks(version), min_size=1, max_size=4))
        statements.append(v.Address(draw(SIDES), tuple(nets), draw(st.booleans())))
    named = draw(st.sampled_from((None, *looked_up)))
    if named is not None:
        statements += draw(_lookup(named, version))
    kind = draw(st.sampled_from(["none", "ports", "icmp", "other"]))
    if kind == "ports":
        ranges = draw(st.lists(port_ranges, min_size=1, max_size=3))
        statements.append(v.L4Protocol(draw(st.sampled_from([v.TCP, v.UDP, v.SCTP]))))
        statements.append(v.Ports(draw(SIDES), tuple(ranges), draw(st.booleans())))
    elif kind == "icmp":
        statements.append(v.L4Protocol(v.ICMP if version == 4 else v.ICMPV6))
        code = draw(st.sampled_from([None, 0, 1]))
        statements.append(v.IcmpType(draw(st.sampled_from([3, 8, 128])), code, draw(st.booleans())))
    elif kind == "other":
        statements.append(v.L4Protocol(draw(st.sampled_from([v.TCP, 47, 2])), draw(st.booleans())))
    verdicts: list[v.Verdict] = [v.Accept(), v.Drop(), v.Return(), *map(v.Jump, jumps), *map(v.Goto, jumps)]
    statements.append(draw(st.sampled_from(verdicts)))
    return v.Rule(tuple(statements), draw(st.sampled_from(["", "", "default/allow-dns"])))


def _lookup(named: v.Set, version: v.IPVersion) -> SearchStrategy[list[v.Statement]]:
    name, key = named.name, named.key
    if key is v.KeyType.PORT:
        port = st.builds(v.PortInSet, SIDES, st.just(name), st.booleans())
        return port.map(lambda match: [v.L4Protocol(v.TCP), match])
    if not key.value.endswith(str(version)):
        return st.just([])
    build = v.ServiceInSet if key.value.startswith("service") else v.AddressInSet
    return st.builds(build, SIDES, st.just(name), st.just(version), st.booleans()).map(lambda match: [match])


@st.composite
def tables(draw: st.DrawFn) -> v.Table:
    """A few chains, sets and maps of few names, so that two tables share most names and differ in content."""
    found = tuple(draw(sets(name)) for name in draw(st.sets(st.sampled_from(["s1", "s2"]), max_size=2)))
    leaves = sorted(draw(st.sets(st.sampled_from(["pol-a", "pol-b", "pol-c"]), max_size=3)))
    chains = [v.Chain(name, tuple(draw(st.lists(rules((), found), max_size=2)))) for name in leaves]
    ends = sorted(draw(st.sets(st.sampled_from(["fw-cali0", "fw-cali1"]), max_size=2)))
    for name in ends:
        chains.append(v.Chain(name, tuple(draw(st.lists(rules(tuple(leaves), found), max_size=2)))))
    targets: list[v.Verdict] = [v.Drop(), v.Accept(), *map(v.Goto, ends)]
    maps = []
    forward: list[v.Rule] = [v.rule(v.ConntrackState(("established",)), v.Accept())]
    if draw(st.booleans()):
        entries = draw(st.dictionaries(st.sampled_from(INTERFACES), st.sampled_from(targets), max_size=3))
        maps.append(v.VerdictMap("from-endpoint", entries))
        forward.append(v.rule(v.InterfaceVerdict(v.Way.IN, "from-endpoint")))
    if draw(st.booleans()):
        priority = draw(st.sampled_from([0, 1]))
        hook = v.Hook("filter", "forward", priority, draw(st.sampled_from(["accept", "drop"])))
        chains.append(v.Chain("forward", tuple(forward), hook))
    return v.Table.of(chains, found, maps)
