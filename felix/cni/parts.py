"""What every CNI command works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from msgspec import Struct, field

from felix.cni.ports import Programmer, Wiring
from felix.cni.turns import Turns
from felix.cni.view import NodeView
from weft.datastore.base import Datastore
from weft.ipam.client import IPAMClient


class Machine(Struct, frozen=True):
    """What the agent knows of its machine: the workloads' MTU now, and their gateways by IP version."""

    mtu: Callable[[], int]
    gateways: Mapping[int, str]


class Parts(Struct, frozen=True):
    """The agent's side of the CNI server. `adding` are the containers that are being added now."""

    store: Datastore
    ipam: IPAMClient
    view: NodeView
    wiring: Wiring
    programmer: Programmer
    machine: Machine
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    turns: Turns = field(default_factory=Turns)
    adding: set[str] = field(default_factory=set)
