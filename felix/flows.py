"""The flow log of this node: reads what the kernel logged, names it, keeps the last flows and writes them down.

Belongs to the loop's thread. It never waits, and takes in no more than `BUDGET` packets between two ticks: the rest
stays with the kernel, which drops and counts what is too much. `tick` once a second or so."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from felix import flowlog
from felix.dataplane.flow_socket import FlowSocket
from felix.flow_file import FlowFile
from weft.admin.policy import Flow, Flows
from weft.model.address import IPAddress
from weft.model.keys import ResourceKey
from weft.model.names import parse_endpoint_name

BUDGET = 2000
KEPT = 2000
NAMES_KEPT_S = 10.0


class Holders(Protocol):
    def __call__(self, addresses: set[IPAddress]) -> Mapping[IPAddress, ResourceKey]:
        """Which endpoints have these addresses; it may look at all of them."""
        ...


class FlowLog:
    def __init__(
        self,
        source: FlowSocket,
        node_name: str,
        node: flowlog.Node,
        interface_name: Callable[[int], str],
        holders: Holders,
        file: FlowFile | None,
    ) -> None:
        self._source = source
        self._node_name = node_name
        self._node = node
        self._interface_name = interface_name
        self._holders = holders
        self._file = file
        self._table = flowlog.FlowTable()
        self._kept: deque[Flow] = deque(maxlen=KEPT)
        self._sequence = 0
        self._budget = BUDGET
        self._unwritten = 0
        self._names: dict[IPAddress, tuple[str, str]] = {}
        self._names_until_s = 0.0

    def fileno(self) -> int:
        return self._source.fileno()

    def close(self) -> None:
        self._source.close()
        if self._file is not None:
            self._file.close()

    @property
    def lost(self) -> int:
        return self._source.lost + self._table.lost + self._unwritten

    def on_readable(self) -> bool:
        """Takes in what is there. False: enough until the next tick."""
        now_s = time.time()
        packets = self._source.receive()
        for packet in packets:
            in_name, out_name = self._interface_name(packet.in_index), self._interface_name(packet.out_index)
            decision = flowlog.decision_of(packet, in_name, out_name, self._node)
            self._table.on_packet(decision, packet, now_s)
        self._budget -= len(packets)
        return self._budget > 0

    def tick(self) -> None:
        """Tell what is new; read on."""
        self._budget = BUDGET
        if not self._table:
            return
        now_s = time.time()
        seen = self._table.take(now_s)
        if not seen:
            return
        self._resolve(seen, now_s)
        told = [flowlog.flow(one, self._sequence + number, self._names) for number, one in enumerate(seen, 1)]
        self._sequence += len(told)
        self._kept.extend(told)
        if self._file is not None:
            lines = [msgspec.json.encode(flowlog.tree(one, self._node_name)) for one in told]
            if not self._file.write(lines):
                self._unwritten += sum(one.packets for one in told)

    def flows(self, after: int = 0) -> Flows:
        return Flows(flowlog.recent(self._kept, after), self._sequence, self.lost)

    def _resolve(self, seen: list[flowlog.Seen], now_s: float) -> None:
        """Names are looked up for all flows of a tick at once, and believed for some seconds."""
        if now_s >= self._names_until_s:
            self._names.clear()
            self._names_until_s = now_s + NAMES_KEPT_S
        unknown = flowlog.unknown(seen, self._names)
        if unknown:
            found = self._holders(unknown)
            self._names.update({address: _name(found.get(address)) for address in unknown})


def _name(key: ResourceKey | None) -> tuple[str, str]:
    """Of a workload as its users call it: the pod, container or workload."""
    if key is None:
        return "", ""
    parsed = parse_endpoint_name(key.name) if key.kind == "WorkloadEndpoint" else None
    return key.namespace, parsed.workload if parsed is not None else key.name
