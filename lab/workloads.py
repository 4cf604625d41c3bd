"""Workloads of a lab: a namespace each, wired by the real CNI plugin as a container runtime would call it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from lab import process
from lab.netns import CommandError, run
from lab.state import PROGRAMS, Lab, LabError, Workload
from lab.topology import NETWORK
from weft.model.validation import checks

PLUGIN = PROGRAMS / "weft"
IFNAME = "eth0"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_NAME_WORDS = "want 1 to 63 letters, digits, '-', '_' and '.', a letter or digit at both ends"


def network_configuration(labels: Mapping[str, str]) -> dict[str, Any]:
    """The CNI network configuration that the lab's runtime hands to the plugin."""
    return {
        "cniVersion": "1.0.0",
        "name": NETWORK,
        "type": "weft",
        "ipam": {"type": "weft-ipam", "assign_ipv4": "true", "assign_ipv6": "true"},
        **(
            {"args": {"cni": {"labels": [{"key": key, "value": value} for key, value in labels.items()]}}}
            if labels
            else {}
        ),
    }


def cni(lab: Lab, command: str, workload: Workload, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Call the plugin; its answer. `LabError` with the plugin's own words when it refuses."""
    environ = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": workload.container_id,
        "CNI_NETNS": lab.workload_netns(workload.node, workload.name).path,
        "CNI_IFNAME": IFNAME,
        "CNI_PATH": str(PLUGIN.parent),
        "CNI_ARGS": f"IgnoreUnknown=1;WEFT_NAMESPACE={workload.namespace};WEFT_WORKLOAD={workload.name}",
        "WEFT_CNI_SOCKET": str(lab.host_directory(workload.node) / "cni.sock"),
    }
    try:
        answer = run(
            ["env", *(f"{key}={value}" for key, value in environ.items()), str(PLUGIN)], stdin=json.dumps(configuration)
        )
    except CommandError as error:
        raise LabError(f"CNI {command} of {workload.node}/{workload.name}: {_reason(error.output)}") from error
    parsed: dict[str, Any] = json.loads(answer) if answer.strip() else {}
    return parsed


def add(
    lab: Lab, node: str, name: str, namespace: str = "default", labels: Mapping[str, str] | None = None
) -> Workload:
    """Start a workload: a namespace with an interface, address and routes. Nothing is left of one that fails."""
    if not any(one.name == node for one in lab.topology.nodes):
        known = ", ".join(one.name for one in lab.topology.nodes)
        raise LabError(f"node {node}: not in this lab; its nodes: {known}")
    if not _NAME.fullmatch(name):
        raise LabError(f"workload {name[:80]!r}: {_NAME_WORDS}")
    _check(namespace, labels or {})
    container_id = hashlib.sha256(f"{lab.name}/{node}/{name}".encode()).hexdigest()
    workload = Workload(node, name, namespace, dict(labels or {}), container_id, [])
    _note(lab, workload)
    with ExitStack() as undo:
        undo.callback(_forget, lab, workload)
        netns = lab.workload_netns(node, name).create()
        undo.callback(netns.delete)
        answer = cni(lab, "ADD", workload, network_configuration(workload.labels))
        addresses = [str(one["address"]) for one in answer.get("ips", [])]
        workload = Workload(node, name, namespace, workload.labels, container_id, addresses)
        with lab.changing() as state:
            state.workloads = [workload if _same(one, workload) else one for one in state.workloads]
        undo.pop_all()
    return workload


def delete(lab: Lab, workload: Workload) -> None:
    """End a workload: the plugin frees its address and interface, then its processes and namespace go."""
    cni(lab, "DEL", workload, network_configuration(workload.labels))
    netns = lab.workload_netns(workload.node, workload.name)
    process.stop(process.in_netns(netns), grace_s=1)
    netns.delete()
    _forget(lab, workload)


def _note(lab: Lab, workload: Workload) -> None:
    """Before there is anything of it, so that taking the lab down finds it however its start ends."""
    where = f"workload {workload.node}/{workload.name}"
    with lab.changing() as state:
        if any(_same(one, workload) for one in state.workloads):
            raise LabError(f"{where}: it exists already")
        taken = any(one.name == workload.name for one in lab.topology.hosts)
        if taken or lab.workload_netns(workload.node, workload.name).exists():
            raise LabError(f"{where}: the name is taken")
        state.workloads.append(workload)


def _forget(lab: Lab, workload: Workload) -> None:
    if lab.refresh():
        with lab.changing() as state:
            state.workloads = [one for one in state.workloads if not _same(one, workload)]


def _same(left: Workload, right: Workload) -> bool:
    return (left.node, left.name) == (right.node, right.name)


def _check(namespace: str, labels: Mapping[str, str]) -> None:
    """What Kubernetes would refuse is refused: a real runtime never hands it to the plugin."""
    for problem in (*checks.name("--namespace", namespace), *checks.label_map("--labels", labels)):
        raise LabError(str(problem))


def _reason(output: str) -> str:
    try:
        answer = json.loads(output)
        return f"{answer['msg']} (code {answer['code']}) {answer.get('details', '')}".strip()
    except (ValueError, KeyError, TypeError):
        return output.strip()
