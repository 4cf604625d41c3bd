"""What a workload's pair of interfaces is: the values that the wiring takes and gives back. Nothing here acts."""

from msgspec import Struct

from weft.model.address import IPAddress
from weft.model.errors import WeftError


class InterfaceExistsError(WeftError):
    """An interface of that name is already in the namespace or on the host: nothing was changed."""

    def __init__(self, interface: str) -> None:
        super().__init__(f"interface {interface} already exists")
        self.interface = interface


class Attachment(Struct, frozen=True):
    """A veth pair to make: one end in the workload's namespace, the other on the host.

    netns: an open descriptor of the namespace; the caller keeps it open during the call and closes it.
    mac: of the workload's end. The host's end is always ee:ee:ee:ee:ee:ee."""

    netns: int
    interface: str
    host_interface: str
    addresses: tuple[IPAddress, ...]
    mtu: int
    mac: str


class Inspection(Struct, frozen=True):
    """CHECK's view of a pair. `mac` and `addresses` are those of the workload's end; None and () if it is gone."""

    host_interface_up: bool
    interface_up: bool
    mac: str | None
    addresses: tuple[IPAddress, ...]
    has_default_route: bool
