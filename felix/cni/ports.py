"""What the CNI server needs from the rest of the agent.

The server decides what an ADD or DEL means; it never speaks netlink or nft itself. Whoever composes
the agent gives it one object for each of these."""

from dataclasses import dataclass
from typing import Protocol

from weft.model.address import IPAddress
from weft.model.errors import WeftError
from weft.model.keys import ResourceKey
from weft.model.workload import WorkloadEndpoint


class InterfaceExistsError(WeftError):
    """An interface of that name is already in the namespace or on the host: nothing was changed."""

    def __init__(self, interface: str) -> None:
        super().__init__(f"interface {interface} already exists")
        self.interface = interface


@dataclass(frozen=True, slots=True)
class Attachment:
    """A veth pair to make: one end in the workload's namespace, the other on the host.

    netns: an open descriptor of the namespace; the caller keeps it open during the call and closes it.
    mac: of the workload's end; None lets the kernel choose. The host's end is always ee:ee:ee:ee:ee:ee."""

    netns: int
    interface: str
    host_interface: str
    addresses: tuple[IPAddress, ...]
    mtu: int
    mac: str | None = None


@dataclass(frozen=True, slots=True)
class Attached:
    """The pair as the kernel made it."""

    host_index: int
    mac: str
    mtu: int


class Wiring(Protocol):
    """The interfaces of workloads, and what is inside their namespaces. Synchronous: it never waits."""

    def attach(self, attachment: Attachment) -> Attached:
        """Make the pair; give the workload its addresses, default routes and permanent neighbour; set
        the host side's forwarding, proxy ARP and so on. The host route is not its business.

        It leaves nothing behind when it raises. InterfaceExistsError: either name is taken. OSError:
        what the kernel said."""

    def detach(self, host_interface: str, netns: int | None, interface: str) -> bool:
        """Take the pair out of service so that both names are free at once; the device itself may go later.

        Idempotent: False if there was no such pair. With no namespace, or one without the interface,
        the host's end alone is taken away. A host-side name that is not ours is left alone."""

    def inspect(self, host_interface: str, netns: int, interface: str) -> "Inspection":
        """What is there now, for CHECK; changes nothing."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """CHECK's view of a pair. `mac` and `addresses` are those of the workload's end; None and () if it is gone."""

    host_interface_up: bool
    interface_up: bool
    mac: str | None
    addresses: tuple[IPAddress, ...]
    has_default_route: bool


class Programmer(Protocol):
    """Policy and host routes of local endpoints."""

    async def program(self, endpoint: WorkloadEndpoint) -> None:
        """Return once the endpoint's policy, and after it its routes, are in the kernel; raise WeftError if they cannot be."""

    async def remove(self, key: ResourceKey) -> None:
        """Take the endpoint's routes, and after them its policy, out of the kernel. Idempotent."""
