"""bgp reflectors [show|enable|disable|set]: the fabric's automatic reflectors, and what other settings would change."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any, Final

from weft.ctl import output, reflectors_view
from weft.ctl.backend import connect
from weft.ctl.config import Target
from weft.ctl.errors import UsageError
from weft.model.stored import to_builtins

COUNTS: Final = ("above_nodes", "back_below", "per_domain", "replace_after_seconds", "return_after_seconds")


async def run(arguments: Namespace, target: Target) -> int:
    changes = _changes(arguments)
    async with connect(target) as backend:
        if arguments.change != "show" and not arguments.dry_run:
            await backend.reflectors.configure(changes)
            changes = {}
        report = await backend.reflectors.report(changes if arguments.dry_run else None)
    match arguments.output:
        case "json":
            sys.stdout.write(output.to_json(to_builtins(report)))
        case "yaml":
            sys.stdout.write(output.to_yaml(to_builtins(report)))
        case _:
            sys.stdout.write(reflectors_view.text(report))
    return 0


def _changes(arguments: Namespace) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name in COUNTS:
        text = getattr(arguments, name)
        if text is not None:
            if not (text.isascii() and text.isdigit()):
                raise UsageError(f"--{name.replace('_', '-')}: {text!r} is not a number")
            changes[name] = int(text)
    if arguments.domain_label is not None:
        changes["domain_label"] = arguments.domain_label
    if arguments.pools is not None:
        changes["pools"] = [part.strip() for part in arguments.pools.split(",") if part.strip()]
    if arguments.change in ("enable", "disable"):
        changes["enabled"] = arguments.change == "enable"
    elif changes and arguments.change == "show" and not arguments.dry_run:
        raise UsageError("settings are changed by enable or set, and tried with --dry-run")
    elif not changes and arguments.change == "set":
        raise UsageError("set needs at least one setting, such as --above-nodes 200")
    return changes
