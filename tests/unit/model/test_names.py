"""Names made of names: Calico and weft must agree on every character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.model import names
from weft.model.errors import FieldError
from weft.model.names import EndpointName


def test_endpoints_are_named_after_what_started_them() -> None:
    assert names.cni_endpoint_name("node-1", "0a1b", "eth0") == "node--1-cni-0a1b-eth0"
    assert names.k8s_endpoint_name("node", "web-5", "eth0") == "node-k8s-web--5-eth0"
    assert names.libnetwork_endpoint_name("node", "ep") == "node-libnetwork-libnetwork-ep"
    assert names.endpoint_name(node="n", orchestrator="vm", workload="w", endpoint="e") == "n-vm-w-e"
    assert names.endpoint_name(node="n", orchestrator="cni", container_id="c", endpoint="e") == "n-cni-c-e"
    assert names.endpoint_name(node="n", orchestrator="k8s", pod="p", endpoint="e") == "n-k8s-p-e"


part = st.from_regex(r"[a-z0-9.]([a-z0-9.-]{0,6}[a-z0-9.])?", fullmatch=True)


@given(part, part, part, part)
def test_the_parts_can_be_told_from_the_name(node: str, orchestrator: str, workload: str, endpoint: str) -> None:
    name = EndpointName(node, orchestrator, workload, endpoint)
    assert names.parse_endpoint_name(str(name)) == name
    assert str(name).startswith(names.endpoint_prefix(node))


@pytest.mark.parametrize("name", ["", "a", "a-b-c", "a-b-c-d-e", "-a-b-c", "a-b-c-"], ids=repr)
def test_a_name_without_four_parts_is_no_endpoints(name: str) -> None:
    assert names.parse_endpoint_name(name) is None


@pytest.mark.parametrize(("container_id", "field"), [("", "containerID"), ("-a", "containerID"), ("a-", "containerID")])
def test_a_part_that_could_not_be_told_apart_is_refused(container_id: str, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        names.cni_endpoint_name("n", container_id, "eth0")
    assert caught.value.field == field


def test_interfaces_on_the_host_are_named_as_calico_names_them() -> None:
    assert names.cni_interface_name("0123456789abcdef") == "cali0123456789a"
    # The first hex digits of SHA-1 over "default.web-1", as `printf default.web-1 | sha1sum` prints it.
    assert names.k8s_interface_name("default", "web-1") == "cali0761ccbeace"
    assert len(names.k8s_interface_name("default", "web-1")) == 15


def test_handles_and_profiles_are_named_as_calico_names_them() -> None:
    assert names.cni_handle_id("net", "0A1b") == "net.0A1b"
    assert names.namespace_profile("prod") == "kns.prod"
    assert names.service_account_profile("prod", "web") == "ksa.prod.web"
    assert names.legacy_policy_name("", "allow") == "default.allow"
