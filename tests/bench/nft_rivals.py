"""The other ways to change a table: `nft -f` and libnftables in process, each given the same change as text.

libnftables is called as its own Python module does (libnftables(3)): the package `nftables` needs it, so it is there
wherever `nft` is."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from felix.dataplane.nft import NftDriver
from felix.dataplane.nft_kernel import NftSocket
from felix.rules import values as v
from lab.netns import NetNs


class LibNftables:
    """One context of libnftables, kept as a daemon would keep it. Belongs to the network namespace it is made in."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libnftables.so.1")
        self._library.nft_ctx_new.restype = ctypes.c_void_p
        self._library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        self._context = ctypes.c_void_p(self._library.nft_ctx_new(0))
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, script: str) -> None:
        if self._library.nft_run_cmd_from_buffer(self._context, script.encode()) != 0:
            raise RuntimeError(self._library.nft_ctx_get_error_buffer(self._context).decode())

    def close(self) -> None:
        self._library.nft_ctx_free(self._context)


def nft(script: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)


def listed(*what: str) -> str:
    """What nft shows of an object."""
    return subprocess.run(["nft", "list", *what], capture_output=True, text=True, check=True).stdout


def has_element(name: str, element: object) -> bool:
    asked = ["nft", "get", "element", "inet", "weft", name, f"{{ {element} }}"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def milliseconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


class Contenders:
    """Our driver and both rivals on one table."""

    def __init__(self, driver: NftDriver, library: LibNftables) -> None:
        self.driver = driver
        self.rivals: dict[str, Callable[[str], None]] = {"nft -f": nft, "libnftables": library.run}


@contextmanager
def contenders(name: str, table: v.Table) -> Iterator[Contenders]:
    """In a namespace of their own, with the calling thread and its children in there too."""
    netns = NetNs(f"weft-{os.getpid()}-bench-{name}").create()
    try:
        with netns.enter():
            kernel, library = NftSocket(), LibNftables()
            try:
                driver = NftDriver(kernel)
                report = driver.start(table, 0.0)
                assert report.in_kernel, report
                assert not report.failed, report
                yield Contenders(driver, library)
            finally:
                library.close()
                kernel.close()
    finally:
        netns.delete()
