"""From packets that the kernel logged to flows with the names of endpoints, policy and rule. Pure.

Which rule it was says the packet itself: its mark (denied) or its prefix (allowed) is the `flow_id` of the rule's
counter, and the interface says whose policy was asked. A packet whose rule is not found any more, because policy has
changed meanwhile, is lost, not guessed.

Packets of one client to one port are one flow. It is told when it is first seen and, if it goes on, once for each
`WINDOW_S`. Time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from felix.calc.delta import ANY_INTERFACE, LocalEndpoint, LocalHostEndpoint
from felix.rules import render_names as names
from felix.rules.render_actions import ALLOWED_PREFIX, DENIED_PREFIX, flow_id
from weft.admin.policy import Flow, Party
from weft.model.address import IPAddress
from weft.model.keys import ResourceKey
from weft.netlink.nflog import Headers, LoggedPacket, headers
from weft.policy.values import Action, Direction, EndpointPolicy, Policies, Stage

WINDOW_S = 10.0
MOST_FLOWS = 4096
"""Different flows in one window; what is beyond is lost."""


class Node(Protocol):
    """What the agent knows of its node now."""

    @property
    def endpoints(self) -> Mapping[str, LocalEndpoint]: ...
    @property
    def host_endpoints(self) -> Mapping[str, LocalHostEndpoint]: ...
    @property
    def policies(self) -> Policies: ...


class Decision(NamedTuple):
    """Where a packet's fate was decided. As `weft.admin.policy.Flow` has it."""

    action: Action
    direction: Direction
    interface: str
    tier: str = ""
    policy: ResourceKey | None = None
    rule: int | None = None
    rule_id: str = ""


class FlowKey(NamedTuple):
    """What makes packets one flow: a client's own port does not."""

    decision: Decision
    headers: Headers


class Seen(NamedTuple):
    """One flow in a stretch of time; `source_port` is that of its last packet."""

    key: FlowKey
    source_port: int | None
    first_s: float
    last_s: float
    packets: int

    @property
    def addresses(self) -> tuple[IPAddress, IPAddress]:
        return self.key.headers.source, self.key.headers.destination


def decision_of(packet: LoggedPacket, in_name: str, out_name: str, node: Node) -> Decision | None:
    """What our rules decided about a packet that came in by one interface and leaves by the other ("" for none)."""
    identity, action = _identity(packet)
    if action is None:
        return None
    for direction, interface, policy in _asked(in_name, out_name, node):
        found = _place(identity, action, direction, interface, policy, node.policies)
        if found is not None:
            return found
    return None


def _identity(packet: LoggedPacket) -> tuple[int, Action | None]:
    if packet.prefix == DENIED_PREFIX:
        return packet.mark, Action.DENY
    if packet.prefix.startswith(ALLOWED_PREFIX):
        try:
            return int(packet.prefix.removeprefix(ALLOWED_PREFIX), 16), Action.ALLOW
        except ValueError:
            return 0, None
    return 0, None


def _asked(in_name: str, out_name: str, node: Node) -> Iterator[tuple[Direction, str, EndpointPolicy]]:
    """Whose policies a packet between these interfaces may have met; workloads first, as they mostly have."""
    for name, direction in ((in_name, Direction.EGRESS), (out_name, Direction.INGRESS)):
        if name in node.endpoints:
            yield direction, name, node.endpoints[name].policy
    for name, direction in ((in_name, Direction.INGRESS), (out_name, Direction.EGRESS)):
        host = node.host_endpoints.get(name) or node.host_endpoints.get(ANY_INTERFACE)
        if host is not None and name and name not in node.endpoints:
            for stage in Stage:
                yield direction, name, host.policy.of(stage)


def _place(
    identity: int,
    action: Action,
    direction: Direction,
    interface: str,
    policy: EndpointPolicy,
    policies: Policies,
) -> Decision | None:
    asked = [(tier.name, key) for tier in policy.tiers_of(direction) for key in tier.policies(direction)]
    for tier, key in (*asked, *(("", profile) for profile in policy.profiles)):
        rules = policies[key].rules(direction) if key in policies else None
        for index, rule in enumerate(rules or ()):
            if rule.effect is action and flow_id(names.rule_counter(direction, key, rule)) == identity:
                return Decision(action, direction, interface, tier, key, index, rule.id)
    for tier in dict.fromkeys(name for name, _ in asked):
        if flow_id(names.tier_end_counter(direction, tier)) == identity:
            return Decision(action, direction, interface, tier)
    if flow_id(names.final_counter(direction)) == identity:
        return Decision(action, direction, interface)
    return None


class _Window:
    __slots__ = ("first_s", "last_s", "packets", "source_port", "start_s", "told")

    def __init__(self, start_s: float) -> None:
        self.start_s = self.first_s = self.last_s = start_s
        self.packets = 0
        self.source_port: int | None = None
        self.told = False


class FlowTable:
    """The flows of now. `lost` counts packets of which nothing will be told."""

    def __init__(self) -> None:
        self._windows: dict[FlowKey, _Window] = {}
        self.lost = 0

    def on_packet(self, decision: Decision | None, packet: LoggedPacket, now_s: float) -> None:
        found = headers(packet.payload) if decision is not None else None
        if decision is None or found is None:
            self.lost += 1
            return
        key = FlowKey(decision, found._replace(source_port=None))
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= MOST_FLOWS:
                self.lost += 1
                return
            window = self._windows[key] = _Window(now_s)
        if not window.packets:
            window.first_s = now_s
        window.packets += 1
        window.last_s, window.source_port = now_s, found.source_port

    def take(self, now_s: float) -> list[Seen]:
        """What is to be told now: flows that are new, and those whose window has ended and that went on."""
        told: list[Seen] = []
        for key, window in list(self._windows.items()):
            if not window.told:
                window.told = True
            elif now_s - window.start_s < WINDOW_S:
                continue
            elif not window.packets:
                del self._windows[key]
                continue
            else:
                window.start_s = now_s
            told.append(Seen(key, window.source_port, window.first_s, window.last_s, window.packets))
            window.packets = 0
        return told

    def __bool__(self) -> bool:
        """Whether there is anything to wait for."""
        return bool(self._windows)


def flow(seen: Seen, sequence: int, parties: Mapping[IPAddress, tuple[str, str]]) -> Flow:
    """`parties`: address -> namespace and name of the endpoint that has it."""
    decision, found = seen.key
    return Flow(
        sequence=sequence,
        first_s=seen.first_s,
        last_s=seen.last_s,
        packets=seen.packets,
        action=decision.action,
        direction=decision.direction,
        interface=decision.interface,
        source=Party(found.source, seen.source_port, *parties.get(found.source, ("", ""))),
        destination=Party(found.destination, found.destination_port, *parties.get(found.destination, ("", ""))),
        protocol=found.protocol,
        icmp_type=found.icmp_type,
        icmp_code=found.icmp_code,
        tier=decision.tier,
        policy=decision.policy,
        rule=decision.rule,
        rule_id=decision.rule_id,
    )


def unknown(seen: Iterable[Seen], known: Mapping[IPAddress, object]) -> set[IPAddress]:
    return {address for one in seen for address in one.addresses if address not in known}


def tree(one: Flow, node: str) -> dict[str, Any]:
    """A flow as the flow log has it: one JSON object."""
    policy = one.policy
    return {
        "start": round(one.first_s, 3),
        "end": round(one.last_s, 3),
        "node": node,
        "action": one.action.value.lower(),
        "direction": one.direction.value,
        "interface": one.interface,
        "source": _party_tree(one.source),
        "destination": _party_tree(one.destination),
        "protocol": one.protocol,
        **({"icmp": {"type": one.icmp_type, "code": one.icmp_code}} if one.icmp_type is not None else {}),
        "packets": one.packets,
        "tier": one.tier,
        "policy": {"kind": policy.kind, "namespace": policy.namespace, "name": policy.name} if policy else None,
        "rule": one.rule,
        "ruleId": one.rule_id,
    }


def _party_tree(party: Party) -> dict[str, Any]:
    return {
        "address": str(party.address),
        "port": party.port,
        "endpoint": f"{party.namespace}/{party.name}" if party.name else "",
    }


def recent(flows: Iterable[Flow], after: int) -> tuple[Flow, ...]:
    return tuple(one for one in flows if one.sequence > after)
