"""What is stored about automatic route reflectors: settings, the fabric's state, and what each node says of itself.

Keys of our own that Calico ignores. Only shape and consistency are checked here; who becomes a reflector is decided in
`weft.reflectors`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from ipaddress import IPv4Address
from typing import Final, Literal

import msgspec

from weft.model.address import IPAddress
from weft.model.base import Value, written
from weft.model.errors import FieldError

Mode = Literal["mesh", "reflectors"]
DEFAULT_DOMAIN_LABEL: Final = "topology.kubernetes.io/zone"
_LABEL: Final = re.compile(
    r"(?:[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-._A-Za-z0-9]{0,61}[A-Za-z0-9])?\Z"
)
_MOST_PER_DOMAIN: Final = 8


class ReflectorSettings(Value, frozen=True, kw_only=True):
    """When the fabric has reflectors, and how many. `back_below` 0: four fifths of `above_nodes`; `pools` are names of
    IPPools for the reflectors' addresses, none: any that allows the use Tunnel."""

    enabled: bool = written(False)
    above_nodes: int = written(100)
    back_below: int = 0
    domain_label: str = written(DEFAULT_DOMAIN_LABEL)
    per_domain: int = written(2)
    pools: tuple[str, ...] = ()
    replace_after_seconds: int = written(60)
    return_after_seconds: int = written(600)

    def __post_init__(self) -> None:
        if self.above_nodes < 1:
            raise FieldError("aboveNodes", self.above_nodes, "a number of nodes, 1 or more")
        if not 0 <= self.back_below <= self.above_nodes + 1:
            expected = f"0 (four fifths of aboveNodes), or 1 to {self.above_nodes + 1}"
            raise FieldError("backBelow", self.back_below, expected)
        if not _LABEL.match(self.domain_label):
            expected = f"the name of a label of nodes, such as {DEFAULT_DOMAIN_LABEL}"
            raise FieldError("domainLabel", self.domain_label, expected)
        if not 1 <= self.per_domain <= _MOST_PER_DOMAIN:
            raise FieldError("perDomain", self.per_domain, f"1 to {_MOST_PER_DOMAIN} reflectors")
        for field, seconds in (
            ("replaceAfterSeconds", self.replace_after_seconds),
            ("returnAfterSeconds", self.return_after_seconds),
        ):
            if seconds < 1:
                raise FieldError(field, seconds, "a number of seconds, 1 or more")

    @property
    def mesh_below(self) -> int:
        """With fewer nodes than this the fabric is a mesh again."""
        return self.back_below or max(1, self.above_nodes * 4 // 5)


class Replacement(Value, frozen=True, kw_only=True):
    """A node that was taken for dead as a reflector. `returned`: it has shown since that it lives, and is a candidate
    again, behind all others."""

    node: str
    domain: str = ""
    why: str = ""
    by: str = ""
    at: datetime | None = None
    returned: datetime | None = None


class ReflectorState(Value, frozen=True, kw_only=True):
    """What all nodes have to agree on and Node resources do not say. `epoch` counts the changes of `mode`."""

    mode: Mode = written("mesh")
    epoch: int = written(0)
    why: str = ""
    by: str = ""
    since: datetime | None = None
    replaced: tuple[Replacement, ...] = ()


class ReflectorRecord(Value, frozen=True, kw_only=True):
    """What a node says of the reflector on it. `up`: it can be connected to at its addresses; `meshed`: the nodes with
    whose reflectors it has exchanged everything."""

    addresses: tuple[IPAddress, ...] = ()
    router_id: IPv4Address | None = None
    up: bool = written(False)
    meshed: tuple[str, ...] = ()


class AttachmentRecord(Value, frozen=True, kw_only=True):
    """What a node says of its sessions: the nodes with whose reflectors it has exchanged everything, and whether what
    it learns from them is all it needs. Both are about the mode of `epoch`."""

    epoch: int = written(0)
    attached: tuple[str, ...] = written(())
    complete: bool = written(False)


class ReflectorBeat(Value, frozen=True, kw_only=True):
    """Written again and again by the node of a reflector that serves; its revision is the message."""

    clients: int = written(0)


ReflectorValue = ReflectorSettings | ReflectorState | ReflectorRecord | AttachmentRecord | ReflectorBeat
CLASSES: Final[Mapping[str, type[ReflectorValue]]] = {
    "settings": ReflectorSettings,
    "state": ReflectorState,
    "serving": ReflectorRecord,
    "attached": AttachmentRecord,
    "beats": ReflectorBeat,
}


def changed_settings(settings: ReflectorSettings, changes: Mapping[str, object]) -> ReflectorSettings:
    """The settings with some fields (by attribute) replaced. Raises FieldError."""
    changed: ReflectorSettings = msgspec.structs.replace(settings, **changes)
    return changed
