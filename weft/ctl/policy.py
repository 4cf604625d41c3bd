"""policy counters, policy flows: what policy did to packets, as the felix of this machine tells it."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from weft.ctl import output, policy_view

if TYPE_CHECKING:  # gRPC takes a while to load
    from weft.admin.client import AdminClient

TIMEOUT_S = 10.0
FOLLOW_S = 1.0


async def run(arguments: Namespace, run_dir: Path) -> int:
    from weft.admin.client import AdminClient

    path: Path = arguments.socket or run_dir / "felix.sock"
    async with AdminClient(path, timeout_s=TIMEOUT_S) as client:
        if arguments.action == "flows":
            return await _flows(arguments, client)
        counters = policy_view.chosen(await client.counters(), arguments.names, arguments.namespace)
        match arguments.output:
            case "json":
                sys.stdout.write(output.to_json(policy_view.counters_tree(counters)))
            case "yaml":
                sys.stdout.write(output.to_yaml(policy_view.counters_tree(counters)))
            case _:
                rules = arguments.output == "wide" or bool(arguments.names)
                sys.stdout.write(policy_view.counters_table(counters, rules=rules))
        return 0 if counters.policies or not arguments.names else 1


async def _flows(arguments: Namespace, client: AdminClient) -> int:
    """With --follow until interrupted; JSON then is one object a line."""
    found = await client.flows()
    if not arguments.follow:
        if arguments.output == "json":
            sys.stdout.write(output.to_json(policy_view.flows_tree(found)))
        else:
            sys.stdout.write(policy_view.flows_table(found))
        return 0
    while True:
        for one in found.flows:
            print(policy_view.flow_line(one, as_json=arguments.output == "json"), flush=True)
        await asyncio.sleep(FOLLOW_S)
        last = found.last
        found = await client.flows(last)
        if found.last < last:  # felix has begun anew, and counts from one
            found = await client.flows()
