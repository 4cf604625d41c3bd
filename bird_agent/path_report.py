"""A path as the agent and the reflector tell of it."""

from __future__ import annotations

from ipaddress import IPv6Address

from bird_agent.bestpath import ORIGIN_NAMES, Path, local_preference_of, path_text
from weft.admin.bgp import PathReport
from weft.model.address import IPNetwork


def path_report(prefix: IPNetwork, path: Path, standing: str, reason: str, stale: bool) -> PathReport:
    """One path, with how it stands and why. The zone of a link-local next hop is this node's own affair."""
    known, next_hop = path.attributes, path.next_hop
    large = [":".join(map(str, community)) for community in known.large_communities]
    return PathReport(
        prefix=prefix,
        peer=path.peer.address,
        next_hop=IPv6Address(int(next_hop)) if isinstance(next_hop, IPv6Address) else next_hop,
        standing=standing,
        reason=reason,
        as_path=path_text(known.as_path),
        origin=ORIGIN_NAMES[known.origin],
        local_preference=local_preference_of(path),
        med=known.med,
        communities=(*(f"{high}:{low}" for high, low in known.communities), *large),
        originator_id=known.originator_id,
        cluster_list=known.cluster_list,
        stale=stale,
    )
