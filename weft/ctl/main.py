"""weftctl's entry point: run the command, turn what went wrong into words and an exit code."""

from __future__ import annotations

import asyncio
import os
import sys
from argparse import Namespace
from collections.abc import Coroutine, Sequence
from typing import Any

from weft.ctl.arguments import parse
from weft.ctl.config import find_target, run_dir
from weft.ctl.errors import CommandError, UsageError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 refused or failed, 2 wrong command line."""
    arguments = parse(argv)
    # The model and its errors take a while to load, and are not needed to refuse a command line.
    from weft.ctl.messages import describe
    from weft.model.errors import ValidationError, WeftError

    try:
        return asyncio.run(_command(arguments))
    except UsageError as error:
        print(f"weftctl: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ValidationError as error:
        print(f"Failed to execute command: {describe(error)}", file=sys.stderr)
        if arguments.command == "explain":
            return EXIT_USAGE  # 1 says that a flow is not as expected
    except WeftError as error:
        print(describe(error), file=sys.stderr)
    except CommandError as error:
        print(error, file=sys.stderr)
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return EXIT_FAILED


def _command(arguments: Namespace) -> Coroutine[Any, Any, int]:
    if arguments.command == "node" and arguments.action == "status":
        from weft.ctl import node

        return node.status(arguments, run_dir(os.environ))
    if arguments.command == "bgp" and arguments.action != "reflectors":
        from weft.ctl import bgp

        return bgp.run(arguments, os.environ)
    if arguments.command == "policy":
        from weft.ctl import policy

        return policy.run(arguments, run_dir(os.environ))
    if arguments.command == "explain" and arguments.offline:
        from weft.ctl import explain

        return explain.run(arguments, None)
    target = find_target(os.environ, arguments.config, arguments.socket)
    match arguments.command:
        case "get":
            from weft.ctl import resources

            return resources.get(arguments, target)
        case "delete":
            from weft.ctl import resources

            return resources.delete(arguments, target)
        case "explain":
            from weft.ctl import explain

            return explain.run(arguments, target)
        case "node":
            from weft.ctl import drain

            return drain.run(arguments, target)
        case "bgp":
            from weft.ctl import reflectors

            return reflectors.run(arguments, target)
        case "ipam":
            from weft.ctl import ipam

            return ipam.run(arguments, target)
        case "version":
            from weft.ctl import version

            return version.show(arguments, target)
        case _:
            from weft.ctl import resources

            return resources.write(arguments, target)


if __name__ == "__main__":
    sys.exit(main())
