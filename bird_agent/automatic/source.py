"""What a chosen node's reflector should be: the PlanSource of bird_agent/automatic/process.py.

Pure. Its sessions follow from nodes and records; the mesh's password, restart time and AS number are also its own."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Final

from bird_agent.automatic.client import Automatic
from bird_agent.automatic.decision import Shared
from bird_agent.automatic.serving import Addresses, Identity, Member, other_reflectors, reflector_plan
from bird_agent.bfd.wire import Watch
from bird_agent.bfd.wish import BfdWish, parse_wish, watch_of
from bird_agent.datastore_view import Concern, DatastoreView
from bird_agent.nodes import addresses_of, router_id_from
from bird_agent.peering import BFD
from bird_agent.policy import Policies
from bird_agent.reflector.process import Wanted
from bird_agent.session_config import DEFAULT_PORT, Needs, Password, SecretKey, Surroundings
from bird_agent.session_options import restart_time_s
from bird_agent.settings import DEFAULT_CONFIGURATION, default_configuration, setting
from weft.config import AgentConfig
from weft.datastore.syncer import SyncEvent
from weft.model.address import IPAddress, IPNetwork, parse_address
from weft.model.reflectors import ReflectorRecord, ReflectorSettings

ADDRESSES: Final = "weft/reflector-addresses"
"""Annotation of a Node: its reflector's addresses, where they shall come from no pool."""


class ChosenNode:
    """`addresses` are given when they are on the node; there is no plan before that."""

    def __init__(self, config: AgentConfig) -> None:
        self._node = config.node_name
        self._automatic = Automatic(config.node_name)
        self._view = DatastoreView(config.node_name, config.router_id, self._automatic.records)
        self._password: Password | None = None
        self._bfd: Watch | None = None
        self.addresses: tuple[IPAddress, ...] = ()
        self.holding: frozenset[IPAddress] = frozenset()
        """Peers whose sessions are up, or whose routes are kept while they are away."""
        self._others: Addresses = {}

    @property
    def in_sync(self) -> bool:
        return self._view.in_sync

    @property
    def chosen(self) -> bool:
        return self._node in self._automatic.plan.chosen

    @property
    def shared(self) -> Shared:
        return self._automatic.shared

    @property
    def settings(self) -> ReflectorSettings:
        return self._automatic.records.settings

    @property
    def record(self) -> ReflectorRecord | None:
        """What is stored of this node's reflector."""
        return self._automatic.records.serving.get(self._node)

    @property
    def expects_others(self) -> bool:
        """Whether other nodes should be clients."""
        made = self._automatic.plan
        return any(self._node in made.reflectors_for(name) for name in made.domain_of if name != self._node)

    @property
    def identity(self) -> Identity | None:
        own = self._view.nodes.get(self._node)
        if own is None or not self.addresses:
            return None
        spec = default_configuration(self._view.configurations)
        first = next((each for each in self.addresses if isinstance(each, IPv4Address)), None)
        return Identity(
            node=self._node,
            asn=self._view.fabric().asn,
            addresses=self.addresses,
            router_id=first or router_id_from(f"reflector {self._node}"),
            restart_time_s=restart_time_s(spec.node_mesh_max_restart_time),
            password=self._password,
            bfd=self._bfd,
        )

    @property
    def needs(self) -> Needs:
        key, wish = self._secret(), self._wish()
        keys = frozenset[SecretKey]() if wish is None else wish.secrets
        return Needs(keys if key is None else keys | {key})

    def on_datastore(self, batch: Sequence[SyncEvent]) -> bool:
        concern = self._view.on_events(batch)
        if concern & Concern.SESSIONS:
            self._automatic.on_fabric(self._view.fabric())
        if concern & Concern.REFLECTORS:
            self._automatic.on_records()
        return self._view.in_sync and bool(concern & (Concern.SESSIONS | Concern.REFLECTORS))

    def wanted(self, surroundings: Surroundings) -> Wanted | None:
        key = self._secret()
        self._password = None if key is None else surroundings.secrets.get(key)
        self._bfd = self._watch(surroundings)
        identity = self.identity
        if identity is None or not self._view.in_sync or (key is not None and self._password is None):
            return None
        return Wanted(reflector_plan(identity, self.shared, self._members(), self.others()), Policies())

    def others(self) -> Addresses:
        """The reflectors that this one is meshed with, by node."""
        self._others = other_reflectors(self._node, self.shared, self._others, self.holding)
        return self._others

    def configured_addresses(self) -> tuple[IPAddress, ...]:
        """Those that the Node asks for. Raises OSError where they are none, or somebody else's."""
        own = self._view.nodes.get(self._node)
        text = "" if own is None else own.metadata.annotations.get(ADDRESSES, "")
        wrong = f"annotation {ADDRESSES} of Node/{self._node}: {text!r}"
        try:
            found = tuple(parse_address(part.strip()) for part in text.split(",") if part.strip())
        except ValueError as error:
            raise OSError(f"{wrong}: {error}") from None
        owners = {address: f"Node/{name}" for name, node in self._view.nodes.items() for address in addresses_of(node)}
        for name, record in self._automatic.records.serving.items():
            if name != self._node:
                owners |= dict.fromkeys(record.addresses, f"the reflector on {name}")
        for address in found:
            if address in owners:
                raise OSError(f"{wrong}: {address} is that of {owners[address]}; a reflector has addresses of its own")
        return found

    def versions(self) -> list[int]:
        """The IP versions that this node speaks BGP over."""
        own = self._view.nodes.get(self._node)
        return [] if own is None else [each.version for each in tuple(addresses_of(own))]

    def pools(self, version: int) -> tuple[IPNetwork, ...]:
        """Those that the settings name; none: any that may be used. A name of no pool is an error of the settings."""
        found = [self._view.pools[name].spec.cidr for name in self.settings.pools if name in self._view.pools]
        if self.settings.pools and not found:
            raise OSError(f"none of the pools {', '.join(self.settings.pools)} of the reflectors' settings exists")
        return tuple(cidr for cidr in found if cidr.version == version)

    def _wish(self) -> BfdWish | None:
        """That of the mesh. What is wrong with it, every agent tells."""
        default = self._view.configurations.get(DEFAULT_CONFIGURATION)
        text = None if default is None else default.metadata.annotations.get(BFD)
        try:
            return None if text is None else parse_wish(text)
        except ValueError:
            return None

    def _watch(self, surroundings: Surroundings) -> Watch | None:
        wish = self._wish()
        try:
            return None if wish is None else watch_of(wish, surroundings.secrets)[0]
        except ValueError:
            return None

    def _secret(self) -> SecretKey | None:
        password = default_configuration(self._view.configurations).node_mesh_password
        reference = None if password is None else password.secret_key_ref
        return None if reference is None else SecretKey(reference.name, reference.key)

    def _members(self) -> list[Member]:
        configurations = self._view.configurations
        found = []
        for name in self.shared.plan.domain_of:
            port = setting(configurations, name, lambda spec: spec.listen_port or None) or DEFAULT_PORT
            found.append(Member(name, tuple(addresses_of(self._view.nodes[name])), port))
        return found
