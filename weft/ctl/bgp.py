"""bgp peers|routes|best|received|advertised|trace|config: ask the BGP agent of a node, or a reflector.

That of this machine is asked on its socket, any other through the datastore."""

from __future__ import annotations

import getpass
import os
import socket
import sys
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft.ctl import bgp_view, output
from weft.ctl.config import find_target, run_dir
from weft.ctl.errors import CommandError, UsageError

if TYPE_CHECKING:
    from weft.admin.services.bgp import BgpClient
    from weft.model.keys import Addressee

SOCKET = "bird-agent.sock"
SOON_S = 3.0
_NAMES = {True: "the BGP agent", False: "the reflector"}


async def run(arguments: Namespace, environ: Mapping[str, str]) -> int:
    """Raises CommandError where nobody can be asked, and what the agent refuses."""
    if arguments.node is None and arguments.config is not None:
        raise UsageError("--config is for asking another node, by --node NAME")
    of = _here if arguments.node is None else _of_node
    async with of(arguments, environ) as client:
        report, text = await _ask(client, arguments)
    match arguments.output:
        case "json":
            sys.stdout.write(output.to_json(bgp_view.tree(report)))
        case "yaml":
            sys.stdout.write(output.to_yaml(bgp_view.tree(report)))
        case _:
            sys.stdout.write(text)
    return 0


@asynccontextmanager
async def _here(arguments: Namespace, environ: Mapping[str, str]) -> AsyncIterator[BgpClient]:
    """What answers on a socket of this machine."""
    path = arguments.socket or _socket(arguments.reflector, run_dir(environ))
    from weft.ctl.backend import refusal

    reason = refusal(path)
    if reason is not None:
        raise CommandError(
            f"{_NAMES[arguments.reflector is None]} does not answer on {path}: {reason} (--node NAME asks any node)"
        )
    from weft.admin.client import AdminClient

    async with AdminClient(path) as client:
        yield client.bgp


@asynccontextmanager
async def _of_node(arguments: Namespace, environ: Mapping[str, str]) -> AsyncIterator[BgpClient]:
    """On its socket where it runs here, which needs no datastore; else by a question that waits for it there."""
    from weft.admin.client import AdminClient
    from weft.admin.services.bgp import BgpClient
    from weft.ctl.backend import connect
    from weft.model.errors import FieldError
    from weft.model.keys import Addressee

    try:
        addressee = Addressee("agent", arguments.node)
        if arguments.reflector is not None:
            addressee = Addressee("reflector", arguments.reflector or arguments.node)
    except FieldError as error:
        raise UsageError(f"--node, --reflector: {error}") from error
    path = await _socket_of(addressee, arguments.socket, run_dir(environ))
    if path is not None:
        async with AdminClient(path) as client:
            yield client.bgp
        return
    async with connect(find_target(environ, arguments.config, arguments.socket)) as backend:

        async def exchange(method: str, request: bytes) -> bytes:
            return await backend.questions.ask(addressee, method, request, _asker())

        yield BgpClient(exchange)


async def _socket_of(addressee: Addressee, given: Path | None, directory: Path) -> Path | None:
    """Where the addressee itself listens on this machine."""
    name = SOCKET if addressee.role == "agent" else f"reflector-{addressee.node}.sock"
    path = given or directory / name
    from weft.ctl.backend import refusal

    if refusal(path) is not None:
        return None
    from weft.admin.client import AdminClient
    from weft.model.errors import WeftError

    async with AdminClient(path, timeout_s=SOON_S) as client:
        try:
            status = await client.node_status()
        except WeftError:
            return None  # no agent of ours, or one that cannot answer: the datastore may still lead to it
    agent = "bird-agent" if addressee.role == "agent" else "reflector"
    return path if (status.node, status.agent.name) == (addressee.node, agent) else None


def _asker() -> str:
    """For the log of whoever is asked."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _socket(reflector: str | None, directory: Path) -> Path:
    """Of the BGP agent, or of a reflector: of the one of this name, or of the only one (an empty name)."""
    if reflector is None:
        return directory / SOCKET
    if reflector:
        return directory / f"reflector-{reflector}.sock"
    found = sorted(directory.glob("reflector-*.sock"))
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.stem.removeprefix("reflector-") for path in found)
    raise CommandError(f"name the reflector: {names}" if found else f"no reflector runs here (looked in {directory})")


async def _ask(client: BgpClient, arguments: Namespace) -> tuple[Any, str]:
    """The report, and how it looks as a table."""
    from weft.admin.bgp import PathView

    wide = arguments.output == "wide"
    match arguments.action:
        case "peers":
            peers, not_enforced = await client.peers()
            return peers, bgp_view.peers_table(peers, not_enforced, time.time(), wide)
        case "trace":
            trace = await client.trace(arguments.destination)
            return trace, bgp_view.trace_text(trace, arguments.destination, wide)
        case "config":
            config = await client.config()
            return config, bgp_view.config_text(config)
        case action:
            paths = await client.paths(PathView(action), getattr(arguments, "peer", ""))
            legend = bgp_view.LEGEND if paths and action != "advertised" else ""
            return paths, bgp_view.paths_table(paths, wide) + legend
