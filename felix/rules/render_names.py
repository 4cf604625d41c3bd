"""The names our chains, sets, maps and counters have in the kernel: readable, and a function of what they hold alone.

A restarted agent gives everything the same name again, so what is already right stays as it is."""

import re
from hashlib import sha256

import msgspec

from felix.calc.ip_sets import SetKey, SetKind
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction, Rule, TierPolicies

FROM_ENDPOINTS = "from_endpoints"
"""Host interface -> egress chain of the workload behind it."""
TO_ENDPOINTS = "to_endpoints"
"""Host interface -> ingress chain of the workload behind it."""
KNOWN_ENDPOINTS = "known_endpoints"
"""Host interface -> return: that policy has been computed for the workload behind it."""

SENDERS = "senders"
"""Host interface -> what checks the senders of a workload that may send from other prefixes, too."""

PREROUTING_RAW = "prerouting-raw"
FORWARD_FROM_ENDPOINT = "forward-from-endpoint"
FORWARD_TO_ENDPOINT = "forward-to-endpoint"
INPUT = "input"
OUTPUT = "output"
POSTROUTING_NAT = "postrouting-nat"
PREROUTING_HOST = "prerouting-host"
OUTPUT_RAW = "output-raw"
FORWARD_FROM_HOST = "forward-from-host"
FORWARD_TO_HOST = "forward-to-host"
POSTROUTING_HOST = "postrouting-host"
TRANSLATED_BY_HOST = "translated-by-host"
FAILSAFE_IN = "failsafe-in"
FAILSAFE_OUT = "failsafe-out"
FAILSAFE_IN_RAW = "failsafe-in-raw"
FAILSAFE_OUT_RAW = "failsafe-out-raw"
HOST_NEIGHBOURS = "host-neighbours"
WORKLOAD_TO_HOST = "workload-to-host"
KNOWN_WORKLOAD = "known-workload"
DENIED = "denied"
DROPPED = "dropped"

COUNTERS = ("ingress/", "egress/")
"""How the names of all our counters begin."""

CUT_CONNECTION = 0x4000_0000
"""The one bit of a connection's mark (ct mark) that is ours: policy refuses the connection now. Connection marks of
others lie elsewhere: Tailscale 0x00ff0000, mwan3 0x3f00, the AWS CNI and Cilium on AWS 0x80, Istio 0x539, WireGuard's
wg-quick 0xca6c. The marks of kube-proxy and of Calico's iptables are marks of packets, not of connections."""

ALLOWED_EARLY = 0x1000_0000
"""The one bit of a packet's mark (meta mark) that is ours, and only while the packet is on this node: policy before
connection tracking or before DNAT allowed it, so no later stage of this interface's policy is asked. kube-proxy has
0xc000, Calico 0xffff0000 from its low end, Tailscale 0xff0000, wg-quick 0xca6c."""

_RETIRED = "retired-"
_SAFE = re.compile(r"[A-Za-z0-9/\-_.]{1,100}(?<!\.hash)\Z")
_SHORT_KINDS = {
    "NetworkPolicy": "np",
    "GlobalNetworkPolicy": "gnp",
    "Profile": "profile",
    "StagedNetworkPolicy": "snp",
    "StagedGlobalNetworkPolicy": "sgnp",
    "StagedKubernetesNetworkPolicy": "sknp",
}


def policy_chain(direction: Direction, key: ResourceKey, where: str = "") -> str:
    """`ingress/np/default/allow-web`; with a hash instead of a name that nft would not take.

    `where`: the stage of a host endpoint in which what its actions become differs."""
    name = f"{key.namespace}/{key.name}" if key.namespace else key.name
    if not _SAFE.match(name):
        name = f"{_hash(name)}.hash"
    return f"{direction.value}/{where}{_SHORT_KINDS[key.kind]}/{name}"


def rule_counter(direction: Direction, key: ResourceKey, rule: Rule) -> str:
    """What the rule counts in, wherever it is written: `ingress/np/default/allow-web/allow-3f2a…`."""
    action = rule.effect or rule.action
    return f"{counter_group(direction, key)}/{action.value.lower()}-{rule.id}"


def counter_group(direction: Direction, key: ResourceKey) -> str:
    """What the counters of all rules of a policy and direction begin with."""
    return policy_chain(direction, key)


def tier_end_counter(direction: Direction, tier: str) -> str:
    return f"{direction.value}/tier/{tier if _SAFE.match(tier) else f'{_hash(tier)}.hash'}/end"


def final_counter(direction: Direction) -> str:
    """Of what nothing allowed."""
    return f"{direction.value}/final/end"


def group_of(counter: str) -> str:
    return counter.rpartition("/")[0]


def retired_counter(counter: str) -> str:
    """Where what a counter has counted is kept when it goes: one for all of its group and action."""
    group, _, name = counter.rpartition("/")
    return f"{group}/{_RETIRED}{name.partition('-')[0]}"


def retired_counters(group: str) -> tuple[str, ...]:
    """Those that a group may have."""
    words = (*(action.value.lower() for action in Action), "end")
    return tuple(f"{group}/{_RETIRED}{word}" for word in words)


def is_retired_counter(counter: str) -> bool:
    return counter.rpartition("/")[2].startswith(_RETIRED)


def tier_chain(direction: Direction, tier: TierPolicies, where: str = "") -> str:
    """Shared by every endpoint to which the same policies of the tier apply."""
    return f"{direction.value}/{where}tier/{_hash(tier.name, tier.default_action, tier.policies(direction))}"


def endpoint_chain(
    direction: Direction, tiers: tuple[TierPolicies, ...], profiles: tuple[ResourceKey, ...], where: str = "endpoint"
) -> str:
    """Shared by every endpoint to which the same policies and profiles apply."""
    asked = [(tier.name, tier.default_action, tier.policies(direction)) for tier in tiers]
    return f"{direction.value}/{where}/{_hash(asked, profiles)}"


def sender_chain(interface: str) -> str:
    return f"sender/{_hash(interface)}"


def host_map(direction: Direction, where: str) -> str:
    """Interface -> chain of the host endpoint there, for one of the places where it is asked."""
    return f"{where}_{direction.value}"


def selector_set(key: SetKey, kind: SetKind) -> str:
    """The kind is part of the name: a set cannot change what it is, so one of another kind takes its place."""
    return f"{key.id}-{kind.value}{key.version}"


def all_pools(version: int) -> str:
    return f"pools{version}"


def masqueraded_pools(version: int) -> str:
    return f"masqueraded-pools{version}"


def _hash(*parts: object) -> str:
    return sha256(msgspec.json.encode(parts)).hexdigest()[:16]
