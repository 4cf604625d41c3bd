"""The processes of a node by what they are, whoever started them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from lab import process
from lab.process import Process
from lab.state import Lab

# What the command line of each process on a node contains.
MARKS = {
    "weft-node": "bin/weft-node",
    "weft-felix": "bin/weft-felix",
    "weft-bird-agent": "bin/weft-bird-agent",
    "weft-reflector": "bin/weft-reflector",
    "automatic-reflector": "bird_agent.automatic.process",
    "exabgp": "bird_agent.exabgp.launcher",
    "speaker-link": "speaker_link.py",
}
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
ON_EVERY_NODE = [name for name in MARKS if name not in ("weft-reflector", "automatic-reflector")]


def of_node(lab: Lab, node: str) -> dict[str, Process]:
    """Those of `MARKS` that run on the node now."""
    found = {}
    for one in process.in_netns(lab.netns(node)):
        words = command_line(one.pid)
        for name, mark in MARKS.items():
            if any(mark in word for word in words[:4]):
                found[name] = Process(name, one.pid, one.start_ticks, one.log)
    return found


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def cpu_s(pid: int) -> float:
    """Of processor time, user's and kernel's; 0 if the process is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def resident_kib(pid: int) -> int:
    """VmRSS; 0 if the process is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0
