"""`make lab`: a fabric comes up, shows itself, and carries real packets while you watch."""

from __future__ import annotations

import time
from collections.abc import Callable

import yaml

from lab import ctl, fabric, reflector_tour, status, workloads
from lab.netns import CommandError, run
from lab.state import Lab, LabError, Workload, load, names
from lab.topology import CLIENT_IPV4, CLIENT_IPV6

PING_TIMEOUT_S = 30.0

POLICY_NAME = "tour-only-the-client"
POLICY = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "GlobalNetworkPolicy",
    "metadata": {"name": POLICY_NAME},
    "spec": {
        "order": 100,
        "selector": "app == 'web'",
        "types": ["Ingress"],
        "ingress": [{"action": "Allow", "source": {"nets": [str(net)]}} for net in (CLIENT_IPV4, CLIENT_IPV6)],
    },
}


def tour(name: str, topology: str, nodes: int, progress: Callable[[str], None]) -> int:
    """Bring a lab up (or use the one that is up), add two workloads a node, and try it. 0 if all went as it should."""
    started = time.monotonic()
    if name in names():
        lab = load(name)
        progress(f"lab {name} is up already")
    else:
        lab = fabric.up(name, topology, nodes, progress)
    _add_workloads(lab, progress)
    web, other = _two_across(lab)
    _ping(lab, other, web, expected=True)
    progress(f"pings flow after {time.monotonic() - started:.1f} s")
    print(f"\n{status.tables(status.collect(lab))}\n")
    failures = _packets(lab, web, other)
    if lab.topology.reflectors:
        failures += [_show(what, passed) for what, passed in reflector_tour.steps(lab, web, other)].count(False)
    print(_by_hand(lab, web))
    if failures:
        raise LabError(f"{failures} of the tour's steps did not go as they should (see above)")
    return 0


def _add_workloads(lab: Lab, progress: Callable[[str], None]) -> None:
    present = {(one.node, one.name) for one in lab.state.workloads}
    for index, node in enumerate(lab.topology.nodes, start=1):
        for app in ("web", "db"):
            if (node.name, f"{app}{index}") not in present:
                workloads.add(lab, node.name, f"{app}{index}", labels={"app": app})
    progress(f"{len(lab.state.workloads)} workloads")


def _two_across(lab: Lab) -> tuple[Workload, Workload]:
    """A web workload of the first node, and a db workload of the last."""
    first, last = lab.topology.nodes[0].name, lab.topology.nodes[-1].name
    web = next(one for one in lab.state.workloads if one.node == first and one.labels.get("app") == "web")
    other = next(one for one in lab.state.workloads if one.node == last and one.labels.get("app") == "db")
    return web, other


def _packets(lab: Lab, web: Workload, other: Workload) -> int:
    print("A SHORT TOUR, WITH REAL PACKETS")
    results = [
        _show(f"{other.name} on {other.node} reaches {web.name} on {web.node}", _ping(lab, other, web, expected=True)),
        _show(f"the outside client reaches {web.name} through the ToR", _ping(lab, None, web, expected=True)),
    ]
    print("  a policy: workloads labelled app=web take traffic from the client alone")
    ctl.weftctl(lab, "apply", "-f", "-", stdin=yaml.safe_dump(POLICY, sort_keys=False))
    try:
        results += [
            _show(f"{other.name} is now refused", _ping(lab, other, web, expected=False)),
            _show("the client still gets through", _ping(lab, None, web, expected=True)),
        ]
    finally:
        ctl.weftctl(lab, "delete", "GlobalNetworkPolicy", POLICY_NAME)
    results.append(_show("the policy is deleted: everybody may again", _ping(lab, other, web, expected=True)))
    return results.count(False)


def _show(what: str, passed: bool) -> bool:
    print(f"  {'ok    ' if passed else 'FAILED'} {what}")
    return passed


def _ping(lab: Lab, source: Workload | None, target: Workload, *, expected: bool) -> bool:
    """Whether pings over IPv4 and IPv6 come to answer (or to fail) as expected, within the time a change needs."""
    netns = lab.netns("client") if source is None else lab.workload_netns(source.node, source.name)
    deadline = time.monotonic() + PING_TIMEOUT_S
    while True:
        answers = [_answers(netns.command, address.partition("/")[0]) for address in target.addresses]
        if all(answer == expected for answer in answers):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)


def _answers(command: Callable[[list[str]], list[str]], address: str) -> bool:
    try:
        run(command(["ping", "-c", "1", "-W", "1", address]))
    except CommandError:
        return False
    return True


def _by_hand(lab: Lab, web: Workload) -> str:
    option = "" if lab.name == "weft" else f" --name {lab.name}"
    node = web.node
    address = web.addresses[0].partition("/")[0]
    reflector_commands = "\n  weftctl bgp peers; weftctl bgp peers --reflector" if lab.topology.reflectors else ""
    return f"""
GOING ON BY HAND
  export PATH={ctl.PROGRAMS_DIR}:$PATH
  weft-lab status{option}                          sessions, routes, workloads
  weft-lab exec{option} client -- ping {address}    any host or workload: {", ".join(_places(lab))}, ...
  weft-lab workload add{option} {node} mine --labels app=db
  eval "$(weft-lab env{option} {node})"              then weftctl asks that node:
  weftctl node status; weftctl get ippools -o yaml; weftctl ipam show --show-blocks{reflector_commands}
  weft-lab down{option}                            or: make lab-down
"""


def _places(lab: Lab) -> list[str]:
    return [host.name for host in lab.topology.hosts] + [one.name for one in lab.state.workloads[:1]]
