"""From a CNI request to what is stored about it: names, labels, profile, endpoint, addresses wanted. Pure.

Names are those of Calico's plugin, so that either can delete what the other added."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_network
from typing import Final, TypeVar

import msgspec

from felix.cni.protocol import CNIError, Code, Request
from weft.ipam.allocator import AssignRequest
from weft.ipam.block import Holder
from weft.model import names
from weft.model.address import IPAddress, IPNetwork, parse_interface, parse_network
from weft.model.base import Metadata
from weft.model.endpoint import WorkloadEndpoint, WorkloadEndpointSpec
from weft.model.errors import FieldError
from weft.model.keys import ResourceKey
from weft.model.policy import EntityRule, Profile, ProfileSpec, Rule
from weft.model.pool import IPPool
from weft.model.validation import checks
from weft.model.wire import NO_JSON

NETWORK_ANNOTATION: Final = "weft.dev/cni-network"
"""On an endpoint: the network it was added to. GC goes by it."""

_ANNOTATION: Final = "cni.projectcalico.org/"
T = TypeVar("T")

_MAC: Final = re.compile(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\Z")


@dataclass(frozen=True, slots=True)
class Workload:
    """Who a request is about. `pod` is "" outside Kubernetes; `turn` names what only one call at a time may touch."""

    node: str
    network: str
    container_id: str
    interface: str
    namespace: str
    pod: str
    name: str
    labels: Mapping[str, str]
    key: ResourceKey = field(init=False)

    def __post_init__(self) -> None:
        """Raises FieldError for names that no endpoint can have."""
        if self.pod:
            name = names.k8s_endpoint_name(self.node, self.pod, self.interface)
        else:
            name = names.cni_endpoint_name(self.node, self.container_id, self.interface)
        object.__setattr__(self, "key", ResourceKey("WorkloadEndpoint", name, self.namespace))

    @property
    def orchestrator(self) -> str:
        return "k8s" if self.pod else "cni"

    @property
    def handle_id(self) -> str:
        return names.cni_handle_id(self.network, self.container_id)

    @property
    def host_interface(self) -> str:
        if self.pod:
            return names.k8s_interface_name(self.namespace, self.pod)
        return names.cni_interface_name(self.container_id)

    @property
    def turn(self) -> str:
        return f"{self.namespace}/{self.pod}" if self.pod else self.container_id


def workload_of(request: Request, node: str) -> Workload:
    """Raises CNIError for names that no endpoint can have."""
    arguments, labels = request.arguments, {}
    namespace = arguments.get("WEFT_NAMESPACE") or arguments.get("CNI_TEST_NAMESPACE") or "default"
    for label in request.configuration.args.mesos.network_info.labels.labels:
        if label.key == "projectcalico.org/namespace":
            namespace = label.value
        else:
            labels[clean_label(label.key)] = clean_label(label.value)
    labels |= {label.key: label.value for label in request.configuration.args.cni.labels}
    pod, pod_namespace = arguments.get("K8S_POD_NAME", ""), arguments.get("K8S_POD_NAMESPACE", "")
    if not (pod and pod_namespace):
        pod, pod_namespace = "", namespace
    try:
        return Workload(
            node=node,
            network=request.configuration.name,
            container_id=request.container_id,
            interface=request.interface,
            namespace=pod_namespace,
            pod=pod,
            name=arguments.get("WEFT_WORKLOAD", ""),
            labels=labels,
        )
    except FieldError as error:
        raise CNIError(
            Code.INVALID_ENVIRONMENT, f"no endpoint can be named after this {error.field}", str(error)
        ) from None


def require_storable(workload: Workload) -> None:
    """Raises CNIError for what no manifest of an endpoint could say. ADD alone asks: DEL takes away what is there."""
    for wrong in (*checks.name("namespace", workload.namespace), *checks.label_map("labels", workload.labels)):
        raise CNIError(Code.INVALID_ENVIRONMENT, f"no endpoint can have this {wrong.field}", str(wrong))


def clean_label(text: str) -> str:
    """Mesos allows any text in a label; these are the substitutions of Calico's plugin."""
    text = re.sub(r"[^-_.a-zA-Z0-9]+", "-", text.replace("/", "."))
    return re.sub(r"[.-]*[.][.-]*", ".", text).strip(".-")


def endpoint_of(
    workload: Workload,
    request: Request,
    addresses: Sequence[IPAddress],
    mac: str,
    uid: str,
    now: datetime,
) -> WorkloadEndpoint:
    """The endpoint as it is stored; the labels on top are those that Calico's client adds."""
    networks = [ip_network(address) for address in addresses]
    labels = {
        **workload.labels,
        "projectcalico.org/namespace": workload.namespace,
        "projectcalico.org/orchestrator": workload.orchestrator,
    }
    return WorkloadEndpoint(
        metadata=Metadata(
            name=workload.key.name,
            namespace=workload.namespace,
            uid=uid,
            creation_timestamp=now.replace(microsecond=0),
            labels=labels,
            annotations={NETWORK_ANNOTATION: workload.network},
        ),
        spec=WorkloadEndpointSpec(
            orchestrator=workload.orchestrator,
            workload=workload.name,
            node=workload.node,
            container_id=workload.container_id,
            pod=workload.pod,
            endpoint=workload.interface,
            ip_networks=tuple(networks),
            profiles=profiles_of(workload, request),
            interface_name=workload.host_interface,
            mac=mac,
        ),
    )


def addresses_of(endpoint: WorkloadEndpoint) -> list[IPAddress]:
    """The endpoint's addresses, in the order they were assigned."""
    return [network.network_address for network in endpoint.spec.ip_networks]


def profiles_of(workload: Workload, request: Request) -> tuple[str, ...]:
    """The network's, unless the configuration leaves policy to somebody else."""
    if not request.configuration.policy.type:
        return (workload.network,)
    return (names.namespace_profile(workload.namespace),) if workload.pod else ()


def network_profile(workload: Workload, uid: str, now: datetime) -> Profile:
    """What Calico's plugin gives a network that has no profile yet: everything out, and in from its own.

    In Kubernetes without a policy type, everything in, too."""
    name = workload.network
    source = EntityRule() if workload.pod else EntityRule(selector=f"has({name})")
    return Profile(
        metadata=Metadata(name=name, uid=uid, creation_timestamp=now.replace(microsecond=0)),
        spec=ProfileSpec(
            egress=(Rule(action="Allow"),),
            ingress=(Rule(action="Allow", source=source),),
            labels_to_apply={name: ""},
        ),
    )


def addresses_wanted(workload: Workload, request: Request, pools: Iterable[IPPool], now: datetime) -> AssignRequest:
    """How many of which family, or which. Raises CNIError."""
    section, annotations = request.configuration.ipam, request.configuration.runtime_config.pod_annotations
    if section.type not in ("", "weft-ipam", "calico-ipam"):
        raise CNIError(Code.UNSUPPORTED_FIELD, f"ipam type {section.type!r} is not supported", "use weft-ipam")
    attributes = {"node": workload.node, "timestamp": f"{now:%Y-%m-%d %H:%M:%S.%f} +0000 UTC"}
    if workload.pod:
        attributes |= {"pod": workload.pod, "namespace": workload.namespace}
    families = _listed(annotations, "ipFamilies")
    counts = {
        4: int("IPv4" in families) if families else _flag("assign_ipv4", section.assign_ipv4, True),
        6: int("IPv6" in families) if families else _flag("assign_ipv6", section.assign_ipv6, False),
    }
    by_name = {pool.metadata.name: pool.spec.cidr for pool in pools}
    wanted = [
        *(_listed(annotations, "ipv4pools") or section.ipv4_pools),
        *(_listed(annotations, "ipv6pools") or section.ipv6_pools),
    ]
    return AssignRequest(
        holder=Holder(workload.handle_id, attributes),
        counts=counts,
        addresses=_requested(request, annotations),
        pools=tuple(_pool(text, by_name) for text in wanted),
    )


def requested_mac(request: Request) -> str | None:
    """The MAC that was asked for, if any."""
    runtime = request.configuration.runtime_config
    mac = runtime.pod_annotations.get(f"{_ANNOTATION}hwAddr") or runtime.mac or request.arguments.get("MAC")
    if mac and not _MAC.match(mac):
        raise CNIError(Code.INVALID_CONFIGURATION, f"{mac!r} is no MAC address")
    return mac.lower() if mac else None


def _requested(request: Request, annotations: Mapping[str, str]) -> tuple[IPAddress, ...]:
    """Conventions put a prefix length behind an address, which is not looked at: ours is always a single address."""
    texts = (
        _listed(annotations, "ipAddrs")
        or request.configuration.runtime_config.ips
        or request.configuration.args.cni.ips
        or tuple(filter(None, request.arguments.get("IP", "").split(",")))
    )
    return tuple(_parsed("address", text, lambda text: parse_interface(text).ip) for text in texts)


def _listed(annotations: Mapping[str, str], name: str) -> tuple[str, ...]:
    """An annotation that is a JSON list."""
    text = annotations.get(_ANNOTATION + name)
    if not text:
        return ()
    try:
        return msgspec.json.decode(text, type=tuple[str, ...])
    except NO_JSON as error:
        raise CNIError(Code.INVALID_CONFIGURATION, f"annotation {_ANNOTATION}{name} is no list", str(error)) from None


def _flag(name: str, value: str | bool | None, default: bool) -> int:
    if value is None:
        return int(default)
    if value in (True, "true"):
        return 1
    if value in (False, "false"):
        return 0
    raise CNIError(Code.INVALID_CONFIGURATION, f'ipam.{name}: {value!r} is neither "true" nor "false"')


def _pool(text: str, by_name: Mapping[str, IPNetwork]) -> IPNetwork:
    if text in by_name:
        return by_name[text]
    network: IPNetwork = _parsed("pool", text, parse_network)
    return network


def _parsed(what: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise CNIError(Code.INVALID_CONFIGURATION, f"{text!r} is no {what}", str(error)) from None
