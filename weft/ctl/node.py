"""node status: ask every agent of this machine and join what they say; an agent that does not answer is named."""

from __future__ import annotations

import asyncio
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from weft.admin.status import NodeStatus
from weft.ctl import node_view, output
from weft.model.errors import WeftError

# Agents by the name of their socket, and whether a node works without them.
AGENTS = {"felix": True, "bird-agent": True, "node": False}
TIMEOUT_S = 5.0


class Answer(Struct, frozen=True):
    """What one agent said, or why it did not."""

    agent: str
    socket_path: Path
    status: NodeStatus | None
    failure: str = ""


async def status(arguments: Namespace, run_dir: Path) -> int:
    """Exit code 1 where an agent that forwarding or routing depends on does not answer."""
    if arguments.socket is not None:
        sockets: Mapping[str, Path] = {arguments.socket.name.removesuffix(".sock"): arguments.socket}
    else:
        sockets = {name: run_dir / f"{name}.sock" for name in AGENTS}
    answers = await asyncio.gather(*(_ask(name, path) for name, path in sockets.items()))
    sys.stdout.write(_render(arguments.output, answers))
    missing = [answer for answer in answers if answer.status is None]
    for answer in missing:
        print(f"{answer.agent} does not answer on {answer.socket_path}: {answer.failure}", file=sys.stderr)
    return 1 if any(AGENTS.get(answer.agent, True) for answer in missing) else 0


async def _ask(agent: str, path: Path) -> Answer:
    from weft.ctl.backend import refusal

    reason = refusal(path)
    if reason is not None:
        return Answer(agent, path, None, reason)
    from weft.admin.client import AdminClient

    try:
        async with AdminClient(path, timeout_s=TIMEOUT_S) as client:
            return Answer(agent, path, await client.node_status())
    except WeftError as error:
        return Answer(agent, path, None, str(error))


def _render(format_: str, answers: Sequence[Answer]) -> str:
    statuses = [answer.status for answer in answers if answer.status is not None]
    missing = {answer.agent: answer.failure for answer in answers if answer.status is None}
    match format_:
        case "json":
            return output.to_json(node_view.tree(statuses, missing))
        case "yaml":
            return output.to_yaml(node_view.tree(statuses, missing))
        case _:
            return node_view.tables(statuses, missing, time.time(), wide=format_ == "wide")
