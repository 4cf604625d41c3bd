"""Datastore keys as values: which etcd key holds what, and back.

`path` and `parse` are each other's inverse. Paths are Calico's, with its spellings: only the first slash
of a CIDR becomes a dash (`fd00::-122` keeps its colons), handle ids and names stand as they are."""

from __future__ import annotations

import ipaddress
import sys
from typing import Final, Literal

import msgspec

from weft.model import kinds
from weft.model.address import IPNetwork
from weft.model.base import Resource
from weft.model.errors import FieldError

ROOT: Final = "/calico/"
RESOURCES: Final = "/calico/resources/v3/projectcalico.org/"
IPAM: Final = "/calico/ipam/v2/"
IPAM_CONFIG: Final = "/calico/ipam/v2/config"
HANDLES: Final = "/calico/ipam/v2/handle/"
WEFT: Final = "/calico/weft/v1/"
REFLECTORS: Final = "/calico/weft/v1/reflectors/"
"""Ours; Calico's tools read nothing below it."""

OwnerKind = Literal["host", "virtual"]
QUESTIONS: Final = "/calico/weft/v1/questions/"
ANSWERS: Final = "/calico/weft/v1/answers/"

Role = Literal["agent", "reflector"]
ReflectorSection = Literal["settings", "state", "serving", "attached", "beats"]


def _segment(field: str, text: str) -> None:
    """Refuse what would change the number of a path's segments."""
    if not text or "/" in text:
        raise FieldError(field, text, "a name without slashes")


class ResourceKey(msgspec.Struct, frozen=True, gc=False):
    """A v3 resource; `namespace` is "" exactly for the kinds that have none."""

    kind: str
    name: str
    namespace: str = ""

    def __post_init__(self) -> None:
        kind = kinds.KINDS.get(self.kind)
        if kind is None:
            raise FieldError("kind", self.kind, f"one of {', '.join(kinds.KINDS)}")
        _segment("name", self.name)
        if kind.namespaced:
            _segment("namespace", self.namespace)
        elif self.namespace:
            raise FieldError("namespace", self.namespace, f"no namespace: {self.kind} has none")


class Owner(msgspec.Struct, frozen=True, gc=False):
    """Who a block belongs to: a node, or a virtual owner such as a load balancer."""

    kind: OwnerKind
    name: str

    def __post_init__(self) -> None:
        if self.kind not in ("host", "virtual"):
            raise FieldError("kind", self.kind, "host or virtual")
        _segment("name", self.name)

    def __str__(self) -> str:
        """As a block's `affinity` has it: `host:node-1`."""
        return f"{self.kind}:{self.name}"


def parse_owner(text: str) -> Owner:
    """The inverse of `str(owner)`. Raises FieldError."""
    kind, _, name = text.partition(":")
    if kind == "host":
        return Owner("host", name)
    if kind == "virtual":
        return Owner("virtual", name)
    raise FieldError("affinity", text, "host:<node> or virtual:<name>")


class BlockKey(msgspec.Struct, frozen=True):
    """A block of addresses."""

    cidr: IPNetwork


class AffinityKey(msgspec.Struct, frozen=True):
    """That `owner` has, or is about to have, the block `cidr`."""

    owner: Owner
    cidr: IPNetwork


class HandleKey(msgspec.Struct, frozen=True, gc=False):
    """The addresses held under one id."""

    handle_id: str

    def __post_init__(self) -> None:
        _segment("handle_id", self.handle_id)


class IPAMConfigKey(msgspec.Struct, frozen=True, gc=False):
    """The one IPAM configuration."""


class ReflectorKey(msgspec.Struct, frozen=True, gc=False):
    """Something about automatic reflectors: the one `settings` or `state`, or what a node says in one of the others."""

    section: ReflectorSection
    node: str = ""

    def __post_init__(self) -> None:
        if self.section in _OF_A_NODE:
            _segment("node", self.node)
        elif self.node:
            raise FieldError("node", self.node, f"no node: there is one {self.section} for all")


_OF_A_NODE: Final = {
    "serving": "reflectors/serving/",
    "attached": "reflectors/attached/",
    "beats": "reflector-beats/",  # not below what every node watches
}
_OF_ALL: Final = {"settings": "reflectors/settings", "state": "reflectors/state"}


class Addressee(msgspec.Struct, frozen=True, gc=False):
    """Whom a question is for: the BGP agent of a node, or the reflector of this name."""

    role: Role
    node: str

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            raise FieldError("role", self.role, " or ".join(_ROLES))
        _segment("node", self.node)


_ROLES: Final = ("agent", "reflector")


class QuestionKey(msgspec.Struct, frozen=True, gc=False):
    """A question that waits for its answer."""

    addressee: Addressee
    id: str

    def __post_init__(self) -> None:
        _segment("id", self.id)


Key = ResourceKey | BlockKey | AffinityKey | HandleKey | IPAMConfigKey | ReflectorKey | QuestionKey


def of(resource: Resource) -> ResourceKey | IPAMConfigKey:
    """Where a resource is stored. IPAMConfiguration is a spelling of the IPAM configuration."""
    if resource.kind == "IPAMConfiguration":
        return IPAMConfigKey()
    return ResourceKey(resource.kind, resource.metadata.name, resource.metadata.namespace)


def path(key: Key) -> str:
    """The full etcd key."""
    match key:
        case ResourceKey(kind, name, namespace):
            plural = kinds.KINDS[kind].plural
            return f"{RESOURCES}{plural}/{namespace}/{name}" if namespace else f"{RESOURCES}{plural}/{name}"
        case BlockKey(cidr):
            return block_prefix(cidr.version) + _cidr_segment(cidr)
        case AffinityKey(owner, cidr):
            return affinity_prefix(owner, cidr.version) + _cidr_segment(cidr)
        case HandleKey(handle_id):
            return HANDLES + handle_id
        case IPAMConfigKey():
            return IPAM_CONFIG
        case ReflectorKey(section, node):
            return WEFT + (_OF_A_NODE[section] + node if node else _OF_ALL[section])
        case QuestionKey(addressee, question):
            return questions_prefix(addressee) + question


def prefix(kind: str, namespace: str = "") -> str:
    """What all keys of a kind (in a namespace, if given) begin with; ends with a slash."""
    root = f"{RESOURCES}{kinds.KINDS[kind].plural}/"
    return f"{root}{namespace}/" if namespace else root


def block_prefix(version: int) -> str:
    """What the keys of all blocks of an IP version begin with."""
    return f"{IPAM}assignment/ipv{version}/block/"


def affinity_prefix(owner: Owner, version: int | None = None) -> str:
    """What the keys of an owner's affinities begin with, of one IP version or of both."""
    root = f"{IPAM}{owner.kind}/{owner.name}/"
    return f"{root}ipv{version}/block/" if version else root


def affinities_prefix(kind: OwnerKind) -> str:
    """What the keys of all affinities of a kind of owner begin with."""
    return f"{IPAM}{kind}/"


def questions_prefix(addressee: Addressee) -> str:
    """What the keys of all questions for somebody begin with."""
    return f"{QUESTIONS}{addressee.role}/{addressee.node}/"


def answers_prefix(question: QuestionKey) -> str:
    """What the keys of all that is said in answer to a question begin with."""
    return f"{ANSWERS}{question.addressee.role}/{question.addressee.node}/{question.id}/"


def parse(text: str) -> Key | None:
    """The key at a full path; None where the path is none of ours (Calico has more than we use)."""
    try:
        if text.startswith(RESOURCES):
            return _parse_resource(text[len(RESOURCES) :].split("/"))
        if text.startswith(IPAM):
            return _parse_ipam(text[len(IPAM) :].split("/"))
        if text.startswith(WEFT):
            return _parse_ours(text[len(WEFT) :].split("/"))
    except ValueError:
        return None
    return None


def _parse_resource(parts: list[str]) -> ResourceKey | None:
    kind = kinds.BY_PLURAL.get(parts[0])
    if kind is None or len(parts) != (3 if kind.namespaced else 2):
        return None
    # A cluster has few namespaces and a great many keys in them.
    return ResourceKey(kind.name, parts[-1], sys.intern(parts[1]) if kind.namespaced else "")


def _parse_ipam(parts: list[str]) -> Key | None:
    match parts:
        case ["config"]:
            return IPAMConfigKey()
        case ["handle", handle_id]:
            return HandleKey(handle_id)
        case ["assignment", family, "block", cidr]:
            return BlockKey(_parse_cidr(family, cidr))
        case ["host", name, family, "block", cidr]:
            return AffinityKey(Owner("host", name), _parse_cidr(family, cidr))
        case ["virtual", name, family, "block", cidr]:
            return AffinityKey(Owner("virtual", name), _parse_cidr(family, cidr))
    return None


def _parse_ours(parts: list[str]) -> ReflectorKey | QuestionKey | None:
    match parts:
        case ["reflectors", "settings"]:
            return ReflectorKey("settings")
        case ["reflectors", "state"]:
            return ReflectorKey("state")
        case ["reflectors", "serving", node]:
            return ReflectorKey("serving", node)
        case ["reflectors", "attached", node]:
            return ReflectorKey("attached", node)
        case ["reflector-beats", node]:
            return ReflectorKey("beats", node)
        case ["questions", ("agent" | "reflector") as role, node, question]:
            return QuestionKey(Addressee(role, node), question)
    return None


def _cidr_segment(cidr: IPNetwork) -> str:
    return str(cidr).replace("/", "-", 1)


def _parse_cidr(family: str, segment: str) -> IPNetwork:
    cidr = ipaddress.ip_network(segment.replace("-", "/", 1))
    if family != f"ipv{cidr.version}" or _cidr_segment(cidr) != segment:
        raise ValueError(segment)
    return cidr
