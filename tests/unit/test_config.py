"""What the environment may say, and how a wrong word in it is refused."""

from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_network
from pathlib import Path

import pytest

from weft.config import AgentConfig, ConfigError, EtcdConfig


def test_an_empty_environment_gives_calicos_defaults() -> None:
    config = AgentConfig.from_environ({}, hostname="Host-1\n")
    assert config.node_name == "host-1"
    assert config.etcd is None
    assert (config.ip, config.ip6, config.as_number) == (None, None, None)
    assert config.ip_autodetection_method == "first-found"
    assert (config.ipv4_pool.cidr, config.ipv4_pool.block_size, config.ipv6_pool.block_size) == (None, 26, 122)
    assert (config.run_dir, config.state_dir) == (Path("/run/weft"), Path("/var/lib/weft"))
    assert config.address_check_interval_s == 60


def test_a_daemonsets_environment_is_understood() -> None:
    config = AgentConfig.from_environ(
        {
            "NODENAME": "Node-1",
            "ETCD_ENDPOINTS": "https://10.0.0.1:2379, https://10.0.0.2:2379",
            "ETCD_CA_CERT_FILE": "/ca",
            "ETCD_CERT_FILE": "/cert",
            "ETCD_KEY_FILE": "/key",
            "ETCD_USERNAME": "weft",
            "ETCD_PASSWORD": "hush-hush",
            "WEFT_BGP_SECRETS_DIR": "/etc/bgp",
            "IP": "10.0.0.1/24",
            "IP6": "autodetect",
            "AS": "1.10",
            "CALICO_IPV4POOL_CIDR": "10.65.0.1/16",
            "CALICO_IPV4POOL_NAT_OUTGOING": "false",
            "CALICO_ROUTER_ID": "hash",
            "AUTODETECT_POLL_INTERVAL": "2m",
            "WEFT_LOG_LEVEL": "debug",
        }
    )
    assert config.node_name == "Node-1"
    assert config.etcd is not None
    assert config.etcd.endpoints == ("https://10.0.0.1:2379", "https://10.0.0.2:2379")
    assert "hush-hush" not in repr(config)
    assert (config.namespace, config.bgp_secrets_dir) == ("kube-system", Path("/etc/bgp"))
    assert config.ip == IPv4Interface("10.0.0.1/24")
    assert (config.ip6, config.as_number, config.router_id) == ("autodetect", 65546, "hash")
    assert (config.ipv4_pool.cidr, config.ipv4_pool.nat_outgoing) == (ip_network("10.65.0.0/16"), False)
    assert (config.address_check_interval_s, config.log_level) == (120, "DEBUG")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", IPv4Address("10.0.0.1")),
        ("10.0.0.1/24", IPv4Interface("10.0.0.1/24")),
        ("none", "none"),
        ("AUTODETECT", "autodetect"),
        ("", None),
    ],
)
def test_ip_may_be_an_address_or_a_word(text: str, expected: object) -> None:
    assert AgentConfig.from_environ({"IP": text}).ip == expected


def test_ip6_takes_ipv6() -> None:
    assert AgentConfig.from_environ({"IP6": "fd00::1/64"}).ip6 == IPv6Interface("fd00::1/64")


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"IP": "fd00::1"}, "IP"),
        ({"IP6": "10.0.0.1"}, "IP6"),
        ({"AS": "0"}, "AS"),
        ({"AS": "70000.1"}, "AS"),
        ({"CALICO_IPV4POOL_CIDR": "10.65.0.0/33"}, "CALICO_IPV4POOL_CIDR"),
        ({"CALICO_IPV4POOL_BLOCK_SIZE": "19"}, "CALICO_IPV4POOL_BLOCK_SIZE"),
        ({"CALICO_IPV4POOL_IPIP": "sometimes"}, "CALICO_IPV4POOL_IPIP"),
        ({"NO_DEFAULT_POOLS": "true", "CALICO_IPV4POOL_CIDR": "10.65.0.0/16"}, "NO_DEFAULT_POOLS"),
        ({"ETCD_ENDPOINTS": "a:1", "ETCD_CERT_FILE": "/c"}, "ETCD_CERT_FILE"),
        ({"ETCD_ENDPOINTS": "a:1", "ETCD_USERNAME": "u"}, "ETCD_USERNAME"),
        ({"CALICO_ROUTER_ID": "x"}, "CALICO_ROUTER_ID"),
        ({"AUTODETECT_POLL_INTERVAL": "0s"}, "AUTODETECT_POLL_INTERVAL"),
        ({"WEFT_LOG_LEVEL": "loud"}, "WEFT_LOG_LEVEL"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_setting_is_refused_by_name(env: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        AgentConfig.from_environ(env)
    assert refused.value.name == name
    assert refused.value.expected in str(refused.value)


def test_etcd_needs_an_endpoint() -> None:
    with pytest.raises(ConfigError):
        EtcdConfig(())


def test_flow_logs_and_metrics_have_settings() -> None:
    config = AgentConfig.from_environ({})
    assert (config.flow_log.logged, config.flow_log.file) == ("Denied", None)
    assert (config.metrics.enabled, config.metrics.port) == (False, 9091)
    config = AgentConfig.from_environ(
        {
            "WEFT_FLOW_LOGS": "all",
            "WEFT_FLOW_LOG_FILE": "/var/log/weft/flows.jsonl",
            "FELIX_PROMETHEUSMETRICSENABLED": "true",
            "FELIX_PROMETHEUSMETRICSHOST": "::1",
            "FELIX_PROMETHEUSMETRICSPORT": "9999",
        }
    )
    assert (config.flow_log.logged, config.flow_log.file) == ("All", Path("/var/log/weft/flows.jsonl"))
    assert (config.metrics.enabled, str(config.metrics.host), config.metrics.port) == (True, "::1", 9999)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WEFT_FLOW_LOGS", "some"),
        ("WEFT_FLOW_LOG_FILE", "flows.jsonl"),
        ("FELIX_PROMETHEUSMETRICSPORT", "0"),
        ("FELIX_PROMETHEUSMETRICSHOST", "localhost"),
    ],
)
def test_wrong_settings_of_flow_logs_and_metrics_are_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AgentConfig.from_environ({name: value})
    assert caught.value.name == name
