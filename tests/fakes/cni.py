"""The kernel and the policy calculation as the CNI server sees them: they refuse as the real ones do.

Order matters in CNI, so both write what they did into one log; failures are injected by name."""

from __future__ import annotations

from dataclasses import dataclass, field

from felix.cni.ports import Attachment, Inspection, InterfaceExistsError
from weft.model.endpoint import WorkloadEndpoint
from weft.model.errors import WeftError
from weft.model.keys import ResourceKey


@dataclass
class FakeWiring:
    """Pairs by the host's name; a name inside a namespace is taken once."""

    log: list[str] = field(default_factory=list)
    pairs: dict[str, Attachment] = field(default_factory=dict)
    foreign: set[tuple[int, str]] = field(default_factory=set)
    """(namespace, interface) that somebody else made."""
    failing: set[str] = field(default_factory=set)
    """Host interfaces whose attachment fails half-way."""

    def attach(self, attachment: Attachment) -> int:
        taken = {(pair.netns, pair.interface) for pair in self.pairs.values()} | self.foreign
        if attachment.host_interface in self.pairs:
            raise InterfaceExistsError(attachment.host_interface)
        if (attachment.netns, attachment.interface) in taken:
            raise InterfaceExistsError(attachment.interface)
        if attachment.host_interface in self.failing:
            raise OSError(22, "Invalid argument")
        self.pairs[attachment.host_interface] = attachment
        self.log.append(f"attach {attachment.host_interface}")
        return 7

    def detach(self, host_interface: str, netns: int | None, interface: str) -> bool:
        found = self.pairs.pop(host_interface, None)
        if found is not None:
            self.log.append(f"detach {host_interface}")
        return found is not None

    def inspect(self, host_interface: str, netns: int, interface: str) -> Inspection:
        pair = self.pairs.get(host_interface)
        if pair is None:
            return Inspection(False, False, None, (), False)
        return Inspection(True, True, pair.mac, pair.addresses, True)


class CannotProgramError(WeftError):
    """Injected."""


@dataclass
class FakeProgrammer:
    """Endpoints whose policy and routes are in the kernel."""

    log: list[str] = field(default_factory=list)
    programmed: dict[ResourceKey, WorkloadEndpoint] = field(default_factory=dict)
    failing: bool = False

    async def program(self, endpoint: WorkloadEndpoint) -> None:
        if self.failing:
            raise CannotProgramError("policy")
        key = ResourceKey("WorkloadEndpoint", endpoint.name, endpoint.namespace)
        self.programmed[key] = endpoint
        self.log.append(f"program {endpoint.spec.interface_name}")

    async def remove(self, key: ResourceKey) -> None:
        self.retire(key)

    def retire(self, key: ResourceKey) -> None:
        found = self.programmed.pop(key, None)
        if found is not None:
            self.log.append(f"unprogram {found.spec.interface_name}")
