"""When the kernel's check of IPv4 senders is on and off: never off without rules that check instead."""

import errno
from ipaddress import ip_network

from felix.calc.delta import LocalEndpoint
from felix.dataplane.sender_checks import SenderChecks
from weft.model.address import IPNetwork
from weft.model.keys import ResourceKey
from weft.policy.values import EndpointPolicy

INDEXES = {"cali1": 7, "cali2": 8}
V4, V6 = ip_network("192.0.2.0/24"), ip_network("2001:db8::/64")


def _endpoint(*prefixes: IPNetwork) -> LocalEndpoint:
    return LocalEndpoint(ResourceKey("WorkloadEndpoint", "x", "one"), "cali1", (), "", EndpointPolicy(), prefixes)


class _Kernel:
    """Interface index -> strict, as it was written last."""

    def __init__(self) -> None:
        self.strict: dict[int, bool] = {}
        self.error = 0

    def set_strict(self, index: int, strict: bool) -> None:
        if self.error:
            raise OSError(self.error, "refused")
        self.strict[index] = strict


def _made(kernel: _Kernel) -> SenderChecks:
    return SenderChecks(kernel, INDEXES.get)


def test_it_is_off_only_once_the_rules_are_in_the_kernel() -> None:
    kernel = _Kernel()
    checks = _made(kernel)
    endpoints = {"cali1": _endpoint(V4)}
    checks.before_policy(endpoints, take_over=False)
    assert kernel.strict == {}
    checks.after_policy(endpoints, lambda _: False)
    assert kernel.strict == {}
    checks.after_policy(endpoints, lambda _: True)
    assert kernel.strict == {7: False}


def test_it_is_on_again_before_the_rules_go() -> None:
    kernel = _Kernel()
    checks = _made(kernel)
    for after in ({"cali1": _endpoint()}, {"cali1": None}):
        checks.before_policy({"cali1": _endpoint(V4)}, take_over=False)
        checks.after_policy({"cali1": _endpoint(V4)}, lambda _: True)
        assert kernel.strict == {7: False}
        checks.before_policy(after, take_over=False)
        assert kernel.strict == {7: True}


def test_prefixes_of_ipv6_leave_it_on() -> None:
    kernel = _Kernel()
    checks = _made(kernel)
    checks.before_policy({"cali1": _endpoint(V6)}, take_over=False)
    checks.after_policy({"cali1": _endpoint(V6)}, lambda _: True)
    assert kernel.strict == {}


def test_a_restarted_agent_turns_on_what_an_earlier_one_left_off() -> None:
    kernel = _Kernel()
    endpoints = {"cali1": _endpoint(V4), "cali2": _endpoint()}
    _made(kernel).before_policy(endpoints, take_over=True)
    assert kernel.strict == {8: True}


def test_an_interface_that_comes_later_is_exempt_too() -> None:
    kernel = _Kernel()
    checks = _made(kernel)
    checks.before_policy({"cali9": _endpoint(V4)}, take_over=False)
    checks.after_policy({"cali9": _endpoint(V4)}, lambda _: True)
    checks.on_link("cali9", 9, lambda _: True)
    checks.on_link("eth0", 2, lambda _: True)
    assert kernel.strict == {9: False}


def test_what_the_kernel_refuses_is_said_unless_the_interface_is_gone() -> None:
    kernel = _Kernel()
    checks = _made(kernel)
    for error, failing in ((errno.EPERM, {"cali1"}), (errno.ENODEV, set()), (0, set())):
        kernel.error = error
        checks.before_policy({"cali1": _endpoint()}, take_over=True)
        assert checks.failures.keys() == failing
