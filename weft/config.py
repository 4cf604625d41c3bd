"""What an agent is told by its environment, parsed once into frozen values.

The names are Calico's where Calico has one, so an existing DaemonSet's environment works unchanged; ours begin
with WEFT_. A value that makes no sense is refused here with its name and what would be right; nothing behind this
module reads the environment.
"""

from collections.abc import Callable, Mapping
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
)
from pathlib import Path
from typing import Literal, TypeVar

from msgspec import Struct

T = TypeVar("T")

AUTODETECT = "autodetect"
NO_ADDRESS = "none"
AddressSetting = IPv4Interface | IPv6Interface | IPv4Address | IPv6Address | Literal["autodetect", "none"] | None
"""An address (without a prefix: take that of the interface), "autodetect", "none" (never detect), or None: not set."""


EncapsulationMode = Literal["Always", "CrossSubnet", "Never"]


class ConfigError(Exception):
    """A setting of the environment that cannot be used."""

    def __init__(self, name: str, value: str, expected: str) -> None:
        super().__init__(f"{name}={value!r}: expected {expected}")
        self.name = name
        self.value = value
        self.expected = expected


class EtcdConfig(Struct, frozen=True):
    """Where etcd is and how to prove who we are. Endpoints: http(s)://host:port, host:port, unix:///path."""

    endpoints: tuple[str, ...]
    ca_cert_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    username: str | None = None
    password: str | None = None
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ConfigError("ETCD_ENDPOINTS", "", "at least one endpoint")
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("ETCD_CERT_FILE", str(self.cert_file), "ETCD_CERT_FILE and ETCD_KEY_FILE together")
        if (self.username is None) != (self.password is None):
            raise ConfigError("ETCD_USERNAME", str(self.username), "ETCD_USERNAME and ETCD_PASSWORD together")

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name != "password")
        return f"EtcdConfig({', '.join(shown)})"


class PoolConfig(Struct, frozen=True):
    """A pool to create on first start; `cidr` None means: none asked for."""

    cidr: IPv4Network | IPv6Network | None
    block_size: int
    nat_outgoing: bool
    ipip_mode: EncapsulationMode
    vxlan_mode: EncapsulationMode
    node_selector: str
    disable_bgp_export: bool


_EVERYWHERE: IPv4Address | IPv6Address = IPv4Address(0)


class FlowLogConfig(Struct, frozen=True):
    """Which flows felix logs. `file` None: to its memory only; "-": standard output."""

    logged: Literal["Denied", "All", "Disabled"] = "Denied"
    file: Path | None = None


class MetricsConfig(Struct, frozen=True):
    """Where felix serves its metrics, if it does."""

    enabled: bool = False
    host: IPv4Address | IPv6Address = _EVERYWHERE
    port: int = 9091


class AgentConfig(Struct, frozen=True):
    """Everything the environment says, for every agent of a node."""

    node_name: str
    etcd: EtcdConfig | None
    """None: no endpoints are configured, so weft-node runs a private etcd."""
    ip: AddressSetting
    ip6: AddressSetting
    ip_autodetection_method: str
    ip6_autodetection_method: str
    internal_ips: tuple[IPv4Address | IPv6Address, ...]
    """Kubernetes' InternalIP of the node, where the Node itself does not say (from the downward API)."""
    address_check_interval_s: float
    check_address_conflicts: bool
    as_number: int | None
    ipv4_pool: PoolConfig
    ipv6_pool: PoolConfig
    no_default_pools: bool
    router_id: IPv4Address | Literal["hash"] | None
    run_dir: Path
    state_dir: Path
    namespace: str
    """The namespace of the secrets that resources name without one."""
    bgp_secrets_dir: Path
    """NAMESPACE/NAME/KEY below it are the passwords of BGP sessions."""
    bgp_metrics: tuple[IPv4Address | IPv6Address, int] | None
    """Where the BGP agent serves its metrics; None: nowhere."""
    log_level: str
    flow_log: FlowLogConfig
    metrics: MetricsConfig

    @classmethod
    def from_environ(cls, env: Mapping[str, str], hostname: str = "") -> "AgentConfig":
        """Parse; `hostname` names the node when NODENAME and HOSTNAME are unset. Raises `ConfigError`."""
        read = _Reader(env)
        pools = _pool(read, 4), _pool(read, 6)
        no_default_pools = read.get("NO_DEFAULT_POOLS", False, _boolean, "true or false")
        if no_default_pools and any(pool.cidr for pool in pools):
            raise ConfigError(
                "NO_DEFAULT_POOLS", "true", "false where CALICO_IPV4POOL_CIDR or CALICO_IPV6POOL_CIDR is set"
            )
        return cls(
            node_name=read.text("NODENAME") or read.text("HOSTNAME").lower() or hostname.strip().lower(),
            etcd=_etcd(read),
            ip=read.get("IP", None, _address_setting(4), "an IPv4 address, autodetect or none"),
            ip6=read.get("IP6", None, _address_setting(6), "an IPv6 address, autodetect or none"),
            ip_autodetection_method=read.text("IP_AUTODETECTION_METHOD") or "first-found",
            ip6_autodetection_method=read.text("IP6_AUTODETECTION_METHOD") or "first-found",
            internal_ips=read.get("WEFT_INTERNAL_IP", (), _addresses, "addresses separated by commas"),
            address_check_interval_s=read.get("AUTODETECT_POLL_INTERVAL", 60.0, _interval_s, "a duration such as 60s"),
            check_address_conflicts=not read.get("DISABLE_NODE_IP_CHECK", False, _boolean, "true or false"),
            as_number=read.get("AS", None, parse_as_number, "1 to 4294967295, or high.low"),
            ipv4_pool=pools[0],
            ipv6_pool=pools[1],
            no_default_pools=no_default_pools,
            router_id=read.get("CALICO_ROUTER_ID", None, _router_id, "an IPv4 address or hash"),
            run_dir=Path(read.text("WEFT_RUN_DIR") or "/run/weft"),
            state_dir=Path(read.text("WEFT_STATE_DIR") or "/var/lib/weft"),
            namespace=read.text("NAMESPACE") or "kube-system",
            bgp_secrets_dir=Path(read.text("WEFT_BGP_SECRETS_DIR") or "/etc/weft/secrets"),
            bgp_metrics=read.get("WEFT_BGP_METRICS", None, _listen, "a port, 127.0.0.1:9092 or [::1]:9092"),
            log_level=read.get("WEFT_LOG_LEVEL", "INFO", _log_level, "debug, info, warning, error or critical"),
            flow_log=FlowLogConfig(
                logged=read.get("WEFT_FLOW_LOGS", "Denied", _flow_logs, "Denied, All or Disabled"),
                file=read.get("WEFT_FLOW_LOG_FILE", None, _absolute_or_dash, "an absolute path, or - for stdout"),
            ),
            metrics=MetricsConfig(
                enabled=read.get("FELIX_PROMETHEUSMETRICSENABLED", False, _boolean, "true or false"),
                host=read.get("FELIX_PROMETHEUSMETRICSHOST", _EVERYWHERE, _host, "an address"),
                port=read.get("FELIX_PROMETHEUSMETRICSPORT", 9091, _port, "1 to 65535"),
            ),
        )


class _Reader:
    """Look settings up; an empty one counts as unset, as in Calico's manifests."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def text(self, name: str) -> str:
        return self._env.get(name, "").strip()

    def get(self, name: str, default: T, parse: Callable[[str], T], expected: str) -> T:
        value = self.text(name)
        if not value:
            return default
        try:
            return parse(value)
        except ValueError:
            raise ConfigError(name, value, expected) from None


def parse_as_number(text: str) -> int:
    """An AS number in plain or in high.low notation (RFC 5396). Raises ValueError."""
    high, dot, low = text.partition(".")
    if dot and not (int(high) <= 0xFFFF and 0 <= int(low) <= 0xFFFF):
        raise ValueError(text)
    number = (int(high) << 16) + int(low) if dot else int(text)
    if not 0 < number <= 0xFFFFFFFF:
        raise ValueError(text)
    return number


def _etcd(read: _Reader) -> EtcdConfig | None:
    endpoints = tuple(part.strip() for part in read.text("ETCD_ENDPOINTS").split(",") if part.strip())
    if not endpoints:
        return None

    def path(name: str) -> Path | None:
        return Path(read.text(name)) if read.text(name) else None

    return EtcdConfig(
        endpoints=endpoints,
        ca_cert_file=path("ETCD_CA_CERT_FILE"),
        cert_file=path("ETCD_CERT_FILE"),
        key_file=path("ETCD_KEY_FILE"),
        username=read.text("ETCD_USERNAME") or None,
        password=read.text("ETCD_PASSWORD") or None,
    )


def _pool(read: _Reader, version: Literal[4, 6]) -> PoolConfig:
    prefix = f"CALICO_IPV{version}POOL"
    network, bits, default_size = (IPv4Network, 32, 26) if version == 4 else (IPv6Network, 128, 122)

    def block_size(text: str) -> int:
        size = int(text)
        if not bits - 12 <= size <= bits:
            raise ValueError(text)
        return size

    def cidr(text: str) -> IPv4Network | IPv6Network | None:
        return None if text.lower() == "none" else network(text, strict=False)

    return PoolConfig(
        cidr=read.get(f"{prefix}_CIDR", None, cidr, f"an IPv{version} network or none"),
        block_size=read.get(f"{prefix}_BLOCK_SIZE", default_size, block_size, f"{bits - 12} to {bits}"),
        nat_outgoing=read.get(f"{prefix}_NAT_OUTGOING", version == 4, _boolean, "true or false"),
        ipip_mode=read.get(f"{prefix}_IPIP", "Never", _encapsulation, "Always, CrossSubnet, Never or Off")
        if version == 4
        else "Never",
        vxlan_mode=read.get(f"{prefix}_VXLAN", "Never", _encapsulation, "Always, CrossSubnet or Never"),
        node_selector=read.text(f"{prefix}_NODE_SELECTOR") or "all()",
        disable_bgp_export=read.get(f"{prefix}_DISABLE_BGP_EXPORT", False, _boolean, "true or false"),
    )


def _encapsulation(text: str) -> EncapsulationMode:
    modes: dict[str, EncapsulationMode] = {"always": "Always", "crosssubnet": "CrossSubnet", "never": "Never"}
    modes |= {"cross-subnet": "CrossSubnet", "off": "Never"}
    if text.lower() not in modes:
        raise ValueError(text)
    return modes[text.lower()]


def _address_setting(version: Literal[4, 6]) -> Callable[[str], AddressSetting]:
    def parse(text: str) -> AddressSetting:
        if text.lower() == AUTODETECT:
            return "autodetect"
        if text.lower() == NO_ADDRESS:
            return "none"
        address = ip_interface(text) if "/" in text else ip_address(text)
        if address.version != version:
            raise ValueError(text)
        return address

    return parse


def _addresses(text: str) -> tuple[IPv4Address | IPv6Address, ...]:
    return tuple(ip_address(part.strip()) for part in text.split(",") if part.strip())


def _listen(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    """A port alone is one on the loopback."""
    host, _, port = text.rpartition(":")
    if not 0 < int(port) <= 65535:
        raise ValueError(text)
    return ip_address(host.removeprefix("[").removesuffix("]") or "127.0.0.1"), int(port)


def _interval_s(text: str) -> float:
    """Go's spelling, whole units: 90s, 2m, 1h; never below a second."""
    seconds = float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}.get(text[-1], -1)
    if seconds < 1:
        raise ValueError(text)
    return seconds


def _router_id(text: str) -> IPv4Address | Literal["hash"]:
    return "hash" if text == "hash" else IPv4Address(text)


def _boolean(text: str) -> bool:
    values = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in values:
        raise ValueError(text)
    return values[text.lower()]


def _flow_logs(text: str) -> Literal["Denied", "All", "Disabled"]:
    values: dict[str, Literal["Denied", "All", "Disabled"]] = {"denied": "Denied", "all": "All", "disabled": "Disabled"}
    if text.lower() not in values:
        raise ValueError(text)
    return values[text.lower()]


def _absolute_or_dash(text: str) -> Path:
    if text != "-" and not text.startswith("/"):
        raise ValueError(text)
    return Path(text)


def _host(text: str) -> IPv4Address | IPv6Address:
    return ip_address(text)


def _port(text: str) -> int:
    number = int(text)
    if not 0 < number <= 65535:
        raise ValueError(text)
    return number


def _log_level(text: str) -> str:
    if text.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
        raise ValueError(text)
    return text.upper()
