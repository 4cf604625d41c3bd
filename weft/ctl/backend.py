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
    from weft.admin.client import AdminClient
    from weft.admin.questions import QuestionAPI
    from weft.admin.reflectors import ReflectorAPI
    from weft.ctl.config import Target

SERVICE = "weft.admin.v1.ResourceService"
HINT = "start weft on this machine, give --socket, or name etcd endpoints in ETCD_ENDPOINTS or a file for --config"


class Backend(Protocol):
    """What the commands need."""

    @property
    def resources(self) -> ResourceAPI: ...

    @property
    def ipam(self) -> IPAMAPI: ...

    @property
    def reflectors(self) -> ReflectorAPI: ...

    @property
    def questions(self) -> QuestionAPI: ...


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
    client = await first_agent(target.sockets)
    try:
        yield client
    finally:
        await client.close()


async def first_agent(paths: Sequence[Path]) -> AdminClient:
    """The first agent that serves the datastore's services. Raises CommandError naming what is wrong with each."""
    reasons = []
    for path in paths:
        reason = refusal(path)
        if reason is None:
            from weft.admin.client import AdminClient

            client = AdminClient(path)
            if await client.offers(SERVICE):
                return client
            await client.close()
            reason = "does not serve resources"
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
