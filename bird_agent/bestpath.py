"""Which of several paths to one prefix are best: RFC 4271 section 9.1.2.2 with the tie-breaks of RFC 4456.

Pure. The result is the best path and the paths that are as good as it up to the cost of reaching the next hop, for
equal-cost multipath; only the last tie-breaks (router id, cluster list, address) choose between those. It keeps no
state and knows no kernel: whether a next hop can be reached, and at what cost, is an argument."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from bird_agent.exabgp.events import AsSegment, PathAttributes
from weft.model.address import IPAddress

DEFAULT_LOCAL_PREFERENCE = 100
MAX_MULTIPATH = 16

_Rank = Callable[["Path"], int]


@dataclass(frozen=True, slots=True)
class Peer:
    """What the decision has to know of who sent a path. `local_as` is ours towards it, if it is not the node's, and may
    be in its paths `allowed_own_as` times."""

    address: IPAddress
    router_id: IPv4Address
    asn: int
    internal: bool
    local_as: int | None = None
    allowed_own_as: int = 0


@dataclass(frozen=True, slots=True)
class Path:
    """One path to a prefix, as a peer sent it, or as the import policy left it: with a `preference` of ours."""

    peer: Peer
    next_hop: IPAddress
    attributes: PathAttributes
    preference: int | None = None


@dataclass(frozen=True, slots=True)
class Local:
    """This node: what a path must not have passed already."""

    asn: int
    router_id: IPv4Address
    cluster_id: IPv4Address | None = None


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


def unusable(path: Path, local: Local) -> str | None:
    """Why a path may not be considered, in a network engineer's words; None if it may (RFC 4271 9.1.2, RFC 4456 8)."""
    attributes = path.attributes
    asn = local.asn if path.peer.local_as is None else path.peer.local_as
    own = sum(segment.numbers.count(asn) for segment in attributes.as_path)
    if own > path.peer.allowed_own_as:
        allowed = f", {own} times" if path.peer.allowed_own_as else ""
        return f"AS path contains our own AS {asn}{allowed}"
    if attributes.originator_id == local.router_id:
        return "we are its originator"
    if local.cluster_id is not None and local.cluster_id in attributes.cluster_list:
        return f"cluster list contains our own cluster {local.cluster_id}"
    return None


def select(paths: Sequence[Path], cost: Sequence[int | None]) -> tuple[Path, ...]:
    """The best path first, then those as good as it (at most 16), in the order of the last tie-breaks.

    `cost[i]` is the cost of reaching the next hop of `paths[i]`, None if it cannot be reached. Empty: no path."""
    left = [(path, each) for path, each in zip(paths, cost, strict=True) if each is not None]
    if len(left) > 1:
        left = _lowest(left, lambda path: -local_preference_of(path))
        left = _lowest(left, lambda path: as_path_length(path.attributes.as_path))
        left = _lowest(left, lambda path: path.attributes.origin)
        left = _lowest_med(left)
        left = _lowest(left, lambda path: path.peer.internal)
        cheapest = min((each for _, each in left), default=0)
        left = [(path, each) for path, each in left if each == cheapest]
    return tuple(sorted((path for path, _ in left), key=_last_tie_breaks))[:MAX_MULTIPATH]


def local_preference_of(path: Path) -> int:
    """What the import policy says, else what a peer of our own AS says (RFC 4271 5.1.5)."""
    if path.preference is not None:
        return path.preference
    own = path.attributes.local_preference
    return own if path.peer.internal and own is not None else DEFAULT_LOCAL_PREFERENCE


def _lowest(paths: list[tuple[Path, int]], rank: _Rank) -> list[tuple[Path, int]]:
    best = min(rank(path) for path, _ in paths)
    return [(path, cost) for path, cost in paths if rank(path) == best]


def _lowest_med(paths: list[tuple[Path, int]]) -> list[tuple[Path, int]]:
    """MED compares only between paths from one neighbouring AS; absent is 0 (RFC 4271 9.1.2.2 c)."""
    lowest: dict[int, int] = {}
    for path, _ in paths:
        source, med = neighbor_as(path), path.attributes.med or 0
        lowest[source] = min(med, lowest.get(source, med))
    return [(path, cost) for path, cost in paths if (path.attributes.med or 0) == lowest[neighbor_as(path)]]


def _last_tie_breaks(path: Path) -> tuple[int, int, int, int]:
    originator = path.attributes.originator_id or path.peer.router_id
    address = path.peer.address
    return int(originator), len(path.attributes.cluster_list), address.version, int(address)
