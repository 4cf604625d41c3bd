"""The iptables rules and ipsets that Calico 3.32 programs for workloads, as far as a forwarded packet meets them.

From felix/rules of its public sources: marks for accept (0x10000) and for leaving a tier (0x20000), chains per endpoint
and per policy, sets of type hash:net. Dispatch is one rule an interface ("linear"), or Calico's own shallow tree by the
first character behind the common prefix ("tree"). Left out is what these packets pass without a decision: raw, mangle
and nat, host endpoints, encapsulation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

ACCEPT, PASS = "0x10000/0x10000", "0x20000/0x20000"
Dispatch = Literal["linear", "tree"]


@dataclass(frozen=True, slots=True)
class Policy:
    """Lets a UDP port in and out, from and to the members of a set."""

    name: str
    peers: str
    port: int


def ipset_script(sets: Mapping[str, Sequence[IPv4Address]]) -> str:
    """For `ipset restore`."""
    lines: list[str] = []
    for name, members in sets.items():
        lines.append(f"create {name} hash:net family inet maxelem 1048576")
        lines += [f"add {name} {member}" for member in members]
    return "\n".join(lines) + "\n"


def iptables_script(endpoints: Mapping[str, Sequence[Policy]], dispatch: Dispatch) -> str:
    """For `iptables-restore`: host interface -> the policies of the workload behind it, in order."""
    chains: dict[str, list[str]] = {
        "cali-FORWARD": [
            "-j MARK --set-xmark 0x0/0xe0000",
            "-i cali+ -j cali-from-wl-dispatch",
            "-o cali+ -j cali-to-wl-dispatch",
            "-j cali-to-hep-forward",
            "-j cali-cidr-block",
        ],
        "cali-to-hep-forward": [],
        "cali-cidr-block": [],
    }
    names = sorted(endpoints)
    for way, flag, prefix in (("from", "-i", "cali-fw-"), ("to", "-o", "cali-tw-")):
        chains |= _dispatch(f"cali-{way}-wl-dispatch", names, flag, prefix, dispatch)
    for name, policies in endpoints.items():
        chains[f"cali-fw-{name}"] = _endpoint("cali-po-", policies)
        chains[f"cali-tw-{name}"] = _endpoint("cali-pi-", policies)
        for policy in policies:
            chains[f"cali-po-{policy.name}"] = _policy(policy, "dst")
            chains[f"cali-pi-{policy.name}"] = _policy(policy, "src")
    rules = [f"-A {chain} {rule}" for chain, found in chains.items() for rule in found]
    base = ["-A FORWARD -j cali-FORWARD", f"-A FORWARD -m mark --mark {ACCEPT} -j ACCEPT"]
    return "\n".join(["*filter", *(f":{chain} -" for chain in chains), *base, *rules, "COMMIT", ""])


def _dispatch(root: str, names: Sequence[str], flag: str, prefix: str, dispatch: Dispatch) -> dict[str, list[str]]:
    if dispatch == "linear":
        return {root: [*(f"{flag} {name} -g {prefix}{name}" for name in names), "-j DROP"]}
    chains: dict[str, list[str]] = {root: []}
    for beginning, found in _tree(names).items():
        if len(found) == 1:
            chains[root].append(f"{flag} {found[0]} -g {prefix}{found[0]}")
            continue
        child = f"{root}-{beginning[-1]}"
        chains[root].append(f"{flag} {beginning}+ -g {child}")
        chains[child] = [*(f"{flag} {name} -g {prefix}{name}" for name in found), "-j DROP"]
    chains[root].append("-j DROP")
    return chains


def _tree(names: Sequence[str]) -> dict[str, list[str]]:
    """The names by their common prefix and one character more."""
    first, last = min(names), max(names)
    length = next((place for place in range(len(first)) if first[place] != last[place]), len(first)) + 1
    tree: dict[str, list[str]] = {}
    for name in names:
        tree.setdefault(name[:length], []).append(name)
    return tree


def middle(names: Sequence[str]) -> list[str]:
    """The names whose place in the tree is nearest to the mean, those in the middle of the list first: a packet to or
    from them meets as many rules as an average one, in either dispatch."""
    tree = list(_tree(sorted(names)).values())
    depth = {name: bucket + place for bucket, found in enumerate(tree) for place, name in enumerate(found)}
    mean = sum(depth.values()) / len(depth)
    return sorted(names, key=lambda name: (abs(depth[name] - mean) > len(names) / 100, _from_middle(name, names)))


def _from_middle(name: str, names: Sequence[str]) -> float:
    return abs(sorted(names).index(name) - (len(names) - 1) / 2)


def _endpoint(prefix: str, policies: Sequence[Policy]) -> list[str]:
    return [
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-m conntrack --ctstate INVALID -j DROP",
        "-j MARK --set-xmark 0x0/0x10000",
        "-j MARK --set-xmark 0x0/0x20000",
        *_asked(prefix, policies),
        "-m mark --mark 0x0/0x20000 -j DROP",
        "-j DROP",
    ]


def _asked(prefix: str, policies: Sequence[Policy]) -> Iterator[str]:
    for policy in policies:
        yield f"-m mark --mark 0x0/0x20000 -j {prefix}{policy.name}"
        yield f"-m mark --mark {ACCEPT} -j RETURN"


def _policy(policy: Policy, peer: str) -> list[str]:
    match = f"-p udp -m set --match-set {policy.peers} {peer} -m multiport --dports {policy.port}"
    return [f"{match} -j MARK --set-xmark {ACCEPT}", f"-m mark --mark {ACCEPT} -j RETURN"]
