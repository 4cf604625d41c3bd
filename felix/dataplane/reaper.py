"""Delete the interfaces that were taken out of service, many at once and away from the event loop.

Deleting a veth keeps the kernel busy for 16 ms, alone or one of many: so a retired interface is down, renamed and in a
group of its own, and a thread deletes the group some milliseconds later. Nothing else is ever in that group. What a
dead agent left is recognised by its name and deleted at start."""

import errno
import logging
import re
import threading

from weft.netlink.rtnetlink import decode_link, delete_links_of_group, dump_links, set_link
from weft.netlink.socket import NetlinkSocket

RETIRED_GROUP = int.from_bytes(b"weft", "big")
RETIRED_NAME = re.compile(r"weftdel\d{1,8}")
DELAY_S = 0.02
HIGHEST_INDEX = 10**8
"""Names of retired interfaces hold indexes below this one: longer ones are no interface names."""

log = logging.getLogger(__name__)


def retired_name(index: int) -> str:
    """The name of a retired interface; unique since the index is. Raises ValueError if it does not fit."""
    if index >= HIGHEST_INDEX:
        raise ValueError(f"weftdel{index} is longer than an interface name can be")
    return f"weftdel{index}"


def retirement(index: int) -> list[bytes]:
    """Take an interface out of service: down first, since older kernels rename nothing that is up."""
    return [set_link(index, up=False), set_link(index, name=retired_name(index), group=RETIRED_GROUP)]


class Reaper:
    """The thread that deletes, for the network namespace it is made in. `close` ends it after what is due."""

    def __init__(self, delay_s: float = DELAY_S) -> None:
        self._socket = NetlinkSocket()
        self._delay_s = delay_s
        self._due = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="weft-reaper", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Some interface has been retired."""
        self._due.set()

    def adopt_leftovers(self) -> list[str]:
        """Retire again what carries a retired interface's name, and return those names."""
        with NetlinkSocket() as socket:
            links = [decode_link(answer) for answer in socket.dump(dump_links())]
            left = [link for link in links if RETIRED_NAME.fullmatch(link.name)]
            batch = [set_link(link.index, up=False, group=RETIRED_GROUP) for link in left]
            for failure in socket.request(batch):
                if failure.errno != errno.ENODEV:
                    log.warning("cannot retire leftover %s: %s", left[failure.index].name, failure.text)
        if left:
            self.notify()
        return [link.name for link in left]

    def close(self) -> None:
        self._ending.set()
        self._due.set()
        self._thread.join()
        self._socket.close()

    def _work(self) -> None:
        ending = False
        while not ending:
            self._due.wait()
            self._due.clear()  # before anything is looked at: what comes later is due again
            ending = self._ending.wait(self._delay_s)
            self._delete()

    def _delete(self) -> None:
        try:
            failures = self._socket.request([delete_links_of_group(RETIRED_GROUP)])
        except OSError as error:
            log.warning("cannot delete retired interfaces: %s", error)
            return
        for failure in failures:
            if failure.errno != errno.ENODEV:  # none left: their namespaces went first
                log.warning("cannot delete retired interfaces: %s", failure.text)
