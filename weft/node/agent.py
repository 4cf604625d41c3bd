"""How an agent's console script begins: configuration from the environment, a log, and one instance a node.

What cannot go on ends the program with words on standard error: status 2 for a wrong setting, 75 where the agent runs
already."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Mapping

from weft import singleton
from weft.config import AgentConfig, ConfigError
from weft.node.private_etcd import with_endpoint

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configuration(parser: argparse.ArgumentParser, environ: Mapping[str, str] = os.environ) -> AgentConfig:
    """What the environment says; without endpoints, the private etcd's."""
    try:
        return with_endpoint(AgentConfig.from_environ(environ, socket.gethostname()))
    except ConfigError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def begin(parser: argparse.ArgumentParser, config: AgentConfig, lock: str) -> None:
    """Log to standard error, and hold the agent's lock until this process ends."""
    logging.basicConfig(level=config.log_level, stream=sys.stderr, format=LOG_FORMAT)
    config.run_dir.mkdir(parents=True, exist_ok=True)
    try:
        singleton.hold(singleton.lock_path(config.run_dir, lock))
    except singleton.AlreadyRunningError as error:
        parser.exit(singleton.EXIT_ALREADY_RUNNING, f"{parser.prog}: {error}\n")
