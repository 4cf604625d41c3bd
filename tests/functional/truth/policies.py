"""Random policies of every kind about the pods, the node and the host of `world`. A seed is a set of documents."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tests.functional.truth.world import NAMESPACES, NODE, OUTSIDE, UPLINK, Tree, calico, document

T = TypeVar("T")
BLOCKS = ("10.65.0.0/16", "fd00:65::/48", "192.0.2.0/24", "2001:db8::/64", "0.0.0.0/0", "::/0", f"{OUTSIDE[0]}/32")
POD_LABELS = {"app": ("web", "db", "none"), "tier": ("front", "back"), "absent": ("x",)}
NAMESPACE_LABELS = {"team": ("x", "y", ""), "env": ("prod",), "kubernetes.io/metadata.name": ("red", "green")}
SELECTORS = (
    "all()",
    "app == 'web'",
    "app != 'web'",
    "has(tier)",
    "!has(tier)",
    "app in {'web', 'db'} && !has(tier)",
    "app not in {'db'}",
    "app starts with 'w' || tier == 'front'",
    "projectcalico.org/namespace == 'red'",
    "projectcalico.org/serviceaccount == 'robot'",
    "pcsa.role == 'reader'",
    "pcns.team == 'y'",
    "kind == 'nets'",
)
NAMESPACE_SELECTORS = (
    "all()",
    "global()",
    "team == 'x'",
    "has(env)",
    "projectcalico.org/name == 'green'",
    "projectcalico.org/name != 'red'",
)


class Policies:
    """`addresses`: of the pods by name, as in `world`."""

    def __init__(self, seed: int, addresses: Mapping[str, tuple[str, str]]) -> None:
        self._random = random.Random(seed)
        self._addresses = addresses

    def documents(self) -> list[Tree]:
        """In an order in which they can be applied: tiers come first."""
        found = [calico("Tier", "ops", order=self._one((50, 2e6)), defaultAction=self._one(("Deny", "Pass")))]
        found += self._network_sets()
        found += [self._slice(family) for family in (0, 1)]
        if self._maybe(0.5):
            found += self._host()
        if self._maybe(0.4):
            found.append(self._configuration())
        for make, most in (
            (self._kubernetes, 3),
            (self._admin, 2),
            (self._cluster, 2),
            (self._global, 4),
            (self._namespaced, 3),
            (self._staged, 2),
        ):
            found += [make(number) for number in range(self._random.randint(0, most))]
        if self._maybe(0.2) and not any(one.get("spec", {}).get("tier") == "Baseline" for one in found):
            found.append(self._baseline())
        return found

    # --- Kubernetes' --------------------------------------------------------------------------------------------

    def _kubernetes(self, number: int) -> Tree:
        spec = self._kubernetes_spec()
        return document("networking.k8s.io/v1", "NetworkPolicy", f"k{number}", self._one(NAMESPACES), spec=spec)

    def _kubernetes_spec(self) -> Tree:
        spec: Tree = {"podSelector": self._label_selector(POD_LABELS), "policyTypes": self._types()}
        for name, field in (("ingress", "from"), ("egress", "to")):
            if self._maybe(0.7) and name.capitalize() in spec["policyTypes"]:
                spec[name] = self._some(lambda field=field: self._kubernetes_rule(field), 2)  # type: ignore[misc]
        return spec

    def _kubernetes_rule(self, field: str) -> Tree:
        rule: Tree = {}
        if self._maybe(0.6):
            rule[field] = self._some(self._peer, 2, least=1)
        if self._maybe(0.6):
            rule["ports"] = self._some(self._kubernetes_port, 3, least=1)
        return rule

    def _peer(self) -> Tree:
        if self._maybe(0.25):
            return {
                "ipBlock": self._one(
                    (
                        {"cidr": "192.0.2.0/24", "except": ["192.0.2.9/32"]},
                        {"cidr": "0.0.0.0/0"},
                        {"cidr": "::/0", "except": ["2001:db8::/64"]},
                        {"cidr": "10.65.0.0/16"},
                    )
                )
            }
        peer = {}
        if self._maybe(0.6):
            peer["podSelector"] = self._label_selector(POD_LABELS)
        if self._maybe(0.5) or not peer:
            peer["namespaceSelector"] = self._label_selector(NAMESPACE_LABELS)
        return peer

    def _kubernetes_port(self) -> Tree:
        return self._one(
            (
                {"port": 80},
                {"port": "http"},
                {"port": 80, "endPort": 443},
                {"protocol": "UDP", "port": "dns"},
                {"protocol": "UDP"},
                {"protocol": "SCTP", "port": 9000},
                {"protocol": "TCP"},
                {"protocol": "UDP", "port": 1, "endPort": 79},
            )
        )

    def _label_selector(self, labels: dict[str, tuple[str, ...]]) -> Tree:
        if self._maybe(0.3):
            return {}
        key = self._one(labels)
        values = self._random.sample(labels[key], self._random.randint(1, len(labels[key])))
        match self._random.randrange(4):
            case 0 | 1:
                return {"matchLabels": {key: values[0]}}
            case 2:
                operator = self._one(("In", "NotIn"))
                return {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}
            case _:
                return {"matchExpressions": [{"key": key, "operator": self._one(("Exists", "DoesNotExist"))}]}

    def _admin(self, number: int) -> Tree:
        spec = self._subject(("Allow", "Deny", "Pass"), "ports", self._admin_port)
        name = f"a{number}"
        return document(
            "policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", name, spec=spec | {"priority": number}
        )

    def _baseline(self) -> Tree:
        spec = self._subject(("Allow", "Deny"), "ports", self._admin_port)
        return document("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", "default", spec=spec)

    def _cluster(self, number: int) -> Tree:
        spec = self._subject(("Accept", "Deny", "Pass"), "protocols", self._cluster_port)
        spec |= {"tier": self._one(("Admin", "Baseline")), "priority": 10 + number}
        return document("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", f"c{number}", spec=spec)

    def _subject(self, actions: tuple[str, ...], ports: str, port: Callable[[], Tree]) -> Tree:
        def rule(field: str) -> Tree:
            peers = self._some(
                lambda: self._subjects() if field == "from" or self._maybe(0.7) else self._networks(), 2, 1
            )
            made: Tree = {"action": self._one(actions), field: peers}
            return made | ({ports: self._some(port, 2, least=1)} if self._maybe(0.6) else {})

        return {
            "subject": self._subjects(),
            "ingress": self._some(lambda: rule("from"), 2),
            "egress": self._some(lambda: rule("to"), 2),
        }

    def _subjects(self) -> Tree:
        namespaces = self._label_selector(NAMESPACE_LABELS)
        if self._maybe(0.5):
            return {"namespaces": namespaces}
        return {"pods": {"namespaceSelector": namespaces, "podSelector": self._label_selector(POD_LABELS)}}

    def _networks(self) -> Tree:
        return {"networks": self._random.sample(BLOCKS, 2)}

    def _admin_port(self) -> Tree:
        return self._one(
            (
                {"portNumber": {"port": 80, "protocol": "TCP"}},
                {"portNumber": {"port": 53, "protocol": "UDP"}},
                {"portNumber": {"port": 9000, "protocol": "SCTP"}},
                {"portRange": {"start": 80, "end": 443, "protocol": "TCP"}},
                {"namedPort": "http"},
            )
        )

    def _cluster_port(self) -> Tree:
        return self._one(
            (
                {"tcp": {"destinationPort": {"number": 80}}},
                {"udp": {}},
                {"sctp": {"destinationPort": {"number": 9000}}},
                {"tcp": {"destinationPort": {"range": {"start": 443, "end": 8080}}}},
                {"destinationNamedPort": "dns"},
            )
        )

    # --- Calico's -----------------------------------------------------------------------------------------------

    def _network_sets(self) -> list[Tree]:
        nets = self._random.sample(BLOCKS, self._random.randint(0, 3))
        everywhere = calico("GlobalNetworkSet", "somewhere", nets=nets)
        local = calico("NetworkSet", "local", "red", nets=[f"{OUTSIDE[0]}/32", f"{OUTSIDE[1]}/128"])
        for one in (everywhere, local):
            one["metadata"]["labels"] = {"kind": "nets"}
        return [everywhere, local]

    def _slice(self, family: int) -> Tree:
        """Of service `web` in namespace `red`, whose first pod alone is ready."""
        endpoints = [
            {"addresses": [self._addresses[pod][family]], "conditions": {"ready": pod == "red/a"}}
            for pod in ("red/a", "red/b", "red/c")[: self._random.randint(1, 3)]
        ]
        made = document(
            "discovery.k8s.io/v1", "EndpointSlice", f"web-{family}", "red", labels={"kubernetes.io/service-name": "web"}
        )
        ports = [{"name": "web", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]
        return made | {"addressType": ("IPv4", "IPv6")[family], "endpoints": endpoints, "ports": ports}

    def _host(self) -> list[Tree]:
        interface = self._one((UPLINK, "*", ""))
        spec = {"node": "n1", "expectedIPs": list(NODE)} | ({"interfaceName": interface} if interface else {})
        endpoint = document("projectcalico.org/v3", "HostEndpoint", "uplink", labels={"app": "host"}, spec=spec)
        types = self._types()
        guard = self._spec(types) | {"selector": "app == 'host'", "order": 5}
        return [endpoint, calico("GlobalNetworkPolicy", "guard", **guard)]

    def _configuration(self) -> Tree:
        action = self._one(("Drop", "Return", "Accept"))
        return calico("FelixConfiguration", "default", defaultEndpointToHostAction=action)

    def _global(self, number: int) -> Tree:
        spec = self._spec(self._types()) | {"selector": self._one(SELECTORS)}
        if self._maybe(0.3):
            spec["namespaceSelector"] = self._one([one for one in NAMESPACE_SELECTORS if one != "global()"])
        if self._maybe(0.2):
            spec["serviceAccountSelector"] = "role == 'reader'"
        return calico("GlobalNetworkPolicy", f"g{number}", **self._placed(spec))

    def _namespaced(self, number: int) -> Tree:
        spec = self._spec(self._types()) | {"selector": self._one(SELECTORS)}
        return calico("NetworkPolicy", f"n{number}", self._one(NAMESPACES), **self._placed(spec))

    def _staged(self, number: int) -> Tree:
        spec = self._placed(self._spec(self._types()) | {"selector": self._one(SELECTORS)})
        match self._random.randrange(3):
            case 0:
                return calico("StagedGlobalNetworkPolicy", f"s{number}", **spec, stagedAction="Set")
            case 1:
                return calico("StagedNetworkPolicy", f"s{number}", self._one(NAMESPACES), **spec, stagedAction="Set")
            case _:
                return calico(
                    "StagedKubernetesNetworkPolicy", f"s{number}", self._one(NAMESPACES), **self._kubernetes_spec()
                )

    def _placed(self, spec: Tree) -> Tree:
        if self._maybe(0.4):
            spec["tier"] = "ops"
        if self._maybe(0.7):
            spec["order"] = self._one((10, 20.5, 1000))
        return spec

    def _spec(self, types: list[str]) -> Tree:
        return {"types": types} | {
            one.lower(): self._some(lambda one=one: self._rule(one), 3)
            + ([{"action": "Allow"}] if self._maybe(0.3) else [])
            for one in types
        }

    def _rule(self, direction: str) -> Tree:
        rule: Tree = {"action": self._one(("Allow", "Allow", "Allow", "Deny", "Pass", "Log"))}
        if self._maybe(0.1):
            served = {"services": {"name": "web", "namespace": "red"}}
            return rule | ({"destination": served} if direction == "Egress" else {"source": served})
        shape = self._random.randrange(8)
        with_ports = shape < 4
        if with_ports:
            rule["protocol"] = self._one(("TCP", "TCP", "UDP", "SCTP", 6))
        elif shape == 4:
            rule["notProtocol"] = self._one(("TCP", "UDP", 132))
        elif shape == 5:
            version = self._one((4, 6))
            kind = 8 if version == 4 else 128
            rule |= {"protocol": "ICMP" if version == 4 else "ICMPv6", "ipVersion": version}
            rule[self._one(("icmp", "notICMP"))] = self._one(({"type": kind}, {"type": kind, "code": 0}, {"type": 3}))
        elif shape == 6:
            rule["ipVersion"] = self._one((4, 6))
        version = rule.get("ipVersion") or self._one((4, 6))
        if self._maybe(0.6):
            rule["source"] = self._entity(version, ports=False)
        if with_ports or self._maybe(0.4):
            rule["destination"] = self._entity(version, ports=with_ports)
        return {name: value for name, value in rule.items() if value != {}}

    def _entity(self, version: int, *, ports: bool) -> Tree:
        entity: Tree = {}
        if ports and self._maybe(0.8):
            entity[self._one(("ports", "ports", "notPorts"))] = self._one(
                ([80], ["80:443"], ["http"], ["dns", 8080], [53, "http"], ["9000:9001", 53], [1, "70:79"])
            )
        match self._random.randrange(9):
            case 0 | 1:
                entity["selector"] = self._one(SELECTORS)
            case 2:
                entity["namespaceSelector"] = self._one(NAMESPACE_SELECTORS)
            case 3:
                entity |= {"namespaceSelector": self._one(NAMESPACE_SELECTORS), "selector": self._one(SELECTORS)}
            case 4:
                entity["nets"] = self._nets(version)
            case 5:
                entity |= {
                    "nets": self._nets(version),
                    "notNets": [one for one in self._nets(version) if not one.endswith("/0")],
                }
            case 6:
                entity["serviceAccounts"] = self._one(({"names": ["robot"]}, {"selector": "role == 'reader'"}))
            case 7:
                entity |= {"notSelector": self._one(SELECTORS)}
            case _:
                pass
        return entity

    def _nets(self, version: int) -> list[str]:
        """All of one family: a rule may not name prefixes of both."""
        fitting = [one for one in BLOCKS if (":" in one) == (version == 6)]
        return self._random.sample(fitting, self._random.randint(1, 2))

    # --- chance -------------------------------------------------------------------------------------------------

    def _types(self) -> list[str]:
        return self._one((["Ingress"], ["Egress"], ["Ingress", "Egress"]))

    def _one(self, choices: Any) -> Any:
        return self._random.choice(list(choices))

    def _maybe(self, chance: float) -> bool:
        return self._random.random() < chance

    def _some(self, make: Callable[[], T], most: int, least: int = 0) -> list[T]:
        return [make() for _ in range(self._random.randint(least, most))]
