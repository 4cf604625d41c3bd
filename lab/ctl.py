"""weftctl as a lab's administrator runs it: beside the datastore, or on a node."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from lab.state import Lab
from lab.topology import ETCD_PORT, management_address

PROGRAMS_DIR = Path(sys.executable).parent


def etcd_url(lab: Lab) -> str:
    return f"http://{management_address(lab.topology.host('etcd')).ip}:{ETCD_PORT}"


def weftctl(lab: Lab, *arguments: str, stdin: str | None = None) -> str:
    """Beside the lab's etcd, so that it needs no agent. CommandError with what it said when it fails."""
    command = ["env", f"ETCD_ENDPOINTS={etcd_url(lab)}", str(PROGRAMS_DIR / "weftctl"), *arguments]
    return lab.netns("etcd").run(command, stdin=stdin)


def on_node(lab: Lab, node: str, *arguments: str) -> str:
    """Where it asks the agents of that node."""
    command = ["env", f"WEFT_RUN_DIR={lab.host_directory(node)}", str(PROGRAMS_DIR / "weftctl"), *arguments]
    return lab.netns(node).run(command)


def apply(lab: Lab, resources: list[dict[str, object]]) -> str:
    return weftctl(lab, "apply", "-f", "-", stdin=yaml.safe_dump_all(resources, sort_keys=False))
