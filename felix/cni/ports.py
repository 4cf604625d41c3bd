"""What the CNI server needs from the rest of the agent.

The server decides what an ADD or DEL means; it never speaks netlink or nft itself. Whoever composes
the agent gives it one object for each of these."""

from typing import Protocol

from felix.dataplane.attachment import Attachment, Inspection, InterfaceExistsError
from weft.model.endpoint import WorkloadEndpoint
from weft.model.keys import ResourceKey

__all__ = ["Attachment", "Inspection", "InterfaceExistsError", "Programmer", "Wiring"]


class Wiring(Protocol):
    """The interfaces of workloads, and what is inside their namespaces. Synchronous: it never waits."""

    def attach(self, attachment: Attachment) -> int:
        """Make the pair; give the workload its addresses, default routes and permanent neighbour; set
        the host side's forwarding, proxy ARP and so on. The host route is not its business. The interface index of
        the host's end.

        It leaves nothing behind when it raises. InterfaceExistsError: either name is taken. OSError:
        what the kernel said."""

    def detach(self, host_interface: str, netns: int | None, interface: str) -> bool:
        """Take the pair out of service so that both names are free at once; the device itself may go later.

        Idempotent: False if there was no such pair. With no namespace, or one without the interface,
        the host's end alone is taken away. A host-side name that is not ours is left alone."""

    def inspect(self, host_interface: str, netns: int, interface: str) -> Inspection:
        """What is there now, for CHECK; changes nothing."""


class Programmer(Protocol):
    """Policy and host routes of local endpoints."""

    async def program(self, endpoint: WorkloadEndpoint) -> None:
        """Return once the endpoint's policy, and after it its routes, are in the kernel; WeftError if that fails."""

    async def remove(self, key: ResourceKey) -> None:
        """Take the endpoint's routes, and after them its policy, out of the kernel. Idempotent."""

    def retire(self, key: ResourceKey) -> None:
        """As `remove`, for an endpoint whose interface goes now, and with it the kernel's routes: what is left in the
        kernel follows within milliseconds, in any case before anything else is programmed."""
