"""Which of several paths to one prefix are best: RFC 4271 section 9.1.2.2 with the tie-breaks of RFC 4456.

Pure. The result is the best path and the paths that are as good as it up to the cost of reaching the next hop, for
equal-cost multipath; only the last tie-breaks (router id, cluster list, address) choose between those. `explain` says
why. It keeps no state and knows no kernel: whether a next hop can be reached, and at what cost, is an argument."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from ipaddress import IPv4Address
from typing import Final

from msgspec import Struct

from bird_agent.exabgp.events import AsSegment, PathAttributes
from weft.model.address import IPAddress

DEFAULT_LOCAL_PREFERENCE = 100
MAX_MULTIPATH = 16


class Peer(Struct, frozen=True):
    """What the decision has to know of who sent a path. `local_as` is ours towards it, if it is not the node's, and may
    be in its paths `allowed_own_as` times."""

    address: IPAddress
    router_id: IPv4Address
    asn: int
    internal: bool
    local_as: int | None = None
    allowed_own_as: int = 0


class Path(Struct, frozen=True):
    """One path to a prefix, as a peer sent it, or as the import policy left it: with a `preference` of ours."""

    peer: Peer
    next_hop: IPAddress
    attributes: PathAttributes
    preference: int | None = None


class Local(Struct, frozen=True):
    """This node: what a path must not have passed already, nor lead to."""

    asn: int
    router_id: IPv4Address
    cluster_id: IPv4Address | None = None
    addresses: frozenset[IPAddress] = frozenset()


def as_path_length(segments: Sequence[AsSegment]) -> int:
    """Sets count once, confederation segments not at all (RFC 4271 9.1.2.2 a, RFC 5065 5.3)."""
    length = 0
    for segment in segments:
        if segment.kind == "as-sequence":
            length += len(segment.numbers)
        elif segment.kind == "as-set":
            length += 1
    return length


def neighbor_as(path: Path) -> int:
    """The AS the path was learnt from: the first of a leading sequence, else the local one (0)."""
    for segment in path.attributes.as_path:
        if segment.kind == "as-sequence" and segment.numbers:
            return segment.numbers[0]
        if segment.kind == "as-set":
            return 0
    return 0


WELL_FORMED_ORIGINS: Final = range(3)


def unusable(path: Path, local: Local) -> str | None:
    """Why a path may not be considered, in a network engineer's words; None if it may (RFC 4271 6.3 and 9.1.2, RFC
    4456 8)."""
    attributes = path.attributes
    if attributes.origin not in WELL_FORMED_ORIGINS:
        return "its ORIGIN is malformed"  # as good as withdrawn, as what follows: RFC 7606 3 d, 7.1
    if not (attributes.as_path or path.peer.internal):
        return "a path from another AS without any AS number"
    asn = local.asn if path.peer.local_as is None else path.peer.local_as
    own = 0
    for segment in attributes.as_path:
        own += segment.numbers.count(asn)
    if own > path.peer.allowed_own_as:
        allowed = f", {own} times" if path.peer.allowed_own_as else ""
        return f"AS path contains our own AS {asn}{allowed}"
    if attributes.originator_id == local.router_id:
        return "we are its originator"
    if local.cluster_id is not None and local.cluster_id in attributes.cluster_list:
        return f"cluster list contains our own cluster {local.cluster_id}"
    hop = path.next_hop
    if hop in local.addresses:
        return f"its next hop {hop} is this node"
    if hop.is_unspecified or hop.is_multicast or hop.is_loopback:
        return f"its next hop {hop} is no host's address"
    return None


def path_text(segments: tuple[AsSegment, ...]) -> str:
    """As BIRD and FRR print it: a set in braces."""
    parts = []
    for segment in segments:
        numbers = " ".join(map(str, segment.numbers))
        parts.append(f"{{{numbers}}}" if segment.kind == "as-set" else numbers)
    return " ".join(parts)


def select(paths: Sequence[Path], cost: Sequence[int | None]) -> tuple[Path, ...]:
    """The best path first, then those as good as it (at most 16), in the order of the last tie-breaks.

    `cost[i]` is the cost of reaching the next hop of `paths[i]`, None if it cannot be reached. Empty: no path."""
    left = [(path, each) for path, each in zip(paths, cost, strict=True) if each is not None]
    if len(left) < 2:  # as for nearly every prefix of a large table
        return tuple(path for path, _ in left)
    for step in _STEPS:
        left = step.keep(left)
    return tuple(sorted((path for path, _ in left), key=_last_tie_breaks))[:MAX_MULTIPATH]


class Rank(Enum):
    """How a path fared."""

    BEST = "best"
    USED = "used beside the best"
    LOST = "not used"
    UNREACHABLE = "unreachable"


class Standing(Struct, frozen=True):
    """How one path fared, and why, in a network engineer's words."""

    path: Path
    rank: Rank
    reason: str


def explain(paths: Sequence[Path], cost: Sequence[int | None]) -> tuple[Standing, ...]:
    """What `select` does with the same arguments, said of each path; the best first."""
    chosen = select(paths, cost)
    left = [(path, each) for path, each in zip(paths, cost, strict=True) if each is not None]
    found = [Standing(path, Rank.UNREACHABLE, f"next hop {path.next_hop} cannot be reached") for path in paths]
    decided = "the only path that can be used"
    for step in _STEPS:
        kept = step.keep(left) if left else []
        for path, each in left:
            if (path, each) in kept:
                continue
            rivals = [one for one in kept if not step.within_one_as or neighbor_as(one[0]) == neighbor_as(path)]
            winner, winners_cost = (rivals or kept)[0]
            against = f"{step.show(path, each)} against {step.show(winner, winners_cost)} from {winner.peer.address}"
            found[_index(paths, path)] = Standing(path, Rank.LOST, f"{step.name} {against}")
            decided = f"better {step.name}"
        left = kept
    for position, path in enumerate(sorted((path for path, _ in left), key=_last_tie_breaks)):
        if position == 0:
            reason = decided if len(left) == 1 else f"first of {len(left)} equally good ones by router id"
            found[_index(paths, path)] = Standing(path, Rank.BEST, reason)
        elif path in chosen:
            found[_index(paths, path)] = Standing(path, Rank.USED, "as good as the best")
        else:
            text = f"as good as the best, but no more than {MAX_MULTIPATH} are used"
            found[_index(paths, path)] = Standing(path, Rank.LOST, text)
    order = list(Rank)
    return tuple(sorted(found, key=lambda one: (order.index(one.rank), _last_tie_breaks(one.path))))


def _index(paths: Sequence[Path], path: Path) -> int:
    return next(index for index, one in enumerate(paths) if one is path)


def local_preference_of(path: Path) -> int:
    """What the import policy says, else what a peer of our own AS says (RFC 4271 5.1.5)."""
    if path.preference is not None:
        return path.preference
    own = path.attributes.local_preference
    return own if path.peer.internal and own is not None else DEFAULT_LOCAL_PREFERENCE


_Reached = tuple[Path, int]
"""A path and the cost of its next hop."""


class _Step(Struct, frozen=True):
    """One comparison: `keep` the best of some, `show` what was compared."""

    name: str
    keep: Callable[[list[_Reached]], list[_Reached]]
    show: Callable[[Path, int], str]
    within_one_as: bool = False


def _lowest(rank: Callable[[Path, int], int]) -> Callable[[list[_Reached]], list[_Reached]]:
    def keep(paths: list[_Reached]) -> list[_Reached]:
        best = min(rank(*one) for one in paths)
        return [one for one in paths if rank(*one) == best]

    return keep


def _lowest_med(paths: list[_Reached]) -> list[_Reached]:
    """MED compares only between paths from one neighbouring AS; absent is 0 (RFC 4271 9.1.2.2 c)."""
    lowest: dict[int, int] = {}
    for path, _ in paths:
        source, med = neighbor_as(path), path.attributes.med or 0
        lowest[source] = min(med, lowest.get(source, med))
    return [(path, cost) for path, cost in paths if (path.attributes.med or 0) == lowest[neighbor_as(path)]]


ORIGIN_NAMES = ("IGP", "EGP", "incomplete")
_STEPS = (
    _Step(
        "local preference",
        _lowest(lambda path, _: -local_preference_of(path)),
        lambda path, _: str(local_preference_of(path)),
    ),
    _Step(
        "AS path length",
        _lowest(lambda path, _: as_path_length(path.attributes.as_path)),
        lambda path, _: str(as_path_length(path.attributes.as_path)),
    ),
    _Step(
        "origin", _lowest(lambda path, _: path.attributes.origin), lambda path, _: ORIGIN_NAMES[path.attributes.origin]
    ),
    _Step("MED", _lowest_med, lambda path, _: str(path.attributes.med or 0), within_one_as=True),
    _Step(
        "kind of session",
        _lowest(lambda path, _: path.peer.internal),
        lambda path, _: "iBGP" if path.peer.internal else "eBGP",
    ),
    _Step("cost of the next hop", _lowest(lambda _, cost: cost), lambda _, cost: str(cost)),
)


def _last_tie_breaks(path: Path) -> tuple[int, int, int, int]:
    originator = path.attributes.originator_id or path.peer.router_id
    address = path.peer.address
    return int(originator), len(path.attributes.cluster_list), address.version, int(address)
