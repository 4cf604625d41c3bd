"""Keep this node's Node resource equal to what the machine and its configuration say.

Only the name, the addresses and the AS number are ours; whatever else stands in the Node is kept, also what we do not
know. An address that another node has already is refused. What is detected badly is never written over what is stored:
it is said in the log and in the status, and tried again.
"""

import asyncio
import logging
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Literal

import msgspec
from msgspec import Struct

from weft.config import AddressSetting, AgentConfig
from weft.datastore.base import Datastore, KeyValue
from weft.model import codec, keys
from weft.model.address import IPAddress, IPInterface
from weft.model.errors import AlreadyExistsError, ConflictError, NotFoundError, ValidationError, WeftError
from weft.model.keys import ResourceKey
from weft.model.node import Node, NodeBGPSpec
from weft.model.values import AsNumber
from weft.node.autodetect import (
    DetectionError,
    HostInterface,
    Surroundings,
    Version,
    detect,
    interface_of,
    with_prefix,
)
from weft.node.bootstrap import new_metadata

log = logging.getLogger(__name__)

ATTEMPTS = 10


class AddressConflictError(WeftError):
    """Another node has this address: give one of the two another one, or delete the other Node if it is gone."""

    def __init__(self, node: str, address: IPAddress, other: str) -> None:
        super().__init__(
            f"node {node}: the address {address} is already in use by node {other}; "
            f"choose another with IP or IP_AUTODETECTION_METHOD (IP6, IP6_AUTODETECTION_METHOD), "
            f"or delete node {other} if it is gone"
        )
        self.node = node
        self.address = address
        self.other = other


class Decision(Struct, frozen=True):
    """The address to register, and what an administrator should know about it."""

    address: IPInterface | None
    notice: str | None = None
    error: str | None = None


class Registration(Struct, frozen=True):
    """What is registered. `notices` are ambiguities and the like, `errors` what keeps an address from being told."""

    node: Node
    notices: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def decide_address(
    version: Version, setting: AddressSetting, method: str, stored: IPInterface | None, around: Surroundings
) -> Decision:
    """As Calico decides: IPv4 is detected if asked or if none is stored, IPv6 only if asked; a stored one is kept."""
    name = "IP" if version == 4 else "IP6"
    if setting == "autodetect" or (setting is None and version == 4 and stored is None):
        try:
            detection = detect(method, version, around)
        except DetectionError as error:
            kept = f"; the stored {stored} is kept" if stored else ""
            return Decision(stored, error=f"{error}{kept}")
        return Decision(detection.chosen.address, detection.ambiguity)
    if isinstance(setting, IPv4Interface | IPv6Interface):
        address: IPInterface | None = setting
    elif isinstance(setting, IPv4Address | IPv6Address):
        address = with_prefix(setting, around.interfaces)
    else:
        address = stored
    if address is not None and interface_of(address, around.interfaces) is None:
        origin = "stored in the Node" if address is stored and setting in (None, "none") else f"given by {name}"
        return Decision(address, f"no interface of this host has the address {address} ({origin})")
    return Decision(address)


def merge(
    stored: Node | None, name: str, ipv4: IPInterface | None, ipv6: IPInterface | None, as_number: int | None
) -> Node:
    """The stored Node, or a new one, with our fields set; an AS number nobody gave is left as it is."""
    node = stored or Node(metadata=new_metadata(name))
    bgp = node.spec.bgp or NodeBGPSpec()
    assert ipv4 is None or isinstance(ipv4, IPv4Interface)
    assert ipv6 is None or isinstance(ipv6, IPv6Interface)
    bgp = msgspec.structs.replace(
        bgp,
        ipv4_address=ipv4,
        ipv6_address=ipv6,
        as_number=bgp.as_number if as_number is None else AsNumber(as_number),
    )
    spec = msgspec.structs.replace(node.spec, bgp=None if bgp == NodeBGPSpec() else bgp)
    return msgspec.structs.replace(node, spec=spec)


class Registrar:
    """Registers one node; call `register` at start and then again and again."""

    def __init__(
        self,
        store: Datastore,
        config: AgentConfig,
        read_interfaces: Callable[[], tuple[HostInterface, ...]],
        source_address: Callable[[str, Version], IPAddress],
    ) -> None:
        self._store = store
        self._config = config
        self._read_interfaces = read_interfaces
        self._source_address = source_address
        self._key = ResourceKey("Node", config.node_name)

    async def register(self) -> Registration:
        """Bring the Node up to date if it is not.

        Raises `AddressConflictError`, `ValidationError` (the stored Node cannot be read), `DatastoreUnavailableError`.
        """
        for _ in range(ATTEMPTS):
            kv = await self._store.get(keys.path(self._key))
            stored = None if kv is None else _decode(self._key, kv)
            # Reading the kernel and resolving a can-reach destination may take a moment.
            registration = await asyncio.to_thread(self._decide, stored)
            try:
                await self._write(kv, stored, registration.node)
            except (ConflictError, AlreadyExistsError, NotFoundError):
                continue
            return registration
        raise ConflictError(keys.path(self._key))

    def _decide(self, stored: Node | None) -> Registration:
        config = self._config
        bgp = (stored.spec.bgp if stored else None) or NodeBGPSpec()
        around = Surroundings(self._read_interfaces(), self._source_address, self._internal_ips(stored))
        ipv4 = decide_address(4, config.ip, config.ip_autodetection_method, bgp.ipv4_address, around)
        ipv6 = decide_address(6, config.ip6, config.ip6_autodetection_method, bgp.ipv6_address, around)
        node = merge(stored, config.node_name, ipv4.address, ipv6.address, config.as_number)
        return Registration(
            node,
            notices=tuple(one.notice for one in (ipv4, ipv6) if one.notice),
            errors=tuple(one.error for one in (ipv4, ipv6) if one.error),
        )

    def _internal_ips(self, stored: Node | None) -> tuple[IPAddress, ...]:
        told = [one.address.ip for one in stored.spec.addresses if one.type == "InternalIP"] if stored else []
        return (*told, *self._config.internal_ips)

    async def _write(self, kv: KeyValue | None, stored: Node | None, node: Node) -> None:
        if stored == node:
            return
        before, after = _addresses(stored), _addresses(node)
        new = [address for address in after if address not in before]
        if self._config.check_address_conflicts and new:
            await self._refuse_taken(new)
        raw = codec.encode_stored(node, kv.value if kv else None)
        if kv is None:
            revision = await self._store.create(keys.path(self._key), raw)
            log.info("registered node %s with %s", node.name, _text(after))
        else:
            revision = await self._store.update(kv.key, raw, kv.revision)
            if before != after:
                log.info("node %s: addresses changed from %s to %s", node.name, _text(before), _text(after))
        if self._config.check_address_conflicts and new:
            await self._yield_to_earlier(new, node, raw, revision)

    async def _refuse_taken(self, addresses: list[IPAddress], written_before: int | None = None) -> None:
        """Raise if another node has one of the addresses (and was last written before a revision)."""
        for item in (await self._store.list(keys.prefix("Node"))).items:
            key = keys.parse(item.key)
            if not isinstance(key, ResourceKey) or key == self._key:
                continue
            if written_before is not None and item.revision > written_before:
                continue
            try:
                other = _decode(key, item)
            except ValidationError as error:
                log.warning("not compared with: %s", error)
                continue
            for address in _addresses(other):
                if address in addresses:
                    raise AddressConflictError(self._config.node_name, address, other.name)

    async def _yield_to_earlier(self, new: list[IPAddress], node: Node, raw: bytes, revision: int) -> None:
        """Two nodes that registered one address at the same time both saw nobody: the later one takes it back."""
        try:
            await self._refuse_taken(new, written_before=revision)
        except AddressConflictError as error:
            version: Literal[4, 6] = error.address.version
            bgp = node.spec.bgp or NodeBGPSpec()
            field = "ipv4_address" if version == 4 else "ipv6_address"
            without = msgspec.structs.replace(bgp, **{field: None})
            spec = msgspec.structs.replace(node.spec, bgp=without)
            withdrawn = codec.encode_stored(msgspec.structs.replace(node, spec=spec), raw)
            await self._store.update(keys.path(self._key), withdrawn, revision)
            raise


def _decode(key: ResourceKey, kv: KeyValue) -> Node:
    value = codec.decode_stored(key, kv.value)
    assert isinstance(value, Node)
    return value


def _addresses(node: Node | None) -> list[IPAddress]:
    if node is None or node.spec.bgp is None:
        return []
    bgp = node.spec.bgp
    return [address.ip for address in (bgp.ipv4_address, bgp.ipv6_address) if address is not None]


def _text(addresses: list[IPAddress]) -> str:
    return ", ".join(map(str, addresses)) or "no address"
