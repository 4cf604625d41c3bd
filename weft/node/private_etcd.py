"""The etcd of a node that was given no endpoints: one member, data kept, reachable on this machine only.

It listens on unix sockets in the run directory and on no port, so it neither collides with an etcd of the operator's
nor is reachable from outside; the directory's mode is the access control.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from weft.config import AgentConfig, ConfigError, EtcdConfig
from weft.node.supervisor import Program

# etcd wants host:port in a unix URL and makes a socket of that name in its working directory.
CLIENT_SOCKET = "etcd.sock:0"
PEER_SOCKET = "etcd-peer.sock:0"


LONGEST_SOCKET_PATH = 107
"""sun_path in unix(7) is 108 bytes with its end mark."""


class EtcdMissingError(Exception):
    """No endpoints are configured and there is no etcd to run: set ETCD_ENDPOINTS or install etcd."""

    def __init__(self) -> None:
        super().__init__("ETCD_ENDPOINTS is not set and no etcd program is installed: set it, or install etcd-server")


def private_endpoint(config: AgentConfig) -> EtcdConfig:
    """How the private etcd is reached. Raises `ConfigError` where its socket's path would be too long."""
    path = client_socket(config)
    if len(str(path)) > LONGEST_SOCKET_PATH:
        expected = f"a directory short enough for {path} to have {LONGEST_SOCKET_PATH} characters"
        raise ConfigError("WEFT_RUN_DIR", str(config.run_dir), expected)
    return EtcdConfig((f"unix://{path}",))


def with_endpoint(config: AgentConfig) -> AgentConfig:
    """The configuration with the private etcd for a datastore where no other is configured. Raises `ConfigError`."""
    return config if config.etcd is not None else replace(config, etcd=private_endpoint(config))


def client_socket(config: AgentConfig) -> Path:
    """The socket for us and for the agents."""
    return config.run_dir.resolve() / CLIENT_SOCKET


def private_etcd(config: AgentConfig) -> Program:
    """The program to keep running. Raises `EtcdMissingError`."""
    path = shutil.which("etcd")
    if path is None:
        raise EtcdMissingError
    data_dir = config.state_dir.resolve() / "etcd"
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    data_dir.chmod(0o700)
    arguments = (
        "--name=weft",
        f"--data-dir={data_dir}",
        f"--listen-client-urls=unix://{CLIENT_SOCKET}",
        f"--advertise-client-urls=unix://{CLIENT_SOCKET}",
        f"--listen-peer-urls=unix://{PEER_SOCKET}",
        f"--initial-advertise-peer-urls=unix://{PEER_SOCKET}",
        f"--initial-cluster=weft=unix://{PEER_SOCKET}",
        # A single member need not wait for others before it leads.
        "--heartbeat-interval=20",
        "--election-timeout=200",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=1h",
        "--log-level=warn",
        "--logger=zap",
    )
    run_dir = config.run_dir.resolve()
    sockets = (run_dir / CLIENT_SOCKET, run_dir / PEER_SOCKET)
    return Program("etcd", "etcd", (path, *arguments), directory=run_dir, leftovers=sockets)


def etcd_environ(env: Mapping[str, str]) -> dict[str, str]:
    """Without ETCD_*: etcd takes those for its own flags, we mean them for its clients."""
    return {name: value for name, value in env.items() if not name.startswith("ETCD_")}
