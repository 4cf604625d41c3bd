"""What of FelixConfiguration this node needs, resolved from several resources.

A field of `node.<name>` goes before that of the configuration whose node selector chooses this node (the oldest of
several), that before the one of `default`; what none sets has Calico's default."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from msgspec import structs

from felix.calc.delta import Failsafe, FlowLogs, LogLimit, Settings
from felix.calc.output import Output
from felix.calc.setting_words import AS_WE_DO, REJECTS, TAKEN_IN, WORDS, is_irrelevant, word_of
from weft.model.felix_configuration import (
    FAILSAFE_INBOUND,
    FAILSAFE_OUTBOUND,
    FelixConfiguration,
    FelixConfigurationSpec,
    ProtoPort,
)
from weft.model.keys import ResourceKey
from weft.model.node import Node
from weft.selector import SelectorError, parse

T = TypeVar("T")

_FIELDS = {one.name: (one.encode_name, one.default) for one in structs.fields(FelixConfigurationSpec)}
_NOT_ENFORCED = {name: one for name, one in _FIELDS.items() if name not in TAKEN_IN and not is_irrelevant(name)}
_TCP = 6
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_RATE = re.compile(f"([1-9][0-9]{{0,3}})/({'|'.join(_SECONDS)})")
_BURST = 5
"""Calico's default, and what the kernel takes 0 for."""
_SCOPE = "nodeSelector: has no effect on this name"


class FelixSettings:
    def __init__(self, node: str, flow_logs: FlowLogs = "Denied") -> None:
        """`flow_logs` is the agent's own setting: Calico's configuration has none for it."""
        self._node = f"node.{node}"
        self._flow_logs = flow_logs
        self._configurations: dict[str, FelixConfiguration] = {}
        self._labels: Mapping[str, str] | None = None
        self._specs: tuple[FelixConfigurationSpec, ...] = ()
        self._chosen = ""
        self.output: Output[str, Settings] = Output(self._compute)
        self.problems: Output[ResourceKey, tuple[str, ...]] = Output(self._compute_problems)
        self.output.touch("")

    # --- input --------------------------------------------------------------------------------------------------

    def set_configuration(self, key: ResourceKey, configuration: FelixConfiguration | None) -> None:
        if configuration is None:
            self._configurations.pop(key.name, None)
        else:
            self._configurations[key.name] = configuration
        self.problems.touch(key)
        self._resolve()

    def set_node(self, node: Node | None) -> None:
        """This node itself, None where it does not exist: no node selector chooses it then."""
        labels = node.metadata.labels if node is not None else None
        if labels != self._labels:
            self._labels = labels
            self._resolve()

    def flush(self) -> Settings | None:
        """The settings if they changed."""
        return self.output.flush().get("")

    @property
    def source_spoofing(self) -> bool:
        """Whether workloads may send from the prefixes that they are given for it."""
        return bool(self._word("workload_source_spoofing"))

    # --- workings -----------------------------------------------------------------------------------------------

    def _resolve(self) -> None:
        """Which configurations hold here, in order."""
        before, self._chosen = self._chosen, self._choose()
        names = (self._node, self._chosen, "default")
        self._specs = tuple(self._configurations[name].spec for name in names if name in self._configurations)
        self.output.touch("")
        for name in self._configurations:
            if self._is_scoped(name) or before != self._chosen:
                self.problems.touch(ResourceKey("FelixConfiguration", name))

    def _choose(self) -> str:
        """The configuration whose selector chooses this node, "" for none. The oldest has it, so that a new one cannot
        disturb what works."""
        choosing = [name for name in self._configurations if self._is_scoped(name) and self._selects(name)]
        return min(choosing, key=lambda name: (_age(self._configurations[name]), name), default="")

    def _is_scoped(self, name: str) -> bool:
        return name != "default" and not name.startswith("node.")

    def _selects(self, name: str) -> bool:
        selector = self._configurations[name].spec.node_selector
        if not selector or self._labels is None:
            return False
        try:
            return parse(selector).matches(self._labels)
        except SelectorError:
            return False  # reported

    def _first(self, field: str, default: T) -> T:
        """What the first configuration that sets the field says."""
        unset = _FIELDS[field][1]
        return next((value for spec in self._specs if (value := getattr(spec, field)) != unset), default)

    def _word(self, field: str) -> Any:
        """What the word of the first configuration that gives one means."""
        words = WORDS[field]
        return words.meaning[word_of(field, self._first(field, words.taken)) or words.taken]

    def _compute(self, _: str) -> Settings:
        denies = next((field for field in REJECTS if self._first(field, "")), REJECTS[0])
        return Settings(
            endpoint_to_host=self._word("default_endpoint_to_host_action"),
            log_prefix=self._first("log_prefix", Settings().log_prefix),
            log_limit=self._log_limit(),
            failsafe_inbound=self._failsafes("failsafe_inbound_host_ports", FAILSAFE_INBOUND),
            failsafe_outbound=self._failsafes("failsafe_outbound_host_ports", FAILSAFE_OUTBOUND),
            vxlan_port=self._vxlan_port(),
            allow_vxlan_from_workloads=self._first("allow_vxlan_packets_from_workloads", False),
            allow_ipip_from_workloads=self._first("allow_ipip_packets_from_workloads", False),
            drop_invalid=not self._first("disable_conntrack_invalid_check", False),
            reject=self._word(denies),
            service_loop_prevention=self._word("service_loop_prevention"),
            flow_logs=self._flow_logs,
        )

    def _log_limit(self) -> LogLimit | None:
        rates = (_rate(spec) for spec in self._specs)
        rate = next((one for one in rates if one is not None), None)
        bursts = (spec.log_action_rate_limit_burst for spec in self._specs)
        burst = next((one for one in bursts if one is not None and _is_burst(one)), None)
        return LogLimit(*rate, burst or _BURST) if rate is not None else None

    def _vxlan_port(self) -> int:
        given = (spec.vxlan_port for spec in self._specs)
        return next((port for port in given if port is not None and _is_port(port)), Settings().vxlan_port)

    def _failsafes(self, field: str, default: tuple[ProtoPort, ...]) -> tuple[Failsafe, ...]:
        """An empty list means none, as in Calico."""
        ports = (one for one in self._first(field, default) if _is_usable(one))
        found = (Failsafe(one.protocol.number if one.protocol else _TCP, one.port, one.net) for one in ports)
        return tuple(dict.fromkeys(found))

    def _compute_problems(self, key: ResourceKey) -> tuple[str, ...] | None:
        configuration = self._configurations.get(key.name)
        if configuration is None:
            return None
        return tuple(self._find_problems(key.name, configuration.spec)) or None

    def _find_problems(self, name: str, spec: FelixConfigurationSpec) -> Iterator[str]:
        if self._is_scoped(name):
            yield from self._scope_problems(name, spec)
        elif name in (self._node, "default") and spec.node_selector is not None:
            yield _SCOPE
        if name in (self._node, self._chosen, "default"):
            yield from _field_problems(spec)

    def _scope_problems(self, name: str, spec: FelixConfigurationSpec) -> Iterator[str]:
        try:
            parse(spec.node_selector or "")
        except SelectorError as error:
            yield f"nodeSelector: selector that cannot be read: {error}; the configuration is not used"
        if self._selects(name) and name != self._chosen:
            yield f"nodeSelector: the older {self._chosen} chooses this node, too, and is used"


def _field_problems(spec: FelixConfigurationSpec) -> Iterator[str]:
    for field, words in WORDS.items():
        value = getattr(spec, field)
        if value and word_of(field, value) is None:
            yield f"{_FIELDS[field][0]}: {value} is none of {', '.join(words.meaning)}; {words.taken} is taken"
    if spec.vxlan_port is not None and not _is_port(spec.vxlan_port):
        yield f"vxlanPort: {spec.vxlan_port} is no port; counts as not given"
    if spec.log_action_rate_limit and _rate(spec) is None:
        yield f"logActionRateLimit: {spec.log_action_rate_limit} is no rate such as 10/minute; counts as not given"
    burst = spec.log_action_rate_limit_burst
    if burst is not None and not _is_burst(burst):
        yield f"logActionRateLimitBurst: {burst} is not from 0 to 9999; counts as not given"
    for field in ("failsafe_inbound_host_ports", "failsafe_outbound_host_ports"):
        for index, port in enumerate(getattr(spec, field) or ()):
            if not _is_usable(port):
                yield f"{_FIELDS[field][0]}[{index}]: needs protocol TCP, UDP or SCTP and a port from 1 to 65535"
    if spec.interface_prefix not in ("", "cali"):
        yield f"interfacePrefix: {spec.interface_prefix}: workloads' interfaces are called cali… only"
    for field, (name, default) in _NOT_ENFORCED.items():
        value = getattr(spec, field)
        if value != default and value != AS_WE_DO.get(field, default):
            yield f"{name}: not supported yet"


def _age(configuration: FelixConfiguration) -> datetime:
    """Kubernetes writes UTC; a time that is not given is before all others, as in Go."""
    created = configuration.metadata.creation_timestamp
    return created.replace(tzinfo=UTC) if created is not None else datetime.min.replace(tzinfo=UTC)


def _rate(spec: FelixConfigurationSpec) -> tuple[int, int] | None:
    """Packets in so many seconds; None where none can be read. Calico's pattern: four digits at most."""
    found = _RATE.fullmatch(spec.log_action_rate_limit or "")
    return (int(found[1]), _SECONDS[found[2]]) if found is not None else None


def _is_burst(number: int) -> bool:
    return 0 <= number <= 9999


def _is_port(number: int) -> bool:
    return 1 <= number <= 65535


def _is_usable(port: ProtoPort) -> bool:
    return _is_port(port.port) and (port.protocol is None or port.protocol.has_ports)
