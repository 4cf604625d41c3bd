"""Whom somebody means by one end of a flow: NAMESPACE/NAME, the name of a host endpoint, or an address."""

from msgspec import Struct
from msgspec.structs import replace

from weft.model.address import IPAddress, parse_address
from weft.model.endpoint import HostEndpoint, HostEndpointSpec, WorkloadEndpoint
from weft.model.errors import WeftError
from weft.model.keys import ResourceKey
from weft.policy.cluster import Cluster, addresses


class UnknownEndError(WeftError):
    """Nobody is called so, or more than one is."""

    def __init__(self, text: str, reason: str, candidates: tuple[str, ...] = ()) -> None:
        named = f": {', '.join(candidates)}" if candidates else ""
        super().__init__(f"{text!r}: {reason}{named}")
        self.text = text
        self.reason = f"{reason}{named}"
        self.candidates = candidates


class Party(Struct, frozen=True, eq=False):
    """One end of a flow. `key` None: an address outside or of `node`, where nobody asks a policy.

    Compared by identity: whoever is named in the same words is the same value."""

    text: str
    addresses: tuple[IPAddress, ...]
    key: ResourceKey | None = None
    node: str = ""

    @property
    def is_host(self) -> bool:
        return self.key is not None and self.key.kind == "HostEndpoint"

    @property
    def is_node(self) -> bool:
        """Whether this is a node itself, with a host endpoint or without."""
        return bool(self.node) and (self.key is None or self.is_host)


class Parties:
    """An address that several endpoints claim is the first one's, workloads before host endpoints, by namespace and
    name, as it is for routes. A node's address that no host endpoint expects is protected by the node's host endpoint
    for all interfaces, if it has that one alone: whether it is on an interface that another one names, nobody says."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[tuple[str, int | None], Party] = {}
        self._named: dict[tuple[str, str], list[ResourceKey]] = {}
        self._owners: dict[IPAddress, ResourceKey] = {}
        self._of_nodes: dict[str, list[HostEndpoint]] = {}
        for key in sorted(cluster.endpoints, key=lambda key: (key.kind != "WorkloadEndpoint", key.namespace, key.name)):
            endpoint = cluster.endpoints[key]
            for address in addresses(endpoint):
                self._owners.setdefault(address, key)
            if isinstance(endpoint, HostEndpoint):
                self._of_nodes.setdefault(endpoint.spec.node, []).append(endpoint)
            names = {key.name}
            if isinstance(endpoint, WorkloadEndpoint):
                names |= {endpoint.spec.workload, endpoint.spec.pod}
            for name in names - {""}:
                self._named.setdefault((key.namespace, name), []).append(key)

    def find(self, text: str, version: int | None = None) -> Party:
        """`version`: with its addresses of this IP version alone, if it has any. Raises UnknownEndError."""
        party = self._known.get((text, version))
        if party is None:
            party = self._known[text, version] = _of_version(self._find(text), version)
        return party

    def of(self, key: ResourceKey) -> Party:
        """The party of an endpoint. KeyError if there is none."""
        return self._party(f"{key.namespace}/{key.name}" if key.namespace else key.name, key)

    def _find(self, text: str) -> Party:
        try:
            address = parse_address(text)
        except ValueError:
            return self._party(text, self._named_so(text))
        owner = self._owners.get(address)
        if owner is not None:
            return Party(text, (address,), owner, self._cluster.endpoints[owner].spec.node)
        node = self._cluster.node_addresses.get(address, "")
        return Party(text, (address,), self._of_all_interfaces(node), node)

    def _of_all_interfaces(self, node: str) -> ResourceKey | None:
        match self._of_nodes.get(node, []):
            case [HostEndpoint(spec=HostEndpointSpec(interface_name="*")) as only]:
                return ResourceKey("HostEndpoint", only.metadata.name)
            case _:
                return None

    def _party(self, text: str, key: ResourceKey) -> Party:
        endpoint = self._cluster.endpoints[key]
        return Party(text, addresses(endpoint), key, endpoint.spec.node)

    def _named_so(self, text: str) -> ResourceKey:
        namespace, slash, name = text.rpartition("/")
        if not name or "/" in namespace or (slash and not namespace):
            raise UnknownEndError(text, "neither NAMESPACE/NAME, nor a host endpoint's name, nor an address")
        found = self._named.get((namespace, name), [])
        exact = [key for key in found if key.name == name]
        if len(exact or found) == 1:
            return (exact or found)[0]
        if not found:
            what = f"workload of this name in namespace {namespace!r}" if namespace else "host endpoint of this name"
            raise UnknownEndError(text, f"there is no {what}")
        candidates = tuple(sorted(f"{key.namespace}/{key.name}" for key in found))
        raise UnknownEndError(text, "more than one endpoint is called so, name one of", candidates)


def _of_version(party: Party, version: int | None) -> Party:
    fitting = tuple(address for address in party.addresses if address.version == version)
    return replace(party, addresses=fitting) if fitting else party
