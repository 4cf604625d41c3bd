"""The command line of weftctl; flags are those of calicoctl where it has one. Parses, decides nothing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = "Read and change the resources, the addresses and the state of a weft fabric."


_FILES = frozenset({"filename", "flows"})


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line as values; ends the program, as argparse does, if it is wrong.

    calicoctl takes flags between a kind and its names (`get np -n prod web`), where argparse has done with positional
    arguments: what it leaves over of get and delete are names."""
    parser = build_parser()
    arguments, left = parser.parse_known_args(argv)
    unknown = [one for one in left if one.startswith("-") and one != "-"]
    if left and (unknown or getattr(arguments, "kind", None) is None):
        parser.error(f"unrecognized arguments: {' '.join(unknown or left)}")
    if left:
        arguments.names = [*arguments.names, *left]
    for name, value in vars(arguments).items():
        if name not in _FILES and any(not _is_text(one) for one in (value if isinstance(value, list) else [value])):
            parser.error(f"{name}: {value!r} is no UTF-8")
    return arguments


def _is_text(value: object) -> bool:
    """Whether it may be a name, or an address: bytes that are no text reach us as surrogates."""
    return not isinstance(value, str) or not any("\ud800" <= one <= "\udfff" for one in value)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="weftctl", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_get(commands)
    for verb, text in (
        ("apply", "create resources, or update those that exist"),
        ("create", "create resources; refuse those that exist"),
        ("replace", "replace resources; refuse those that do not exist"),
    ):
        command = _resource_command(commands, verb, text)
        _add_files(command, required=True)
        _add_dry_run(command)
        if verb == "create":
            command.add_argument("--skip-exists", action="store_true", help="pass over resources that exist")
    delete = _resource_command(commands, "delete", "delete resources by name or by file")
    _add_files(delete, required=False)
    _add_names(delete)
    _add_dry_run(delete)
    delete.add_argument("-s", "--skip-not-exists", action="store_true", help="pass over resources that do not exist")
    _add_explain(commands)
    _add_ipam(commands)
    _add_node(commands)
    _add_bgp(commands)
    _add_policy(commands)
    version = commands.add_parser("version", help="print the versions of weftctl and of the cluster")
    version.add_argument("--client", action="store_true", help="only that of weftctl")
    _add_connection(version)
    return parser


def _add_connection(command: argparse.ArgumentParser) -> None:
    command.add_argument("-c", "--config", type=Path, metavar="FILE", help="file of kind CalicoAPIConfig")
    command.add_argument("--socket", type=Path, metavar="PATH", help="ask the agent on this socket")
    command.add_argument("--allow-version-mismatch", action="store_true", help=argparse.SUPPRESS)


def _resource_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=f"{name.capitalize()}: {text}.")
    command.add_argument("-n", "--namespace", default="", help="namespace of the resources (default: default)")
    _add_connection(command)
    return command


def _add_files(command: argparse.ArgumentParser, required: bool) -> None:
    command.add_argument(
        "-f",
        "--filename",
        action="append",
        default=[],
        required=required,
        metavar="FILE",
        help="file or directory with YAML or JSON documents, or - for stdin; may be given several times",
    )
    command.add_argument("-R", "--recursive", action="store_true", help="also the directories inside a directory")
    command.add_argument("--skip-empty", action="store_true", help="do not fail where a file has no resources")


def _add_dry_run(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--dry-run", action="store_true", help="check everything, write nothing, say what would change"
    )
    command.add_argument("--diff-flows", action="store_true", help="and which flows between endpoints would change")
    command.add_argument("--exit-code", action="store_true", help="exit with 3 where flows would change")
    command.add_argument("-o", "--output", default="ps", choices=("ps", "json"), help="of a dry run")


def _add_names(command: argparse.ArgumentParser) -> None:
    command.add_argument("kind", nargs="?", metavar="KIND", help="such as node, ippool, bgppeer, networkpolicy")
    command.add_argument("names", nargs="*", metavar="NAME")


def _add_get(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    get = _resource_command(commands, "get", "print resources by kind, by name or by file")
    _add_files(get, required=False)
    _add_names(get)
    get.add_argument(
        "-o",
        "--output",
        default="ps",
        metavar="FORMAT",
        help="ps (a table, the default), wide, yaml, json, name, custom-columns=HEADING,...",
    )
    get.add_argument("-A", "-a", "--all-namespaces", action="store_true", help="of every namespace")
    get.add_argument("-w", "--watch", action="store_true", help="go on printing changes")
    get.add_argument("--export", action="store_true", help="leave out what only this cluster knows")


def _add_explain(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    explain = commands.add_parser(
        "explain",
        help="whether policy allows a flow, and which rules decide",
        description="Explain: whether policy allows a flow, at both ends, by which rules, and what was passed over.",
    )
    explain.add_argument("--from", dest="source", metavar="END", help="NAMESPACE/NAME of an endpoint, or an address")
    explain.add_argument("--to", dest="destination", metavar="END", help="NAMESPACE/NAME of an endpoint, or an address")
    explain.add_argument("--protocol", metavar="PROTOCOL", help="tcp, udp, sctp, icmp, icmpv6, udplite or a number")
    explain.add_argument("--port", type=int, help="where the flow goes to; not for protocols without ports")
    explain.add_argument("--source-port", type=int, metavar="PORT")
    explain.add_argument("--icmp-type", type=int, metavar="TYPE", help="default: an echo request")
    explain.add_argument("--icmp-code", type=int, metavar="CODE")
    explain.add_argument("--flows", metavar="FILE", help="many flows, one JSON object a line, or - for stdin")
    explain.add_argument("--offline", action="store_true", help="ask nobody: the files of -f are the whole cluster")
    explain.add_argument("-o", "--output", default="ps", choices=("ps", "json", "yaml"))
    explain.add_argument("-n", "--namespace", default="", help="of documents that name none (default: default)")
    _add_files(explain, required=False)
    _add_connection(explain)


def _add_ipam(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    ipam = commands.add_parser("ipam", help="addresses: who has which, how many are left, the settings")
    actions = ipam.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="use of pools, of blocks, or of one address")
    show.add_argument("--ip", metavar="ADDRESS", help="who holds this address")
    show.add_argument("--show-blocks", action="store_true", help="also each block")
    show.add_argument("--show-borrowed", action="store_true", help="addresses held in another node's block")
    show.add_argument("--show-configuration", action="store_true", help="the settings")
    show.add_argument("-o", "--output", default="ps", choices=("ps", "json", "yaml"))
    configure = actions.add_parser("configure", help="change the settings")
    configure.add_argument("--strictaffinity", metavar="BOOL", help="nodes take addresses only from their own blocks")
    configure.add_argument("--auto-allocate-blocks", metavar="BOOL", help="nodes may take blocks for themselves")
    configure.add_argument("--max-blocks-per-host", metavar="COUNT", help="0: no limit")
    configure_actions = configure.add_subparsers(dest="configure_action", metavar="ACTION")
    configure_show = configure_actions.add_parser("show", help="print the settings")
    release = actions.add_parser("release", help="free an address that nobody uses any more")
    release.add_argument("--ip", required=True, metavar="ADDRESS")
    for command in (show, configure, configure_show, release):
        _add_connection(command)


def _add_node(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    node = commands.add_parser("node", help="this node's agents, sessions, routes and endpoints; draining any node")
    actions = node.add_subparsers(dest="action", required=True, metavar="ACTION")
    status = actions.add_parser("status", help="what the agents on this machine say")
    status.add_argument("-o", "--output", default="ps", choices=("ps", "wide", "json", "yaml"))
    status.add_argument("--socket", type=Path, metavar="PATH", help="ask only the agent on this socket")
    _add_drain(actions)


def _add_drain(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    drain = actions.add_parser(
        "drain",
        help="let traffic find other ways, then announce nothing any more",
        description="Drain: the node's BGP agent announces everything with GRACEFUL_SHUTDOWN (RFC 8326), waits, and "
        "withdraws it. Sessions, workloads and their addresses stay. It remains so until undrain.",
    )
    drain.add_argument("--wait", default="5s", metavar="TIME", help="how long peers get to find other ways (5s)")
    undrain = actions.add_parser("undrain", help="announce again what the node has")
    for command in (drain, undrain):
        command.add_argument("node", metavar="NODE")
        command.add_argument("--timeout", metavar="TIME", help="wait no longer than this (60s, and what --wait says)")
        command.add_argument("--no-wait", action="store_true", help="ask for it and return")
        _add_connection(command)


def _add_bgp(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    bgp = commands.add_parser("bgp", help="a node's BGP: sessions, paths, and why they are used or not")
    actions = bgp.add_subparsers(dest="action", required=True, metavar="ACTION")
    peers = actions.add_parser("peers", help="sessions, with counts")
    routes = actions.add_parser("routes", help="every path of every peer, and why it is used or not")
    best = actions.add_parser("best", help="the paths that are used")
    received = actions.add_parser("received", help="what one peer has announced, also what was refused")
    advertised = actions.add_parser("advertised", help="what one peer is told, and why")
    for command in (received, advertised):
        command.add_argument("peer", metavar="PEER", help="address of the peer")
    trace = actions.add_parser("trace", help="all about the most specific prefix that leads to a destination")
    trace.add_argument("destination", metavar="PREFIX", help="a prefix or an address")
    config = actions.add_parser("config", help="what the BGP speaker was given, without passwords")
    for command in (peers, routes, best, received, advertised, trace, config):
        command.add_argument("-o", "--output", default="ps", choices=("ps", "wide", "json", "yaml"))
        command.add_argument("--node", metavar="NAME", help="of this node, from any machine (default: this machine's)")
        _add_connection(command)
        text = "ask the reflector (of this name; default: the one of this machine, or of the node)"
        command.add_argument("--reflector", nargs="?", const="", metavar="NAME", help=text)
    _add_reflectors(actions)


def _add_reflectors(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "automatic reflectors: who serves whom, who was replaced; with --dry-run what other settings would change"
    reflectors = actions.add_parser("reflectors", help=text, description=f"{text[0].upper()}{text[1:]}.")
    reflectors.add_argument("change", nargs="?", choices=("show", "enable", "disable", "set"), default="show")
    reflectors.add_argument("--above-nodes", metavar="COUNT", help="reflectors above this many nodes (100)")
    reflectors.add_argument("--back-below", metavar="COUNT", help="a mesh again below (0: four fifths of the former)")
    reflectors.add_argument("--domain-label", metavar="LABEL", help="node label that names the failure domain")
    reflectors.add_argument("--per-domain", metavar="COUNT", help="reflectors in each domain (2)")
    reflectors.add_argument("--pools", metavar="NAMES", help="IPPools of the reflectors' addresses, with commas")
    reflectors.add_argument("--replace-after-seconds", metavar="COUNT", help="a dead one is replaced after (60)")
    reflectors.add_argument("--return-after-seconds", metavar="COUNT", help="it is a candidate again after (600)")
    reflectors.add_argument("--dry-run", action="store_true", help="change nothing, say what would come of it")
    reflectors.add_argument("-o", "--output", default="ps", choices=("ps", "json", "yaml"))
    _add_connection(reflectors)


def _add_policy(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    policy = commands.add_parser("policy", help="what policy did to the packets of this node")
    actions = policy.add_subparsers(dest="action", required=True, metavar="ACTION")
    counters = actions.add_parser("counters", help="packets and bytes that policies and their rules decided about")
    counters.add_argument("names", nargs="*", metavar="NAME", help="only policies and profiles of these names")
    counters.add_argument("-n", "--namespace", default="", help="only policies of this namespace")
    counters.add_argument("-o", "--output", default="ps", choices=("ps", "wide", "json", "yaml"))
    flows = actions.add_parser("flows", help="connections that policy denied lately")
    flows.add_argument("--follow", action="store_true", help="go on printing, until interrupted")
    flows.add_argument("-o", "--output", default="ps", choices=("ps", "json"))
    for command in (counters, flows):
        command.add_argument("--socket", type=Path, metavar="PATH", help="ask the agent on this socket")
