"""weft-lab: whole fabrics in network namespaces, by hand."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence

from lab import ctl, fabric, status, workloads
from lab.netns import CommandError
from lab.state import Lab, LabError, load, names
from lab.tour import tour

DEFAULT_NAME = "weft"
DEFAULT_NODES = {"flat": 3, "racks": 4, "domains": 6}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if os.geteuid() != 0:
        print("weft-lab: root is needed to make network namespaces", file=sys.stderr)
        return 2
    # A closed terminal or a plain kill ends a command as ctrl-C does: what it has begun is taken back.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, signal.default_int_handler)
    try:
        result: int = arguments.run(arguments)
    except LabError as error:
        print(f"weft-lab: {error}", file=sys.stderr)
        return 1
    except (CommandError, TimeoutError) as error:
        print(f"weft-lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="weft-lab", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = _command(commands, "up", "start a lab", _up)
    _topology_arguments(up)
    shown = _command(commands, "status", "sessions, routes and workloads", _status)
    shown.add_argument("-o", "--output", choices=("table", "json"), default="table")
    _command(commands, "down", "take a lab down", _down)
    toured = _command(commands, "tour", "start a lab and show it at work with real packets", _tour)
    _topology_arguments(toured)

    run = _command(commands, "exec", "run a command in a host or workload: exec HOST -- COMMAND", _exec)
    run.add_argument("host", metavar="HOST")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    env = _command(commands, "env", "how to point weftctl at a node: eval $(weft-lab env NODE)", _env)
    env.add_argument("node", metavar="NODE")

    workload = commands.add_parser("workload", help="add or delete workloads").add_subparsers(
        required=True, metavar="add|delete"
    )
    add = _command(workload, "add", "start a workload through the CNI plugin", _workload_add)
    add.add_argument("node", metavar="NODE")
    add.add_argument("workload", metavar="NAME")
    add.add_argument("--namespace", default="default", metavar="NS")
    add.add_argument("--labels", default="", metavar="k=v,...")
    delete = _command(workload, "delete", "end a workload", _workload_delete)
    delete.add_argument("workload", nargs="+", metavar="[NODE] NAME")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--name", default=DEFAULT_NAME, help=f"which lab (default: {DEFAULT_NAME})")
    parser.set_defaults(run=run)
    return parser


def _topology_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--topology", choices=tuple(DEFAULT_NODES), default="flat")
    parser.add_argument("--nodes", type=int, help="how many nodes (flat: 3)")


def _up(arguments: argparse.Namespace) -> int:
    nodes = arguments.nodes if arguments.nodes is not None else DEFAULT_NODES[arguments.topology]
    started = time.monotonic()
    fabric.up(arguments.name, arguments.topology, nodes, _progress)
    _progress(f"lab {arguments.name} is up after {time.monotonic() - started:.1f} s")
    return 0


def _progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _status(arguments: argparse.Namespace) -> int:
    found = status.collect(load(arguments.name))
    print(json.dumps(found, indent=2) if arguments.output == "json" else status.tables(found))
    return 0


def _down(arguments: argparse.Namespace) -> int:
    if arguments.name not in names():
        print(f"no lab named {arguments.name} is up")
        return 0
    fabric.down(load(arguments.name))
    print(f"lab {arguments.name} is down")
    return 0


def _tour(arguments: argparse.Namespace) -> int:
    nodes = arguments.nodes if arguments.nodes is not None else DEFAULT_NODES[arguments.topology]
    return tour(arguments.name, arguments.topology, nodes, _progress)


def _exec(arguments: argparse.Namespace) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise LabError("exec: name a command: weft-lab exec HOST -- COMMAND")
    lab = load(arguments.name)
    inside = lab.find_netns(arguments.host).command(command)
    sys.stdout.flush()
    os.execvp(inside[0], inside)


def _env(arguments: argparse.Namespace) -> int:
    lab = load(arguments.name)
    _require_node(lab, arguments.node)
    print(f"export WEFT_RUN_DIR={shlex.quote(str(lab.host_directory(arguments.node)))}")
    print(f"export PATH={shlex.quote(str(ctl.PROGRAMS_DIR))}:$PATH")
    return 0


def _require_node(lab: Lab, name: str) -> None:
    if not any(node.name == name for node in lab.topology.nodes):
        raise LabError(f"node {name}: not in this lab; its nodes: {', '.join(one.name for one in lab.topology.nodes)}")


def _workload_add(arguments: argparse.Namespace) -> int:
    labels = {}
    for pair in filter(None, arguments.labels.split(",")):
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise LabError(f"--labels {pair!r}: want KEY=VALUE, several with commas between")
        labels[key] = value
    added = workloads.add(load(arguments.name), arguments.node, arguments.workload, arguments.namespace, labels)
    print(f"{added.node}/{added.name}: {', '.join(added.addresses)}")
    return 0


def _workload_delete(arguments: argparse.Namespace) -> int:
    if len(arguments.workload) > 2:
        raise LabError("workload delete: name one workload: [NODE] NAME")
    lab = load(arguments.name)
    *node, name = arguments.workload
    workload = lab.find_workload(name, node[0] if node else None)
    workloads.delete(lab, workload)
    print(f"{workload.node}/{workload.name} is gone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
