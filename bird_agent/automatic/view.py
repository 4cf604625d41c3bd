"""What the datastore says about automatic reflectors, kept up to date from sync events.

Pure. Settings or a state that cannot be read leave those in force that could be: no fabric turns for a mistake."""

from __future__ import annotations

from bird_agent.session_config import Problem
from weft.model import keys
from weft.model.keys import ReflectorKey, ReflectorSection
from weft.model.reflectors import AttachmentRecord, ReflectorRecord, ReflectorSettings, ReflectorState
from weft.reflectors.plan import NO_SETTINGS, NO_STATE


class RecordsView:
    """The present values. `state_revision` 0: no state is stored."""

    def __init__(self) -> None:
        self.settings: ReflectorSettings = NO_SETTINGS
        self.state: ReflectorState = NO_STATE
        self.state_revision = 0
        self.attached: dict[str, AttachmentRecord] = {}
        self.serving: dict[str, ReflectorRecord] = {}
        self._unreadable: dict[ReflectorSection, str] = {}

    @property
    def problems(self) -> list[Problem]:
        return [
            Problem(keys.path(ReflectorKey(section)), f"{why}: what was there before stays in force")
            for section, why in self._unreadable.items()
        ]

    def put(self, key: ReflectorKey, value: object, revision: int) -> None:
        self._unreadable.pop(key.section, None)
        match value:
            case ReflectorSettings():
                self.settings = value
            case ReflectorState():
                self.state, self.state_revision = value, revision
            case AttachmentRecord():
                self.attached[key.node] = value
            case ReflectorRecord():
                self.serving[key.node] = value

    def remove(self, key: ReflectorKey) -> None:
        match key.section:
            case "settings":
                self.settings = NO_SETTINGS
            case "state":
                self.state, self.state_revision = NO_STATE, 0
            case "attached":
                self.attached.pop(key.node, None)
            case "serving":
                self.serving.pop(key.node, None)
            case "beats":
                return
        self._unreadable.pop(key.section, None)

    def on_unreadable(self, key: ReflectorKey, why: str) -> None:
        if key.node:
            self.remove(key)
        else:
            self._unreadable[key.section] = why
