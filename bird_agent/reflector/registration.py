"""Write the Node that a stand-alone reflector is, where it is asked to: address, AS number and cluster id.

It concerns no kernel and no workload: the Node is there so that other nodes peer with it (a BGPPeer's `peerSelector`
chooses it) and so that weftctl shows it. Whatever else stands in the Node is kept. Ours is what the environment says;
what it does not say is left as it is stored."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_interface
from typing import Final, Self

import msgspec
from msgspec import Struct

from weft.config import ConfigError, parse_as_number
from weft.datastore.base import Datastore
from weft.model import codec, keys
from weft.model.errors import AlreadyExistsError, ConflictError, NotFoundError
from weft.model.keys import ResourceKey
from weft.model.node import Node, NodeBGPSpec
from weft.model.values import AsNumber
from weft.node.bootstrap import new_metadata

log = logging.getLogger("weft-reflector")

PREFIX: Final = "WEFT_REFLECTOR_"
CLUSTER_ID: Final = f"{PREFIX}CLUSTER_ID"
ATTEMPTS: Final = 10


class Identity(Struct, frozen=True):
    """What the Node should say. `labels` are added to those that it has."""

    name: str
    cluster_id: IPv4Address
    ipv4: IPv4Interface | None
    ipv6: IPv6Interface | None
    asn: int | None
    labels: Mapping[str, str]

    @classmethod
    def from_environ(cls, name: str, env: Mapping[str, str]) -> Self | None:
        """None: nobody asked for it, which WEFT_REFLECTOR_CLUSTER_ID does. Raises ConfigError."""
        cluster_id = env.get(CLUSTER_ID, "").strip()
        if not cluster_id:
            return None
        ipv4, ipv6 = _interface(env, f"{PREFIX}IP"), _interface(env, f"{PREFIX}IP6")
        if ipv4 is None and ipv6 is None:
            raise ConfigError(f"{PREFIX}IP", "", f"the reflector's own address, because {CLUSTER_ID} is set (or …IP6)")
        asn = env.get(f"{PREFIX}AS", "").strip()
        try:
            return cls(
                name,
                IPv4Address(cluster_id),
                ipv4 if isinstance(ipv4, IPv4Interface) else None,
                ipv6 if isinstance(ipv6, IPv6Interface) else None,
                parse_as_number(asn) if asn else None,
                _labels(env.get(f"{PREFIX}LABELS", "")),
            )
        except ValueError as error:
            raise ConfigError(CLUSTER_ID, cluster_id, f"an IPv4 address as cluster id ({error})") from None

    def merged(self, stored: Node | None) -> Node:
        node = stored or Node(metadata=new_metadata(self.name))
        bgp = node.spec.bgp or NodeBGPSpec()
        bgp = msgspec.structs.replace(
            bgp,
            ipv4_address=self.ipv4 or bgp.ipv4_address,
            ipv6_address=self.ipv6 or bgp.ipv6_address,
            as_number=bgp.as_number if self.asn is None else AsNumber(self.asn),
            route_reflector_cluster_id=self.cluster_id,
        )
        metadata = msgspec.structs.replace(node.metadata, labels={**node.metadata.labels, **self.labels})
        return msgspec.structs.replace(node, metadata=metadata, spec=msgspec.structs.replace(node.spec, bgp=bgp))


def own_environ(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a reflector that runs beside a node's agents and shares theirs: what says who a node is, is
    the node's, so a reflector has names of its own for it (NODENAME alone will do where there is no node)."""
    own = {name: value for name, value in env.items() if name not in ("CALICO_ROUTER_ID", "WEFT_BGP_METRICS")}
    for name, ours in (("NODENAME", "NAME"), ("CALICO_ROUTER_ID", "ROUTER_ID"), ("WEFT_BGP_METRICS", "METRICS")):
        if value := env.get(f"{PREFIX}{ours}", "").strip():
            own[name] = value
    return own


async def register(store: Datastore, identity: Identity) -> None:
    """Raises DatastoreUnavailableError, ValidationError where the stored Node cannot be read, ConflictError."""
    key = ResourceKey("Node", identity.name)
    for _ in range(ATTEMPTS):
        kv = await store.get(keys.path(key))
        stored = None if kv is None else codec.decode_stored(key, kv.value)
        assert stored is None or isinstance(stored, Node)
        node = identity.merged(stored)
        if node == stored:
            return
        try:
            if kv is None:
                await store.create(keys.path(key), codec.encode_stored(node))
            else:
                await store.update(kv.key, codec.encode_stored(node, kv.value), kv.revision)
        except (AlreadyExistsError, ConflictError, NotFoundError):
            continue
        log.info("Node %s says what this reflector is", identity.name)
        return
    raise ConflictError(keys.path(key))


def _interface(env: Mapping[str, str], name: str) -> IPv4Interface | IPv6Interface | None:
    text = env.get(name, "").strip()
    if not text:
        return None
    try:
        found = ip_interface(text)
    except ValueError:
        raise ConfigError(name, text, "an address, with the length of its network") from None
    if found.version != (6 if name.endswith("6") else 4):
        raise ConfigError(name, text, "an address of the other family")
    return found


def _labels(text: str) -> dict[str, str]:
    """`role=reflector,rack=a`."""
    found = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, value = part.partition("=")
        found[name.strip()] = value.strip()
    return found
