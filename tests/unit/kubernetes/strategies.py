"""Random Kubernetes policies over the labels, ports and addresses of `worlds`."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.unit.kubernetes.documents import Tree, admin_policy, baseline_policy, cluster_policy, policy

KEYS = ("pod", "tier", "absent")
VALUES = ("a", "b", "front", "")
NAMESPACE_KEYS = ("ns", "team", "kubernetes.io/metadata.name", "absent")
NAMESPACE_VALUES = ("x", "y", "z", "red", "")
BLOCKS: tuple[tuple[str, list[str]], ...] = (
    ("0.0.0.0/0", ["10.0.1.0/24", "192.0.2.0/24"]),
    ("::/0", ["fd00::1:0/112"]),
    ("10.0.0.0/8", []),
    ("10.0.0.0/8", ["10.0.1.0/24", "10.0.1.2/32"]),
    ("10.0.1.9/24", ["10.0.1.1/32"]),
    ("fd00::/16", ["fd00::2:1/128"]),
    ("192.0.2.7/32", []),
)


def selectors(keys: tuple[str, ...], values: tuple[str, ...]) -> st.SearchStrategy[Tree]:
    key, value = st.sampled_from(keys), st.sampled_from(values)
    several = st.lists(value, min_size=1, max_size=3)
    expression = st.one_of(
        st.builds(
            lambda k, o, v: {"key": k, "operator": o, "values": v}, key, st.sampled_from(("In", "NotIn")), several
        ),
        st.builds(lambda k, o: {"key": k, "operator": o}, key, st.sampled_from(("Exists", "DoesNotExist"))),
    )
    return st.fixed_dictionaries(
        {},
        optional={
            "matchLabels": st.dictionaries(key, value, max_size=2),
            "matchExpressions": st.lists(expression, max_size=2),
        },
    )


pods = selectors(KEYS, VALUES)
namespaces = selectors(NAMESPACE_KEYS, NAMESPACE_VALUES)
peers = st.one_of(
    st.builds(lambda one: {"podSelector": one}, pods),
    st.builds(lambda one: {"namespaceSelector": one}, namespaces),
    st.builds(lambda one, other: {"podSelector": one, "namespaceSelector": other}, pods, namespaces),
    st.builds(
        lambda block: {"ipBlock": {"cidr": block[0]} | ({"except": block[1]} if block[1] else {})},
        st.sampled_from(BLOCKS),
    ),
)
protocols = st.sampled_from(("TCP", "UDP", "SCTP"))
ports = st.one_of(
    st.fixed_dictionaries({}, optional={"protocol": protocols}),
    st.fixed_dictionaries({"port": st.sampled_from((80, 81, 82, 443, "web", "dns"))}, optional={"protocol": protocols}),
    st.fixed_dictionaries(
        {"port": st.sampled_from((80, 81)), "endPort": st.sampled_from((81, 82, 442))}, optional={"protocol": protocols}
    ),
)


def rules(field: str) -> st.SearchStrategy[list[Tree]]:
    return st.lists(
        st.fixed_dictionaries({}, optional={field: st.lists(peers, max_size=3), "ports": st.lists(ports, max_size=3)}),
        max_size=2,
    )


specs = st.fixed_dictionaries(
    {"podSelector": pods},
    optional={
        "ingress": rules("from"),
        "egress": rules("to"),
        "policyTypes": st.sampled_from((["Ingress"], ["Egress"], ["Ingress", "Egress"], [])),
    },
)


@st.composite
def policies(draw: st.DrawFn, most: int = 4) -> list[Tree]:
    """Of distinct names, in namespaces with and without a document."""
    found = draw(st.lists(st.tuples(specs, st.sampled_from(("x", "x", "y", "z"))), min_size=1, max_size=most))
    return [policy(spec, f"p{number}", where) for number, (spec, where) in enumerate(found)]


subjects = st.one_of(
    st.builds(lambda one: {"namespaces": one}, namespaces),
    st.builds(lambda one, other: {"pods": {"namespaceSelector": one, "podSelector": other}}, namespaces, pods),
)
networks = st.builds(
    lambda found: {"networks": found}, st.lists(st.sampled_from([one for one, _ in BLOCKS]), min_size=1, max_size=3)
)
port_numbers = st.sampled_from((80, 81, 82, 443))
ranges = st.builds(
    lambda start, end: {"start": start, "end": end}, st.sampled_from((1, 80, 81)), st.sampled_from((82, 442))
)
admin_ports = st.one_of(
    st.builds(lambda one, name: {"portNumber": {"port": one, "protocol": name}}, port_numbers, protocols),
    st.builds(lambda one, name: {"portRange": {**one, "protocol": name}}, ranges, protocols),
    st.builds(lambda name: {"namedPort": name}, st.sampled_from(("web", "dns"))),
)
cluster_ports = st.one_of(
    st.builds(lambda name: {"destinationNamedPort": name}, st.sampled_from(("web", "dns"))),
    st.builds(lambda name: {name.lower(): {}}, protocols),
    st.builds(lambda one, name: {name.lower(): {"destinationPort": {"number": one}}}, port_numbers, protocols),
    st.builds(lambda one, name: {name.lower(): {"destinationPort": {"range": one}}}, ranges, protocols),
)


def ordered_rules(
    peer_field: str, port_field: str, ports: st.SearchStrategy[Tree], actions: tuple[str, ...]
) -> st.SearchStrategy[list[Tree]]:
    peers = st.one_of(subjects, networks) if peer_field == "to" else subjects
    return st.lists(
        st.fixed_dictionaries(
            {"action": st.sampled_from(actions), peer_field: st.lists(peers, min_size=1, max_size=3)},
            optional={port_field: st.lists(ports, max_size=3), "name": st.just("why")},
        ),
        max_size=3,
    )


def ordered_specs(port_field: str, ports: st.SearchStrategy[Tree], actions: tuple[str, ...]) -> st.SearchStrategy[Tree]:
    return st.fixed_dictionaries(
        {"subject": subjects},
        optional={
            "ingress": ordered_rules("from", port_field, ports, actions),
            "egress": ordered_rules("to", port_field, ports, actions),
        },
    )


admin_specs = ordered_specs("ports", admin_ports, ("Allow", "Deny", "Pass"))
baseline_specs = ordered_specs("ports", admin_ports, ("Allow", "Deny"))
cluster_specs = ordered_specs("protocols", cluster_ports, ("Accept", "Deny", "Pass"))


@st.composite
def policies_of_the_cluster(draw: st.DrawFn) -> list[Tree]:
    """Of different priorities: which of two equal ones is asked first is nobody's promise. With namespaced ones."""
    found: list[Tree] = []
    for number, spec in enumerate(draw(st.lists(cluster_specs, max_size=3))):
        tier = draw(st.sampled_from(("Admin", "Baseline")))
        found.append(cluster_policy({**spec, "tier": tier, "priority": 10 * number + 5}, f"c{number}"))
    for number, spec in enumerate(draw(st.lists(admin_specs, max_size=2))):
        found.append(admin_policy({**spec, "priority": 10 * number}, f"a{number}"))
    baselines = draw(st.lists(baseline_specs, max_size=1))
    if not any(one["spec"].get("tier") == "Baseline" for one in found):
        found += map(baseline_policy, baselines)
    return [*found, *draw(st.one_of(st.just([]), policies(most=2)))]
