"""What felix tells the administrator of policy: counters, read from the kernel when asked, and the flows in memory."""

from __future__ import annotations

from felix import counters
from felix.dataplane.counter_reader import CounterReader
from felix.flows import FlowLog
from felix.programmer import NodeProgrammer
from weft.admin.api import RefusedError
from weft.admin.policy import Counters, Flows
from weft.model.keys import ResourceKey
from weft.netlink.socket import DumpInterruptedError
from weft.policy.values import EndpointPolicy, Stage


class FelixPolicy:
    """A `PolicyProvider`. `flow_log` None: there is none."""

    def __init__(self, programmer: NodeProgrammer, reader: CounterReader, flow_log: FlowLog | None) -> None:
        self._programmer = programmer
        self._reader = reader
        self._flow_log = flow_log

    async def counters(self, policy: ResourceKey | None = None) -> Counters:
        try:
            held = await self._reader.read()
        except (OSError, DumpInterruptedError) as error:
            raise RefusedError(f"the kernel's counters cannot be read now: {error!r}") from error
        policies = self._programmer.policies
        wanted = counters.in_order(policies) if policy is None else [policy] if policy in policies else []
        found = tuple(counters.policy_count(policies[key], held) for key in wanted)
        return Counters(found, counters.end_counts(self._asked(), held) if policy is None else ())

    def flows(self, after: int = 0) -> Flows:
        return self._flow_log.flows(after) if self._flow_log is not None else Flows()

    def _asked(self) -> list[EndpointPolicy]:
        workloads = [one.policy for one in self._programmer.endpoints.values()]
        return workloads + [one.policy.of(s) for one in self._programmer.host_endpoints.values() for s in Stage]
