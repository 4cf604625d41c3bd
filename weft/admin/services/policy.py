"""PolicyService: counters and flows as messages and back.

Decides nothing; felix's provider does."""

from __future__ import annotations

from ipaddress import ip_address

import grpc

from weft.admin import policy as values
from weft.admin.v1 import policy_pb2 as pb
from weft.admin.v1 import policy_pb2_grpc as pb_grpc
from weft.model.errors import FieldError, ValidationError
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction

KINDS = frozenset(
    (
        "NetworkPolicy",
        "GlobalNetworkPolicy",
        "StagedNetworkPolicy",
        "StagedGlobalNetworkPolicy",
        "StagedKubernetesNetworkPolicy",
        "Profile",
    )
)
DIRECTIONS = {Direction.INGRESS: pb.INGRESS, Direction.EGRESS: pb.EGRESS}
ACTIONS = {Action.ALLOW: pb.ALLOW, Action.DENY: pb.DENY, Action.PASS: pb.PASS, Action.LOG: pb.LOG}
_DIRECTIONS = {code: value for value, code in DIRECTIONS.items()}
_ACTIONS = {code: value for value, code in ACTIONS.items()}


class PolicyServer(pb_grpc.PolicyServiceServicer):
    """Serves what `provider` answers."""

    name = "weft.admin.v1.PolicyService"

    def __init__(self, provider: values.PolicyProvider) -> None:
        self._provider = provider

    def register(self, server: grpc.aio.Server) -> None:
        pb_grpc.add_PolicyServiceServicer_to_server(self, server)

    async def GetCounters(self, request: pb.GetCountersRequest, context: object) -> pb.Counters:
        policy = _asked(request.policy) if request.HasField("policy") else None
        return counters_message(await self._provider.counters(policy))

    async def GetFlows(self, request: pb.GetFlowsRequest, context: object) -> pb.Flows:
        found = self._provider.flows(request.after)
        return pb.Flows(flows=map(_flow_message, found.flows), last=found.last, lost=found.lost)


def key_message(key: ResourceKey) -> pb.PolicyKey:
    return pb.PolicyKey(kind=key.kind, namespace=key.namespace, name=key.name)


def key_value(message: pb.PolicyKey) -> ResourceKey:
    return ResourceKey(message.kind, message.name, message.namespace)


def _asked(message: pb.PolicyKey) -> ResourceKey:
    if message.kind not in KINDS:
        raise ValidationError(
            source="", document=0, field="policy.kind", value=message.kind, expected=", ".join(sorted(KINDS))
        )
    try:
        return key_value(message)
    except FieldError as error:
        raise ValidationError(
            source="", document=0, field=f"policy.{error.field}", value=error.value, expected=error.expected
        ) from error


def counters_message(counters: values.Counters) -> pb.Counters:
    return pb.Counters(
        policies=[
            pb.PolicyCounters(
                policy=key_message(one.policy),
                rules=[
                    pb.RuleCounter(
                        direction=DIRECTIONS[rule.direction],
                        index=rule.index,
                        id=rule.id,
                        action=ACTIONS[rule.action],
                        count=_count_message(rule.count),
                    )
                    for rule in one.rules
                ],
                ingress=_count_message(one.ingress),
                egress=_count_message(one.egress),
            )
            for one in counters.policies
        ],
        ends=[
            pb.EndCounter(direction=DIRECTIONS[one.direction], tier=one.tier, count=_count_message(one.count))
            for one in counters.ends
        ],
    )


def counters_value(message: pb.Counters) -> values.Counters:
    return values.Counters(
        tuple(
            values.PolicyCount(
                policy=key_value(one.policy),
                rules=tuple(
                    values.RuleCount(
                        _DIRECTIONS[rule.direction], rule.index, rule.id, _ACTIONS[rule.action], _count(rule.count)
                    )
                    for rule in one.rules
                ),
                ingress=_count(one.ingress),
                egress=_count(one.egress),
            )
            for one in message.policies
        ),
        tuple(values.EndCount(_DIRECTIONS[one.direction], one.tier, _count(one.count)) for one in message.ends),
    )


def flows_value(message: pb.Flows) -> values.Flows:
    """Raises ValueError for an address that is none."""
    return values.Flows(tuple(map(_flow, message.flows)), message.last, message.lost)


def _count_message(count: values.Count) -> pb.Count:
    return pb.Count(packets=count.packets, bytes=count.bytes)


def _count(message: pb.Count) -> values.Count:
    return values.Count(message.packets, message.bytes)


def _flow_message(flow: values.Flow) -> pb.Flow:
    return pb.Flow(
        sequence=flow.sequence,
        first_s=flow.first_s,
        last_s=flow.last_s,
        packets=flow.packets,
        action=ACTIONS[flow.action],
        direction=DIRECTIONS[flow.direction],
        interface=flow.interface,
        source=_party_message(flow.source),
        destination=_party_message(flow.destination),
        protocol=flow.protocol,
        icmp_type=flow.icmp_type,
        icmp_code=flow.icmp_code,
        tier=flow.tier,
        policy=key_message(flow.policy) if flow.policy is not None else None,
        rule=flow.rule,
        rule_id=flow.rule_id,
    )


def _flow(message: pb.Flow) -> values.Flow:
    return values.Flow(
        sequence=message.sequence,
        first_s=message.first_s,
        last_s=message.last_s,
        packets=message.packets,
        action=_ACTIONS[message.action],
        direction=_DIRECTIONS[message.direction],
        interface=message.interface,
        source=_party(message.source),
        destination=_party(message.destination),
        protocol=message.protocol,
        icmp_type=message.icmp_type if message.HasField("icmp_type") else None,
        icmp_code=message.icmp_code if message.HasField("icmp_code") else None,
        tier=message.tier,
        policy=key_value(message.policy) if message.HasField("policy") else None,
        rule=message.rule if message.HasField("rule") else None,
        rule_id=message.rule_id,
    )


def _party_message(party: values.Party) -> pb.Party:
    return pb.Party(address=str(party.address), port=party.port or 0, namespace=party.namespace, name=party.name)


def _party(message: pb.Party) -> values.Party:
    return values.Party(ip_address(message.address), message.port or None, message.namespace, message.name)
