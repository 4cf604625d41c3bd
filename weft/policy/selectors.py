"""What the selectors of a policy choose from, and the labels they are matched against.

A namespaced policy chooses in its namespace. So do its rules' selectors, unless a rule has a namespace selector;
those look at labels that endpoints inherit from the profile of their namespace (`pcns.`) or service account
(`pcsa.`). Calico's rules, restated: libcalico-go/lib/backend/syncersv1/updateprocessors (3.32.1)."""

from functools import lru_cache
from hashlib import sha256

from msgspec.structs import replace

from weft.model.base import Resource
from weft.model.defaults import NAMESPACE_LABEL as NAMESPACE
from weft.model.defaults import ORCHESTRATOR_LABEL as ORCHESTRATOR
from weft.model.defaults import SERVICE_ACCOUNT_LABEL as SERVICE_ACCOUNT
from weft.model.endpoint import WorkloadEndpoint
from weft.model.names import namespace_profile
from weft.model.policy import (
    EntityRule,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    NetworkPolicy,
    ServiceAccountMatch,
)
from weft.model.staged import StagedPolicy
from weft.policy.values import PortSet, SelectorSet, ServiceSet
from weft.selector import Selector, conjunction, parse
from weft.selector.nodes import Compare, Everything, Has, Junction, Labels, Member, Node, Not

NAMESPACE_PREFIX = "pcns."
SERVICE_ACCOUNT_PREFIX = "pcsa."
_INHERITED = (NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX)


def endpoint_labels(endpoint: WorkloadEndpoint) -> Labels:
    """Its own labels and those that follow from what it is; inherited ones are not here.

    Own labels that look inherited do not count: with them a workload would pretend to be in another namespace."""
    own = {name: value for name, value in endpoint.metadata.labels.items() if not name.startswith(_INHERITED)}
    labels = {**own, NAMESPACE: endpoint.namespace, ORCHESTRATOR: endpoint.spec.orchestrator}
    if endpoint.spec.service_account_name:
        labels[SERVICE_ACCOUNT] = endpoint.spec.service_account_name
    return labels


def network_set_labels(networks: Resource) -> Labels:
    """A NetworkSet is in its namespace, a GlobalNetworkSet in none."""
    labels = networks.metadata.labels
    return {**labels, NAMESPACE: networks.namespace} if networks.namespace else labels


def network_set_profiles(networks: Resource) -> tuple[str, ...]:
    """A NetworkSet inherits the labels of its namespace, as the endpoints there do."""
    return (namespace_profile(networks.namespace),) if networks.namespace else ()


def policy_selector(policy: NetworkPolicy | GlobalNetworkPolicy | StagedPolicy) -> Selector:
    """Which endpoints a policy applies to. Raises SelectorError.

    Beside a namespace selector of a global policy `all()` is what is in a namespace, whichever of the two says it, and
    beside its service account selector what has an account."""
    spec = policy.spec
    accounts = parse(spec.service_account_selector).prefixed(SERVICE_ACCOUNT_PREFIX)
    if not isinstance(spec, GlobalNetworkPolicySpec):
        return conjunction(_in_namespace(policy.namespace), parse(spec.selector), accounts)
    parts = [parse(spec.selector)] if spec.selector else []
    if spec.namespace_selector:
        namespaces = parse(spec.namespace_selector).prefixed(NAMESPACE_PREFIX)
        parts = [_with_everything_as(part, Has(NAMESPACE)) for part in (namespaces, *parts)]
    if spec.service_account_selector:
        parts = [_with_everything_as(part, Has(SERVICE_ACCOUNT)) for part in (*parts, accounts)]
    return conjunction(*parts)


def entity_selector(entity: EntityRule, namespace: str) -> Selector | None:
    """Which endpoints and network sets one end of a rule chooses; None if it does not choose by labels.

    `namespace` is the policy's. As soon as any selector is used, `notSelector` too, the namespace limits it.
    Raises SelectorError."""
    parts = []
    if entity.service_accounts is not None:
        parts += _service_accounts(entity.service_accounts)
    if entity.selector:
        parts.append(parse(entity.selector))
    if entity.namespace_selector:
        return conjunction(_namespaces(entity.namespace_selector), *parts)
    if namespace and (parts or entity.not_selector):
        return conjunction(_in_namespace(namespace), *parts)
    return conjunction(*parts) if parts else None


def selector_set(selector: Selector) -> SelectorSet:
    """The set of a selector, named by its canonical form."""
    return SelectorSet("s" + _hash(str(selector)), selector)


def port_set(selector: Selector, port: str, protocol: int | None) -> PortSet:
    """The ports of this name of what a selector chooses."""
    return PortSet("p" + _hash(f"{protocol}/{port}/{selector}"), selector, port, protocol)


def service_set(namespace: str, name: str, *, with_ports: bool) -> ServiceSet:
    """`with_ports` False: the addresses alone, as a rule's source asks for them."""
    return ServiceSet(("v" if with_ports else "w") + _hash(f"{namespace}/{name}"), namespace, name, with_ports)


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


@lru_cache(maxsize=4096)
def _in_namespace(namespace: str) -> Selector:
    return Selector(Compare(NAMESPACE, "==", namespace))


@lru_cache(maxsize=4096)
def _namespaces(text: str) -> Selector:
    """`all()` is every namespace, `global()` what is in none."""
    return _with_everything_as(parse(text).prefixed(NAMESPACE_PREFIX), Has(NAMESPACE))


def _with_everything_as(selector: Selector, present: Has) -> Selector:
    """The selector with `present` for `all()`, and the contrary for `global()`."""
    return Selector(_replaced(selector.root, present))


def _replaced(node: Node, present: Has) -> Node:
    match node:
        case Everything("all"):
            return present
        case Everything():
            return Not(present)
        case Not(operand):
            return Not(_replaced(operand, present))
        case Junction(_, operands):
            return replace(node, operands=tuple(_replaced(operand, present) for operand in operands))
        case _:
            return node


def _service_accounts(match: ServiceAccountMatch) -> list[Selector]:
    parts = []
    if match.selector:
        parts.append(parse(match.selector).prefixed(SERVICE_ACCOUNT_PREFIX))
    if match.names:
        parts.append(Selector(Member(SERVICE_ACCOUNT, "in", tuple(sorted(set(match.names))))))
    return parts
