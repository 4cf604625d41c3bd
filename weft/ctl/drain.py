"""node drain and node undrain: store the wish, and watch the node's BGP agent carry it out.

The wish is an annotation of the Node resource, so any node can be asked from anywhere, and one whose agent does not run
finds it when it does."""

from __future__ import annotations

import asyncio
import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from weft.admin.api import Manifest, ResourceAPI, StoredResource, Verb
from weft.ctl.backend import connect
from weft.ctl.config import Target
from weft.ctl.errors import CommandError, UsageError
from weft.model import drain
from weft.model.errors import ConflictError, WeftError
from weft.model.names import endpoint_prefix

ATTEMPTS = 5
PATIENCE_S = 60.0
MOST_NAMED = 5


async def run(arguments: Namespace, target: Target) -> int:
    """Exit code 1 where the node is not done in time; the wish stays."""
    draining = arguments.action == "drain"
    wait_s = _seconds("--wait", arguments.wait) if draining else None
    timeout_s = PATIENCE_S + (wait_s or 0)
    if arguments.timeout is not None:
        timeout_s = _seconds("--timeout", arguments.timeout)
    async with connect(target) as backend:
        changed = await _wish(backend.resources, arguments.node, wait_s)
        if not changed:
            print(f"{arguments.node}: {'already asked to drain' if draining else 'not asked to drain'}")
        if draining:
            await _warn_of_workloads(backend.resources, arguments.node)
        if arguments.no_wait:
            return 0
        return await _follow(backend.resources, arguments.node, draining, timeout_s)


def _seconds(flag: str, text: str) -> float:
    try:
        return drain.parse_wait(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error


async def _wish(resources: ResourceAPI, node: str, wait_s: float | None) -> bool:
    """Whether anything had to be changed. Raises NotFoundError for a node that does not exist."""
    for _ in range(ATTEMPTS):
        document = json.loads((await resources.get("Node", "", node)).json)
        metadata = document["metadata"]
        before: Mapping[str, str] = metadata.get("annotations") or {}
        after = _annotations(before, wait_s)
        if after == before:
            return False
        metadata["annotations"] = after
        try:
            await resources.write(Verb.REPLACE, Manifest(json.dumps(document).encode(), f"Node {node}"))
        except ConflictError:
            continue
        return True
    raise CommandError(f"{node}: its Node resource changes too often; nothing was asked of it")


def _annotations(before: Mapping[str, str], wait_s: float | None) -> dict[str, str]:
    """A new wish comes without what was said of the last one; what is said of an end of it is the agent's."""
    if wait_s is None:
        return {name: text for name, text in before.items() if name != drain.WISH}
    kept = {name: text for name, text in before.items() if name != drain.STATE or drain.WISH in before}
    return kept | {drain.WISH: drain.wait_text(wait_s)}


async def _warn_of_workloads(resources: ResourceAPI, node: str) -> None:
    """Said once the wish is stored: an agent takes it up meanwhile, and withdraws nothing before `--wait`."""
    try:
        found = [one for one in (await resources.list("WorkloadEndpoint")).items if _is_on(node, one)]
    except WeftError as error:
        print(f"{node}: whether workloads are still on it could not be read: {error}", file=sys.stderr)
        return
    if not found:
        return
    shown = ", ".join(sorted(f"{one.namespace}/{one.name}" for one in found)[:MOST_NAMED])
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    what = "1 workload is" if len(found) == 1 else f"{len(found)} workloads are"
    print(
        f"{node}: {what} still on it, and out of reach from elsewhere once it is drained: {shown}{more}",
        file=sys.stderr,
    )


def _is_on(node: str, endpoint: StoredResource) -> bool:
    # An endpoint's name begins with its node's, but so does that of an endpoint of `n1-a` with `n1`.
    if not endpoint.name.startswith(endpoint_prefix(node)):
        return False
    found: str = json.loads(endpoint.json)["spec"].get("node", "")
    return found == node


async def _follow(resources: ResourceAPI, node: str, draining: bool, timeout_s: float) -> int:
    """Print every state until the last one."""
    shown = ""
    try:
        async with asyncio.timeout(timeout_s), aclosing(resources.watch("Node", "", node)) as changes:
            async for change in changes:
                if change.resource is None:
                    continue
                if not change.resource.json:
                    raise CommandError(f"{node}: the node was deleted")
                state = _state(json.loads(change.resource.json))
                if state not in (None, shown) and (draining or not drain.is_drained(state)):
                    shown = state or ""
                    print(f"{node}: {state}", flush=True)
                if drain.is_drained(state) if draining else state is None:
                    break
    except TimeoutError:
        why = shown or "its BGP agent has not taken it up: does it run?"
        print(f"{node}: not done after {timeout_s:g}s: {why}", file=sys.stderr)
        return 1
    if not draining:
        print(f"{node}: announces again")
    return 0


def _state(document: Mapping[str, Any]) -> str | None:
    annotations = document["metadata"].get("annotations") or {}
    state: str | None = annotations.get(drain.STATE)
    return state
