"""Workloads of a lab: a namespace each, wired by the real CNI plugin as a container runtime would call it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lab import process
from lab.netns import CommandError, run
from lab.state import PROGRAMS, Lab, LabError, Workload
from lab.topology import NETWORK

PLUGIN = PROGRAMS / "weft"
IFNAME = "eth0"


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
    if any((one.node, one.name) == (node, name) for one in lab.state.workloads):
        raise LabError(f"workload {node}/{name}: it exists already")
    netns = lab.workload_netns(node, name)
    if netns.exists() or any(one.name == name for one in lab.topology.hosts):
        raise LabError(f"workload {node}/{name}: the name is taken")
    container_id = hashlib.sha256(f"{lab.name}/{node}/{name}".encode()).hexdigest()
    workload = Workload(node, name, namespace, dict(labels or {}), container_id, [])
    netns.create()
    try:
        answer = cni(lab, "ADD", workload, network_configuration(workload.labels))
    except BaseException:
        netns.delete()
        raise
    addresses = [str(one["address"]) for one in answer.get("ips", [])]
    workload = Workload(node, name, namespace, workload.labels, container_id, addresses)
    lab.state.workloads.append(workload)
    lab.save()
    return workload


def delete(lab: Lab, workload: Workload) -> None:
    """End a workload: the plugin frees its address and interface, then its processes and namespace go."""
    cni(lab, "DEL", workload, network_configuration(workload.labels))
    netns = lab.workload_netns(workload.node, workload.name)
    process.stop(process.in_netns(netns), grace_s=1)
    netns.delete()
    lab.state.workloads.remove(workload)
    lab.save()


def _reason(output: str) -> str:
    try:
        answer = json.loads(output)
        return f"{answer['msg']} (code {answer['code']}) {answer.get('details', '')}".strip()
    except (ValueError, KeyError, TypeError):
        return output.strip()
