"""What the agent wants done, and how far an attachment to the speaker link has come. Values that one agent fills."""

from __future__ import annotations

from msgspec import Struct, field

from bird_agent.exabgp import events
from bird_agent.session_config import Peering
from weft.model.address import IPAddress, IPNetwork
from weft.netlink.route import Target


class Step(Struct):
    """What to do now. `peering` is set when the speaker's configuration has to change; `sweep` once, when routes that
    an earlier run left in the kernel may go. `metrics` are those of `routes` that are to have another than usual."""

    peering: Peering | None = None
    commands: list[bytes] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    routes: dict[IPNetwork, Target | None] = field(default_factory=dict)
    metrics: dict[IPNetwork, int] = field(default_factory=dict)
    sweep: bool = False


class Attachment(Struct):
    """One attachment to the speaker link, and how far it has come. `continues`: to the speaker we knew, if any.
    `seen_up`: the sessions that came up before the first sync, so that it has no news of them."""

    continues: bool
    replayed: set[IPAddress] = field(default_factory=set)
    live: bool = False
    synced: bool = False
    seen_up: set[IPAddress] = field(default_factory=set)
    reports: dict[IPAddress, events.SessionReport] = field(default_factory=dict)
    advertised: dict[IPAddress, set[IPNetwork]] = field(default_factory=dict)
