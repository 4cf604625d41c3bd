"""A node's CNI service on fakes, fed by hand with what its watch would tell."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from felix.cni.parts import Machine, Parts
from felix.cni.service import CNIService
from felix.cni.view import NodeView
from tests.fakes.cni import FakeProgrammer, FakeWiring
from tests.fakes.datastore import MemoryDatastore
from tests.unit.ipam.surroundings import blocks, handles, pool
from weft.datastore.base import Changed, Removed
from weft.datastore.syncer import Deleted, InSync, Upserted
from weft.ipam.client import IPAMClient
from weft.model import codec, keys
from weft.model.base import Metadata
from weft.model.ipam import HandleValue
from weft.model.node import ClusterInformation, ClusterInformationSpec
from weft.model.resources import AnyResource

POOLS = [pool("10.65.0.0/24", "v4"), pool("fd00::/112", "v6")]
GATEWAYS = {4: "169.254.1.1", 6: "fe80::ecee:eeff:feee:eeee"}


class EchoingDatastore(MemoryDatastore):
    """Tells the view at once what is written, as a very quick watch."""

    view: NodeView | None = None

    def _apply(self, group: Any) -> None:
        before = len(self._history)
        super()._apply(group)
        for _, events in self._history[before:]:
            for event in events:
                self._tell(event)

    def _tell(self, event: Any) -> None:
        if self.view is None:
            return
        if isinstance(event, Changed) and (key := keys.parse(event.kv.key)) is not None:
            self.view.on_events([Upserted(key, codec.decode_stored(key, event.kv.value), event.kv.revision)])
        elif isinstance(event, Removed) and (key := keys.parse(event.key)) is not None:
            self.view.on_events([Deleted(key)])


class FakeNode:
    """`restart` is the agent dying and coming back: the datastore and the kernel stay."""

    def __init__(self, *, transactional: bool = True, name: str = "n1") -> None:
        self.name = name
        self.store = EchoingDatastore(transactional=transactional)
        self.log: list[str] = []
        self.wiring = FakeWiring(self.log)
        for one in POOLS:
            self.put(one)
        self.put(
            ClusterInformation(metadata=Metadata(name="default"), spec=ClusterInformationSpec(datastore_ready=True))
        )
        self.restart()

    def restart(self, in_sync: bool = True) -> None:
        self.view = self.store.view = NodeView(self.name)
        self.programmer = FakeProgrammer(self.log)
        self.ipam = IPAMClient(self.store, self.name, self.view)
        self.parts = Parts(
            self.store, self.ipam, self.view, self.wiring, self.programmer, Machine(lambda: 1400, GATEWAYS)
        )
        self.service = CNIService(self.parts)
        for path, raw in self.store.items().items():
            key = keys.parse(path)
            if key is not None:
                self.view.on_events([Upserted(key, codec.decode_stored(key, raw), 1)])
        if in_sync:
            self.view.on_events([InSync()])

    def put(self, resource: AnyResource) -> None:
        self.store.put(keys.path(keys.of(resource)), codec.encode_stored(resource))

    async def call(
        self,
        command: str,
        container: str = "c0ffee0123456789",
        netns: int | None = None,
        cni_args: str = "",
        ifname: str = "eth0",
        **configuration: Any,
    ) -> dict[str, Any]:
        """The plugin's answer; CNIError for an error."""
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_IFNAME": ifname,
            "CNI_ARGS": cni_args,
            "CNI_PATH": "/opt/cni/bin",
        }
        conf = {"cniVersion": "1.0.0", "name": "net", "type": "weft", **configuration}
        answer = await self.service.handle(environment, json.dumps(conf).encode(), netns)
        return json.loads(answer) if answer else {}

    def endpoints(self) -> dict[str, Any]:
        prefix = keys.prefix("WorkloadEndpoint")
        return {path.removeprefix(prefix): json.loads(raw) for path, raw in self.store.items(prefix).items()}

    def handles(self) -> dict[str, HandleValue]:
        return handles(self.store)

    def held(self) -> set[str]:
        """Every address that is held by anybody."""
        return {
            str(address)
            for block in blocks(self.store).values()
            for attribute in block.value.attributes
            for address in block.held_by(attribute.handle_id or "")
        }

    def is_clean(self) -> bool:
        """Nothing of any workload is left anywhere."""
        return not (
            self.endpoints() or self.handles() or self.held() or self.wiring.pairs or self.programmer.programmed
        )


@contextmanager
def namespace() -> Iterator[int]:
    """Some network namespace: this process's own is as good as any for fakes."""
    descriptor = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
