"""Start ExaBGP 5.0.15 with our corrections, or say why not: `python -m bird_agent.exabgp.launcher`.

`serve CONFIG --lock FILE` runs the speaker; it holds a lock on FILE for as long as it lives, so that there is never a
second one and any agent can find it. `validate CONFIG` only reads a configuration.
Either refuses an ExaBGP that the corrections do not know. It watches and restarts nothing: that is the agent's."""

from __future__ import annotations

import argparse
import os
import pwd
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from weft import singleton

API_VERSION = 2
"""Of what an agent says to a speaker, and hears from it. It is among the arguments, so that an agent takes over no
speaker, older or newer, that understands it otherwise, but replaces it."""
EXIT_REFUSED = 64  # not an ExaBGP exit status: starting again will not help


def environment(listen: Sequence[str], port: int) -> dict[str, str]:
    """ExaBGP's own settings, as the environment variables that it reads when it is imported."""
    return {
        "exabgp_api_ack": "false",
        "exabgp_api_cli": "false",
        "exabgp_api_respawn": "true",
        "exabgp_cache_attributes": "true",
        "exabgp_daemon_daemonize": "false",
        "exabgp_daemon_umask": "0077",
        "exabgp_daemon_user": pwd.getpwuid(os.getuid()).pw_name,
        "exabgp_log_all": "false",
        "exabgp_log_destination": "stderr",
        "exabgp_log_level": "ERROR",
        # Idle it looks around 20 times a second instead of 100: only accepting a connection waits for that.
        "exabgp_reactor_speed": "5.0",
        "exabgp_tcp_bind": " ".join(listen),
        "exabgp_tcp_port": str(port),
    }


def _corrected() -> None:
    """Import ExaBGP and correct it. Raises UnknownExaBGPError."""
    from exabgp.version import release

    from bird_agent.exabgp import corrections, extensions

    corrections.verify(release)
    corrections.apply()
    extensions.install()


def _serve(configuration: str) -> int:
    from exabgp.application.main import main as exabgp_main

    sys.argv = ["exabgp", "server", configuration]
    return int(exabgp_main() or 0)


def _validate(configuration: str) -> int:
    from exabgp.configuration.configuration import Configuration
    from exabgp.environment import getenv
    from exabgp.logger import log

    getenv().log.enable = False
    log.init(getenv())
    parsed = Configuration([configuration])
    if parsed.reload() is not True:
        print(str(parsed.error).strip(), file=sys.stderr)
        return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="weft-speaker")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run the speaker")
    serve.add_argument("configuration")
    serve.add_argument("--lock", required=True)
    serve.add_argument("--listen", action="append", default=[], help="address to listen on; repeat for several")
    serve.add_argument("--port", type=int, default=179)
    serve.add_argument("--api", type=int, choices=[API_VERSION], default=API_VERSION, help="what the agent speaks")
    validate = commands.add_parser("validate", help="read a configuration and say what is wrong with it")
    validate.add_argument("configuration")
    options = parser.parse_args(argv)
    serving = options.command == "serve"
    os.environ.update(environment(options.listen if serving else (), options.port if serving else 179))
    if serving:
        # From when the lock is held on we can be found and asked to reload, which would end us until ExaBGP listens to
        # that; it has not read its configuration then, either.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        try:
            singleton.hold(Path(options.lock))
        except singleton.AlreadyRunningError as error:
            print(error, file=sys.stderr)
            return singleton.EXIT_ALREADY_RUNNING
    from bird_agent.exabgp.corrections import UnknownExaBGPError

    try:
        _corrected()
    except UnknownExaBGPError as error:
        print(error, file=sys.stderr)
        return EXIT_REFUSED
    return _serve(options.configuration) if serving else _validate(options.configuration)


if __name__ == "__main__":
    sys.exit(main())
