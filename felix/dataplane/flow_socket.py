"""The real kernel behind the flow log: packets of our nflog group. Never waits; decides nothing."""

from weft.netlink import nflog
from weft.netlink.message import MalformedMessageError
from weft.netlink.socket import NETLINK_NETFILTER, NetlinkSocket, ResyncNeededError

_COPY_BYTES = 128
_WAIT_MS = 200
_AT_ONCE = 50
_BUFFER_BYTES = 1 << 20
_DATAGRAMS = 16  # of `_AT_ONCE` packets each at most


class FlowSocket:
    """Raises OSError where somebody else listens to the group, or the kernel has no nflog."""

    def __init__(self, group: int, netns_fd: int | None = None) -> None:
        self._socket = NetlinkSocket(NETLINK_NETFILTER, netns_fd=netns_fd, buffer_bytes=_BUFFER_BYTES)
        self._sequence: int | None = None
        self.lost = 0
        failures = self._socket.request(nflog.bind(group, _COPY_BYTES, _WAIT_MS, _AT_ONCE))
        if failures:
            self._socket.close()
            raise OSError(failures[0].errno, f"nflog group {group}: {failures[0].text}")

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def receive(self) -> list[nflog.LoggedPacket]:
        """Some of what is waiting; the rest makes the socket readable again. `lost` is what came too fast."""
        found: list[nflog.LoggedPacket] = []
        try:
            messages = self._socket.receive(_DATAGRAMS)
        except ResyncNeededError:
            return found  # the next packet's number tells how many
        for message in messages:
            try:
                packet = nflog.packet(message)
            except MalformedMessageError:
                self.lost += 1
                continue
            if packet is not None:
                self.lost += nflog.lost_between(self._sequence, packet.sequence)
                self._sequence = packet.sequence
                found.append(packet)
        return found
