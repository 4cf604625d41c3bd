"""ipam show, ipam configure and ipam release, in calicoctl's words and tables."""

from __future__ import annotations

import sys
from argparse import Namespace
from ipaddress import ip_address
from typing import Any

from weft.admin.api import IPAMAPI, AddressInfo, AddressState, BlockUsage, IPAMSettings, PoolUsage, Utilization
from weft.ctl import output
from weft.ctl.backend import connect
from weft.ctl.config import Target
from weft.ctl.errors import CommandError, UsageError
from weft.ctl.tables import grid
from weft.model.address import IPAddress

USAGE_HEADINGS = ("GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE")
BORROWED_HEADINGS = ("IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO")
BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


async def run(arguments: Namespace, target: Target) -> int:
    changes = {} if arguments.action != "configure" or arguments.configure_action else _changes(arguments)
    address = _address(arguments.ip) if getattr(arguments, "ip", None) else None
    async with connect(target) as backend:
        match arguments.action:
            case "show":
                sys.stdout.write(await _show(backend.ipam, arguments, address))
            case "configure" if arguments.configure_action == "show":
                sys.stdout.write(settings_table(await backend.ipam.settings()))
            case "configure":
                await backend.ipam.configure(**changes)
                for name, value in changes.items():
                    label = "".join(part.capitalize() for part in name.split("_"))
                    print(f"Successfully set {label} to: {_go(value)}")
            case "release":
                assert address is not None
                if not (await backend.ipam.release([address])).released:
                    raise CommandError(f"IP address {address} is not assigned")
                print(f"Successfully released IP address {address}")
    return 0


def _address(text: str) -> IPAddress:
    try:
        return ip_address(text)
    except ValueError as error:
        raise UsageError(f"--ip: {text!r} is not an IPv4 or IPv6 address") from error


def _changes(arguments: Namespace) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for flag, name in (("strictaffinity", "strict_affinity"), ("auto_allocate_blocks", "auto_allocate_blocks")):
        text = getattr(arguments, flag)
        if text is not None:
            if text.lower() not in BOOLEANS:
                raise UsageError(f"invalid value {text!r}. Use true or false to set {flag.replace('_', '-')}")
            changes[name] = BOOLEANS[text.lower()]
    count = arguments.max_blocks_per_host
    if count is not None:
        if not count.isdecimal():
            raise UsageError(f"invalid value {count!r} for max-blocks-per-host. Use a valid number")
        changes["max_blocks_per_host"] = int(count)
    if not changes:
        raise UsageError("at least one configuration option must be specified")
    return changes


async def _show(ipam: IPAMAPI, arguments: Namespace, address: IPAddress | None) -> str:
    if address is not None:
        info = await ipam.look_up(address)
        tree: Any = {"ip": str(address), "state": info.state.value, **_info_tree(info)}
        text = address_text(address, info)
    elif arguments.show_configuration:
        settings = await ipam.settings()
        tree, text = _settings_tree(settings), settings_table(settings)
    elif arguments.show_borrowed:
        borrowed = await ipam.borrowed()
        rows = [
            (str(one.address), one.borrower, str(one.block), one.owner, one.holder_type, one.holder) for one in borrowed
        ]
        names = ("ip", "borrowingNode", "block", "blockOwner", "type", "allocatedTo")
        tree = [dict(zip(names, row, strict=True)) for row in rows]
        text = grid(BORROWED_HEADINGS, rows)
    else:
        usage = await ipam.utilization()
        tree, text = _usage_tree(usage), usage_table(usage, arguments.show_blocks)
    match arguments.output:
        case "json":
            return output.to_json(tree)
        case "yaml":
            return output.to_yaml(tree)
        case _:
            return text


def address_text(address: IPAddress, info: AddressInfo) -> str:
    if info.state is not AddressState.IN_USE:
        because = "" if info.state is AddressState.FREE else f" ({info.state.value})"
        return f"{address} is not assigned{because}\n"
    lines = [f"IP {address} is in use", f"Handle ID: {info.handle_id or '<none>'}"]
    if info.attributes:
        lines += ["Attributes:", *(f"  {name}: {value}" for name, value in info.attributes)]
    else:
        lines.append("No attributes defined")
    return "\n".join(lines) + "\n"


def usage_table(usage: Utilization, with_blocks: bool) -> str:
    rows = []
    for pool in usage.pools:
        rows.append(_usage_row("IP Pool", pool))
        if with_blocks:
            rows += [_usage_row("Block", block) for block in pool.blocks]
    if with_blocks:
        rows += [_usage_row("Block", block) for block in usage.orphans]
    return grid(USAGE_HEADINGS, rows, right=USAGE_HEADINGS[2:])


def _usage_row(grouping: str, usage: PoolUsage | BlockUsage) -> tuple[str, ...]:
    def part(count: int) -> str:
        return f"{count:.5g} ({100 * count / usage.total:.0f}%)"

    free = usage.total - usage.used - usage.reserved
    return (grouping, str(usage.cidr), f"{usage.total:.5g}", part(usage.used), part(usage.reserved), part(max(0, free)))


def settings_table(settings: IPAMSettings) -> str:
    rows = [(name[0].upper() + name[1:], _go(value)) for name, value in _settings_tree(settings).items()]
    return grid(("PROPERTY", "VALUE"), rows)


def _go(value: bool | int) -> str:
    return str(value).lower()


def _settings_tree(settings: IPAMSettings) -> dict[str, bool | int]:
    return {
        "strictAffinity": settings.strict_affinity,
        "autoAllocateBlocks": settings.auto_allocate_blocks,
        "maxBlocksPerHost": settings.max_blocks_per_host,
    }


def _info_tree(info: AddressInfo) -> dict[str, Any]:
    return {
        "pool": info.pool,
        "block": info.block,
        "affinity": info.affinity,
        "handleID": info.handle_id,
        "attributes": dict(info.attributes),
    }


def _usage_tree(usage: Utilization) -> dict[str, Any]:
    return {
        "pools": [
            {"name": pool.name, **_counts(pool), "blocks": [_block_tree(block) for block in pool.blocks]}
            for pool in usage.pools
        ],
        "orphanedBlocks": [_block_tree(block) for block in usage.orphans],
    }


def _block_tree(block: BlockUsage) -> dict[str, Any]:
    return {**_counts(block), "affinity": block.affinity}


def _counts(usage: PoolUsage | BlockUsage) -> dict[str, Any]:
    return {"cidr": str(usage.cidr), "total": usage.total, "inUse": usage.used, "reserved": usage.reserved}
