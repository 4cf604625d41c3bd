"""bgp peers|routes|best|received|advertised|trace|config: ask the BGP agent of this machine."""

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


async def run(arguments: Namespace, run_dir: Path) -> int:
    """Raises CommandError where no BGP agent answers, and what the agent refuses."""
    path = arguments.socket or run_dir / SOCKET
    from weft.ctl.backend import refusal

    reason = refusal(path)
    if reason is not None:
        raise CommandError(f"the BGP agent does not answer on {path}: {reason}")
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
