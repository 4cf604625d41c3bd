"""What weft-node refuses to start with."""

import pytest

from weft.config import AgentConfig, ConfigError
from weft.node.settings import check_settings


def config(**env: str) -> AgentConfig:
    return AgentConfig.from_environ({"NODENAME": "node1", **env})


@pytest.mark.parametrize(
    "method",
    [
        "",
        "first-found",
        "interface=eth.*,^ens1$",
        "skip-interface=docker.*",
        "cidr=10.0.0.0/8,fd00::/8",
        "can-reach=tor",
        "kubernetes-internal-ip",
    ],
)
def test_every_method_of_calico_is_taken(method: str) -> None:
    check_settings(config(IP_AUTODETECTION_METHOD=method, IP6_AUTODETECTION_METHOD=method))


@pytest.mark.parametrize(
    ("env", "said"),
    [
        pytest.param({"NODENAME": "Bad_Name"}, "NODENAME='Bad_Name': expected at most 253 lower case", id="upper case"),
        pytest.param({"NODENAME": "a/b"}, "NODENAME='a/b'", id="slash in the name"),
        pytest.param({"NODENAME": " "}, "NODENAME=''", id="no name"),
        pytest.param({"IP_AUTODETECTION_METHOD": "bogus=1"}, "IP_AUTODETECTION_METHOD='bogus=1'", id="no such method"),
        pytest.param({"IP_AUTODETECTION_METHOD": "interface="}, "interface=REGEX", id="argument missing"),
        pytest.param({"IP_AUTODETECTION_METHOD": "interface=["}, "not a regular expression", id="regular expression"),
        pytest.param({"IP6_AUTODETECTION_METHOD": "cidr=x"}, "IP6_AUTODETECTION_METHOD='cidr=x'", id="prefix"),
    ],
)
def test_a_setting_that_can_never_work_is_refused_by_name(env: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_settings(config(**env))
    assert said in str(refused.value)
