"""version: of this program, and what the cluster says of itself."""

from __future__ import annotations

import json
from argparse import Namespace

from weft.ctl.backend import connect
from weft.ctl.config import Target
from weft.ctl.errors import CommandError
from weft.ctl.messages import describe
from weft.model.errors import WeftError


def client_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("weft")
    except PackageNotFoundError:
        return "unknown"


async def show(arguments: Namespace, target: Target) -> int:
    print(f"Client Version:    {client_version()}", flush=True)
    if arguments.client:
        return 0
    try:
        async with connect(target) as backend:
            spec = json.loads((await backend.resources.get("ClusterInformation", "", "default")).json).get("spec", {})
    except WeftError as error:
        raise CommandError(f"Unable to retrieve Cluster Version or Type: {describe(error)}") from error
    print(f"Cluster Version:   {spec.get('calicoVersion') or 'unknown'}")
    print(f"Cluster Type:      {spec.get('clusterType') or 'unknown'}")
    return 0
