"""What may be written, beyond what a document says of itself: fields that never change, neighbours that clash.

Pure: a rule sees the document, what is stored, and its neighbours, and says what is wrong. Reading neighbours and
writing are the store's. The rules are Calico's (libcalico-go/lib/clientv3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from weft.admin.api import RefusedError
from weft.model.address import IPNetwork
from weft.model.base import Metadata, Resource
from weft.model.errors import ValidationError
from weft.model.names import KUBERNETES_POLICY_PREFIX
from weft.model.node import ClusterInformation, Node
from weft.model.node_status import CalicoNodeStatus
from weft.model.policy import TIER_ORDERS, GlobalNetworkPolicy, NetworkPolicy
from weft.model.pool import IPPool
from weft.model.staged import StagedGlobalNetworkPolicy, StagedNetworkPolicy

TieredPolicy = NetworkPolicy | GlobalNetworkPolicy | StagedNetworkPolicy | StagedGlobalNetworkPolicy

DEFAULT_NAME = "default"


def wrong(field: str, value: object, expected: str) -> ValidationError:
    """The writer of the document is added by whoever knows it."""
    return ValidationError(source="", document=0, field=field, value=value, expected=expected)


def check_by_hand(kind: str, name: str) -> None:
    """Raises RefusedError for what is written as an object of Kubernetes, and only so."""
    if kind == NetworkPolicy.kind and name.startswith(KUBERNETES_POLICY_PREFIX):
        raise RefusedError("kubernetes network policies must be managed through the kubernetes API")


def creation_metadata(given: Metadata, uid: str, now: object) -> Metadata:
    """Only what a person may say survives; identity is new."""
    metadata = Metadata(name=given.name, namespace=given.namespace, labels=given.labels, annotations=given.annotations)
    return msgspec.structs.replace(metadata, uid=uid, creation_timestamp=now)


def update_metadata(stored: Metadata, given: Metadata) -> Metadata:
    """Labels and annotations are the writer's; everything else stays."""
    return msgspec.structs.replace(stored, labels=given.labels, annotations=given.annotations, resource_version="")


def with_status(new: Resource, old: Resource) -> Resource:
    """A status is its node's agent's: it is never in a document and survives every update."""
    match new, old:
        case Node(), Node():
            return msgspec.structs.replace(new, status=old.status)
        case CalicoNodeStatus(), CalicoNodeStatus():
            return msgspec.structs.replace(new, status=old.status)
        case _:
            return new


def check_update(new: Resource, old: Resource) -> None:
    """Raises ValidationError for a field that cannot change."""
    match new, old:
        case IPPool(), IPPool():
            if new.spec.cidr != old.spec.cidr:
                raise wrong("spec.cidr", str(new.spec.cidr), f"{old.spec.cidr}: the CIDR of a pool cannot be modified")
            if new.spec.block_size != old.spec.block_size:
                expected = f"{old.spec.block_size}: the block size of a pool cannot be modified"
                raise wrong("spec.blockSize", new.spec.block_size, expected)
            use = "LoadBalancer"
            if use in old.spec.allowed_uses and set(new.spec.allowed_uses) != {use}:
                raise wrong("spec.allowedUses", list(new.spec.allowed_uses), f"{use}: it cannot be changed to others")
        case ClusterInformation(), ClusterInformation():
            if new.spec.cluster_guid != old.spec.cluster_guid:
                expected = f"{old.spec.cluster_guid}: the identity of a cluster cannot be modified"
                raise wrong("spec.clusterGUID", new.spec.cluster_guid, expected)
        case _:
            pass


def check_pool_overlap(pool: IPPool, others: Iterable[IPPool]) -> None:
    for other in others:
        if other.name != pool.name and overlap(pool.spec.cidr, other.spec.cidr):
            expected = f"a CIDR that does not overlap with IPPool({other.name}) CIDR {other.spec.cidr}"
            raise wrong("spec.cidr", str(pool.spec.cidr), expected)


def check_pool_blocks(pool: IPPool, blocks: Iterable[IPNetwork]) -> None:
    """Blocks that outlived an earlier pool must fit the new one's block size."""
    for block in blocks:
        if block.prefixlen != pool.spec.block_size and overlap(block, pool.spec.cidr):
            expected = f"{block.prefixlen}: block {block} of that size is still in use in this pool"
            raise wrong("spec.blockSize", pool.spec.block_size, expected)


def overlap(left: IPNetwork, right: IPNetwork) -> bool:
    return left.version == right.version and left.overlaps(right)


def check_deletable(resource_kind: str, name: str, policies: Sequence[TieredPolicy]) -> None:
    """Raises RefusedError. `policies` are those there are, asked for only where a tier is deleted."""
    match resource_kind:
        case "ClusterInformation":
            raise RefusedError("operation delete is not supported on ClusterInformation")
        case "Tier":
            if name in TIER_ORDERS:
                raise RefusedError(f"operation delete is not supported on {name}: cannot delete {name} tier")
            if any(policy.spec.tier == name for policy in policies):
                raise RefusedError(f"operation delete is not supported on {name}: cannot delete a non-empty tier")
        case _:
            pass


def warnings(resource: Resource) -> tuple[str, ...]:
    """What is stored as asked but will not have the effect one would expect."""
    if not isinstance(resource, IPPool):
        return ()
    modes = {"ipipMode": resource.spec.ipip_mode, "vxlanMode": resource.spec.vxlan_mode}
    return tuple(
        f"IPPool/{resource.name}: {name} {mode} is not enforced until overlays exist: "
        "its traffic is routed unencapsulated"
        for name, mode in modes.items()
        if mode != "Never"
    )
