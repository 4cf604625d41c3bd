"""Requests in, results out, in the version that was asked for."""

import json
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.cni.protocol import (
    CNIError,
    Code,
    Interface,
    asked_version,
    format_error,
    format_result,
    parse_request,
    split_message,
)

ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;IP=10.0.0.1",
}
INTERFACES = [Interface("calic1", "ee:ee:ee:ee:ee:ee", 1400, ""), Interface("eth0", "02:00:00:00:00:01", 1400, "/n")]
ADDRESSES = [ip_address("10.0.0.1"), ip_address("fd00::1")]
GATEWAYS = {4: "169.254.1.1", 6: "fe80::1"}


def configuration(version: str = "1.0.0", **rest: Any) -> bytes:
    return json.dumps({"cniVersion": version, "name": "net", "type": "weft", **rest}).encode()


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_a_result_has_the_form_of_the_asked_version(version: str) -> None:
    request = parse_request(ENVIRONMENT, configuration(version))
    result = json.loads(format_result(request, INTERFACES, ADDRESSES, GATEWAYS))
    assert result["cniVersion"] == version
    assert ["version" in ip for ip in result["ips"]] == [version < "1.0.0"] * 2
    assert ["mtu" in one for one in result["interfaces"]] == [version == "1.1.0"] * 2
    assert [ip["interface"] for ip in result["ips"]] == [1, 1]


def test_a_chained_result_keeps_what_came_before() -> None:
    previous = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "lo"}],
        "ips": [{"address": "192.0.2.1/24", "interface": 0}],
        "routes": [{"dst": "192.0.2.0/24"}],
        "dns": {"nameservers": ["192.0.2.53"]},
    }
    request = parse_request(ENVIRONMENT, configuration(prevResult=previous))
    result = json.loads(format_result(request, INTERFACES, ADDRESSES[:1], GATEWAYS))
    assert [one["name"] for one in result["interfaces"]] == ["lo", "calic1", "eth0"]
    assert result["ips"][0] == previous["ips"][0]  # type: ignore[index]
    assert result["ips"][1] == {"interface": 2, "address": "10.0.0.1/32"}
    assert result["dns"] == previous["dns"]


@pytest.mark.parametrize(
    ("environment", "raw", "code"),
    [
        pytest.param({"CNI_COMMAND": ""}, configuration(), Code.INVALID_ENVIRONMENT, id="no-command"),
        pytest.param({"CNI_COMMAND": "MUL"}, configuration(), Code.INVALID_ENVIRONMENT, id="unknown-command"),
        pytest.param({"CNI_NETNS": ""}, configuration(), Code.INVALID_ENVIRONMENT, id="no-namespace"),
        pytest.param({"CNI_CONTAINERID": "a/b"}, configuration(), Code.INVALID_ENVIRONMENT, id="container-with-slash"),
        pytest.param({"CNI_IFNAME": "x" * 16}, configuration(), Code.INVALID_ENVIRONMENT, id="long-interface"),
        pytest.param({"CNI_IFNAME": ".."}, configuration(), Code.INVALID_ENVIRONMENT, id="interface-of-dots"),
        pytest.param({"CNI_ARGS": "x"}, configuration(), Code.INVALID_ENVIRONMENT, id="argument-without-value"),
        pytest.param({}, b"{", Code.CANNOT_DECODE, id="no-json"),
        pytest.param({}, b"", Code.CANNOT_DECODE, id="nothing"),
        pytest.param({}, b'{"cniVersion":"1.0.0","name":7}', Code.INVALID_CONFIGURATION, id="wrong-type"),
        pytest.param({}, configuration(name="a b"), Code.INVALID_CONFIGURATION, id="network-with-space"),
        pytest.param({}, configuration("0.2.0"), Code.INCOMPATIBLE_VERSION, id="old-version"),
        pytest.param({}, configuration("2.0.0"), Code.INCOMPATIBLE_VERSION, id="new-version"),
        pytest.param({}, b'{"name":"net"}', Code.INCOMPATIBLE_VERSION, id="no-version"),
        pytest.param({"CNI_COMMAND": "CHECK"}, configuration("0.3.1"), Code.INCOMPATIBLE_VERSION, id="early-check"),
        pytest.param({"CNI_COMMAND": "GC"}, configuration("1.0.0"), Code.INCOMPATIBLE_VERSION, id="early-gc"),
        pytest.param({"CNI_COMMAND": "STATUS"}, configuration("1.0.0"), Code.INCOMPATIBLE_VERSION, id="early-status"),
    ],
)
def test_what_is_wrong_has_its_code(environment: dict[str, str], raw: bytes, code: Code) -> None:
    with pytest.raises(CNIError) as error:
        parse_request({**ENVIRONMENT, **environment}, raw)
    assert error.value.code == code


def test_arguments_and_unknown_fields_are_read() -> None:
    request = parse_request(ENVIRONMENT, configuration(someoneElses={"a": 1}, ipam={"type": "weft-ipam", "x": 2}))
    assert request.arguments == {"IgnoreUnknown": "1", "IP": "10.0.0.1"}
    assert request.configuration.ipam.type == "weft-ipam"


def test_del_needs_no_namespace() -> None:
    assert parse_request({**ENVIRONMENT, "CNI_COMMAND": "DEL", "CNI_NETNS": ""}, configuration()).netns == ""


def test_an_error_is_answered_in_the_asked_version() -> None:
    raw = configuration("0.4.0")
    assert json.loads(format_error(asked_version(raw), CNIError(Code.TRY_AGAIN_LATER, "m", "d"))) == {
        "cniVersion": "0.4.0",
        "code": 11,
        "msg": "m",
        "details": "d",
    }
    for nonsense in (b"nonsense", b'{"cni\x80": 1}', b"[" * 100_000):
        assert asked_version(nonsense) == "1.1.0"
        with pytest.raises(CNIError, match=r"configuration|version"):
            parse_request({"CNI_COMMAND": "STATUS"}, nonsense)


def test_a_message_is_split_into_environment_and_input() -> None:
    assert split_message(b"A=1\0B=x=y\nz\0\0{}") == ({"A": "1", "B": "x=y\nz"}, b"{}")
    assert split_message(b"\0{}") == ({"": ""}, b"{}")


@given(st.binary(max_size=200))
def test_no_message_does_more_harm_than_an_error(message: bytes) -> None:
    try:
        parse_request(*split_message(message))
    except CNIError:
        return


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.dictionaries(
                st.sampled_from(
                    ["cniVersion", "name", "ipam", "args", "cni", "labels", "prevResult", "runtimeConfig", "mtu"]
                ),
                inner,
            )
            | st.lists(inner)
        ),
    )
)
def test_no_configuration_does_more_harm_than_an_error(tree: Any) -> None:
    try:
        parse_request(ENVIRONMENT, json.dumps(tree).encode())
    except CNIError:
        return
