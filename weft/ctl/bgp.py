"""bgp peers|routes|best|received|advertised|trace|config: ask the BGP agent of this machine, or a reflector."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft.ctl import bgp_view, output
from weft.ctl.errors import CommandError

if TYPE_CHECKING:
    from weft.admin.client import AdminClient

SOCKET = "bird-agent.sock"
_NAMES = {True: "the BGP agent", False: "the reflector"}


async def run(arguments: Namespace, run_dir: Path) -> int:
    """Raises CommandError where no BGP agent answers, and what the agent refuses."""
    path = arguments.socket or _socket(arguments.reflector, run_dir)
    from weft.ctl.backend import refusal

    reason = refusal(path)
    if reason is not None:
        raise CommandError(f"{_NAMES[arguments.reflector is None]} does not answer on {path}: {reason}")
    from weft.admin.client import AdminClient

    async with AdminClient(path) as client:
        report, text = await _ask(client, arguments)
    match arguments.output:
        case "json":
            sys.stdout.write(output.to_json(bgp_view.tree(report)))
        case "yaml":
            sys.stdout.write(output.to_yaml(bgp_view.tree(report)))
        case _:
            sys.stdout.write(text)
    return 0


def _socket(reflector: str | None, run_dir: Path) -> Path:
    """Of the BGP agent, or of a reflector: of the one of this name, or of the only one (an empty name)."""
    if reflector is None:
        return run_dir / SOCKET
    if reflector:
        return run_dir / f"reflector-{reflector}.sock"
    found = sorted(run_dir.glob("reflector-*.sock"))
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.stem.removeprefix("reflector-") for path in found)
    raise CommandError(f"name the reflector: {names}" if found else f"no reflector runs here (looked in {run_dir})")


async def _ask(client: AdminClient, arguments: Namespace) -> tuple[Any, str]:
    """The report, and how it looks as a table."""
    from weft.admin.bgp import PathView

    wide = arguments.output == "wide"
    match arguments.action:
        case "peers":
            peers = await client.bgp_peers()
            return peers, bgp_view.peers_table(peers, time.time(), wide)
        case "trace":
            trace = await client.bgp_trace(arguments.destination)
            return trace, bgp_view.trace_text(trace, arguments.destination, wide)
        case "config":
            config = await client.bgp_config()
            return config, bgp_view.config_text(config)
        case action:
            paths = await client.bgp_paths(PathView(action), getattr(arguments, "peer", ""))
            legend = bgp_view.LEGEND if paths and action != "advertised" else ""
            return paths, bgp_view.paths_table(paths, wide) + legend
