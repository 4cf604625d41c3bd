"""Open what answers resource and IPAM commands: the services in this process on etcd, or an agent's socket."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from weft.ctl.errors import CommandError

if TYPE_CHECKING:
    from weft.admin.api import IPAMAPI, ResourceAPI
    from weft.ctl.config import Target

HINT = "start weft on this machine, give --socket, or name etcd endpoints in ETCD_ENDPOINTS or a file for --config"


class Backend(Protocol):
    """What the commands need."""

    @property
    def resources(self) -> ResourceAPI: ...

    @property
    def ipam(self) -> IPAMAPI: ...


@asynccontextmanager
async def connect(target: Target) -> AsyncIterator[Backend]:
    """Raises CommandError when there is nobody to ask."""
    if target.etcd is not None:
        from weft.admin.assembly import datastore_api
        from weft.datastore.etcd import EtcdDatastore

        store = EtcdDatastore(target.etcd)
        try:
            yield datastore_api(store)
        finally:
            await store.close()
        return
    path = first_served(target.sockets)
    from weft.admin.client import AdminClient

    async with AdminClient(path) as client:
        yield client


def first_served(paths: Sequence[Path]) -> Path:
    """The first socket that somebody listens on. Raises CommandError naming what is wrong with each."""
    reasons = []
    for path in paths:
        reason = refusal(path)
        if reason is None:
            return path
        reasons.append(f"{path}: {reason}")
    raise CommandError(f"no agent answers ({'; '.join(reasons)}): {HINT}")


def refusal(path: Path) -> str | None:
    """Why nobody can be asked on this socket; None if somebody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            return error.strerror or str(error)
    return None
