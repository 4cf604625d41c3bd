"""What the deltas of a graph add up to."""

from felix.calc.delta import LocalEndpoint, LocalHostEndpoint, NodeDelta, Settings
from felix.calc.members import Member, SetKey, SetKind
from weft.model.address import IPNetwork
from weft.model.keys import ResourceKey
from weft.policy.values import Policy


class NodeState:
    """What all deltas so far add up to. Refuses deltas that a dataplane could not follow."""

    def __init__(self) -> None:
        self.endpoints: dict[str, LocalEndpoint] = {}
        self.host_endpoints: dict[str, LocalHostEndpoint] = {}
        self.policies: dict[ResourceKey, Policy] = {}
        self.sets: dict[SetKey, tuple[SetKind, frozenset[Member]]] = {}
        self.routes: dict[IPNetwork, str] = {}
        self.blackholes: dict[IPNetwork, bool] = {}
        self.pools: dict[IPNetwork, bool] = {}
        self.settings = Settings()
        self.service_ranges: dict[IPNetwork, bool] = {}
        self.not_enforced: dict[ResourceKey, tuple[str, ...]] = {}

    def add(self, delta: NodeDelta) -> None:
        for name, mine in vars(self).items():
            if name in ("sets", "settings"):
                continue
            for key, value in getattr(delta, name).items():
                assert mine.get(key) != value, f"{name}: {key} reported without a change"
                mine.pop(key, None)
                if value is not None:
                    mine[key] = value
        if delta.settings is not None:
            self.settings = delta.settings
        for key, change in delta.sets.items():
            kind, members = self.sets.pop(key, (None, frozenset()))
            assert change.replaced == (change.kind is not None and change.kind is not kind)
            assert not change.added & change.removed
            if change.replaced:
                members = frozenset()
            assert change.removed <= members
            assert not change.added & members
            if change.kind is not None:
                self.sets[key] = (change.kind, (members | change.added) - change.removed)
                assert self.sets[key][1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodeState) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return repr(vars(self))
