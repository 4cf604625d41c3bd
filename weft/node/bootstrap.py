"""First start of a cluster: create what Calico's first node creates, once, whoever comes first.

Everything is created only if it is absent, so a second start, a second node and an administrator's own values all win
over these defaults. What Calico's nodes would want and we do not (a Calico version) is left out.
"""

import logging
import uuid
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from weft.config import AgentConfig, PoolConfig
from weft.datastore.base import Datastore
from weft.model import codec, keys
from weft.model.base import Metadata, Resource
from weft.model.errors import AlreadyExistsError, ConflictError, ValidationError
from weft.model.felix_configuration import FelixConfiguration, FelixConfigurationSpec
from weft.model.node import ClusterInformation, ClusterInformationSpec
from weft.model.policy import Tier, TierSpec
from weft.model.pool import IPPool, IPPoolSpec

log = logging.getLogger(__name__)

ATTEMPTS = 5
TIERS: Final[tuple[tuple[str, float, Literal["Deny", "Pass"]], ...]] = (
    ("default", 1_000_000.0, "Deny"),
    ("kube-admin", 1_000.0, "Pass"),
    ("kube-baseline", 10_000_000.0, "Pass"),
)


def new_metadata(name: str) -> Metadata:
    """The metadata of a resource that is created now."""
    now = datetime.now(UTC).replace(microsecond=0)
    return Metadata(name=name, uid=str(uuid.uuid4()), creation_timestamp=now)


async def prepare_datastore(store: Datastore, config: AgentConfig) -> None:
    """Create what is missing. Raises `DatastoreUnavailableError`."""
    await _ensure_cluster_information(store)
    wanted: list[Resource] = [
        Tier(metadata=new_metadata(name), spec=TierSpec(order=order, default_action=action))
        for name, order, action in TIERS
    ]
    # As Calico's node does: workloads may talk to their host unless the host's own rules forbid it.
    wanted.append(
        FelixConfiguration(
            metadata=new_metadata(f"node.{config.node_name}"),
            spec=FelixConfigurationSpec(default_endpoint_to_host_action="Return"),
        )
    )
    wanted += await _default_pools(store, config)
    stored = await store.get_many([keys.path(keys.of(resource)) for resource in wanted])
    for resource, kv in zip(wanted, stored, strict=True):
        if kv is None:
            await create_if_absent(store, resource)


async def create_if_absent(store: Datastore, resource: Resource) -> None:
    """Somebody else's being faster is as good."""
    try:
        await store.create(keys.path(keys.of(resource)), codec.encode_stored(resource))
    except AlreadyExistsError:
        return
    log.info("created %s %s", resource.kind, resource.name)


async def _ensure_cluster_information(store: Datastore) -> None:
    """An identity for the cluster, and a datastore that says it is ready unless somebody said it is not."""
    key = keys.ResourceKey("ClusterInformation", "default")
    for _ in range(ATTEMPTS):
        kv = await store.get(keys.path(key))
        if kv is None:
            spec = ClusterInformationSpec(cluster_guid=uuid.uuid4().hex, datastore_ready=True)
            await create_if_absent(store, ClusterInformation(metadata=new_metadata("default"), spec=spec))
            return
        try:
            found = codec.decode_stored(key, kv.value)
        except ValidationError as error:
            log.warning("left alone: %s", error)
            return
        assert isinstance(found, ClusterInformation)
        spec = msgspec.structs.replace(
            found.spec,
            cluster_guid=found.spec.cluster_guid or uuid.uuid4().hex,
            datastore_ready=True if found.spec.datastore_ready is None else found.spec.datastore_ready,
        )
        if spec == found.spec:
            return
        try:
            raw = codec.encode_stored(msgspec.structs.replace(found, spec=spec), kv.value)
            await store.update(kv.key, raw, kv.revision)
        except ConflictError:
            continue
        return


async def _default_pools(store: Datastore, config: AgentConfig) -> list[Resource]:
    """The pools asked for, of each IP version that has none yet."""
    asked = [
        (version, pool)
        for version, pool in ((4, config.ipv4_pool), (6, config.ipv6_pool))
        if pool.cidr is not None and not config.no_default_pools
    ]
    if not asked:
        return []
    present: set[int] = set()
    for item in (await store.list(keys.prefix("IPPool"))).items:
        key = keys.parse(item.key)
        try:
            pool = None if key is None else codec.decode_stored(key, item.value)
        except ValidationError as error:
            log.warning("%s", error)
            continue
        if isinstance(pool, IPPool):
            present.add(pool.spec.cidr.version)
    return [_pool(version, pool) for version, pool in asked if version not in present]


def _pool(version: int, asked: PoolConfig) -> IPPool:
    assert asked.cidr is not None
    spec = IPPoolSpec(
        cidr=asked.cidr,
        block_size=asked.block_size,
        nat_outgoing=asked.nat_outgoing,
        ipip_mode=asked.ipip_mode,
        vxlan_mode=asked.vxlan_mode,
        node_selector=asked.node_selector,
        disable_bgp_export=asked.disable_bgp_export,
    )
    return IPPool(metadata=new_metadata(f"default-ipv{version}-ippool"), spec=spec)
