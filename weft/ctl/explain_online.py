"""What explain needs of a running cluster: its resources, and what the rules of this node have counted."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from weft.admin.api import ResourceAPI
from weft.ctl.backend import connect, refusal
from weft.ctl.config import Target
from weft.ctl.explain_view import Counts
from weft.ctl.messages import describe
from weft.model.base import Resource
from weft.model.codec import decode_stored
from weft.model.errors import WeftError
from weft.model.keys import ResourceKey

SERVICE = "weft.admin.v1.PolicyService"
KINDS = (
    *("WorkloadEndpoint", "HostEndpoint", "Profile", "Tier", "NetworkPolicy", "GlobalNetworkPolicy"),
    *("StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy"),
    *("NetworkSet", "GlobalNetworkSet", "KubernetesEndpointSlice", "FelixConfiguration", "Node"),
)
"""Everything that policy is made of."""


async def everything(target: Target) -> list[Resource]:
    """Every resource of these kinds. What is stored and cannot be read is not among them."""
    async with connect(target) as backend:
        return await resources_of(backend.resources)


async def resources_of(resources: ResourceAPI) -> list[Resource]:
    listings = await asyncio.gather(*(resources.list(kind) for kind in KINDS))
    found = []
    for listing in listings:
        for item in listing.items:
            value = decode_stored(ResourceKey(item.kind, item.name, item.namespace), item.json)
            if isinstance(value, Resource):
                found.append(value)
    return found


async def counters(socket: Path) -> Counts | None:
    """What rules and ends on this machine have counted; None where no felix answers that counts."""
    if refusal(socket) is not None:
        return None
    from weft.admin.client import AdminClient

    async with AdminClient(socket) as client:
        try:
            counted = await client.counters() if await client.offers(SERVICE) else None
        except WeftError as error:
            print(f"no counters: {describe(error)}", file=sys.stderr)
            return None
    if counted is None:
        return None
    return Counts(
        {
            (rule.direction, policy.policy, rule.id): (rule.count.packets, rule.count.bytes)
            for policy in counted.policies
            for rule in policy.rules
        },
        {(end.direction, end.tier): (end.count.packets, end.count.bytes) for end in counted.ends},
    )
