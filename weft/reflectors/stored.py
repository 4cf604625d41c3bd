"""All that the datastore says of automatic reflectors, as one value."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from weft.model.reflectors import AttachmentRecord, ReflectorRecord, ReflectorSettings, ReflectorState
from weft.reflectors.plan import NO_SETTINGS, NO_STATE, Fabric


class Stored(Struct, frozen=True):
    """Records are by node."""

    fabric: Fabric
    settings: ReflectorSettings = NO_SETTINGS
    state: ReflectorState = NO_STATE
    serving: Mapping[str, ReflectorRecord] = field(default_factory=dict)
    attached: Mapping[str, AttachmentRecord] = field(default_factory=dict)
