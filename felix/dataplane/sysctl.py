"""The kernel settings that a routing node needs, below /proc/sys/net of the calling thread's network namespace.

Only these are touched, and only when they differ: forwarding of both families, and `accept_ra`, raised from 1 to 2
where turning on IPv6 forwarding would otherwise stop an interface listening to router advertisements (and lose it its
default route). All else is the operator's; what gets in our way is reported as a `SettingProblem`, never changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from msgspec import Struct

ROOT = Path("/proc/sys/net")
FORWARDING_IPV4 = "ipv4/ip_forward"
FORWARDING_IPV6 = "ipv6/conf/all/forwarding"
LOOSE_REVERSE_PATH = "ipv4/conf/all/rp_filter"


class Settings(Protocol):
    """Kernel settings by their path below /proc/sys/net."""

    def read(self, name: str) -> str | None:
        """None if the kernel has no such setting."""

    def write(self, name: str, value: str) -> None:
        """Raises OSError."""

    def interfaces(self, family: str) -> list[str]:
        """Interfaces that have settings in "ipv4" or "ipv6"."""


class SettingChange(Struct, frozen=True):
    name: str
    was: str
    now: str


class SettingProblem(Struct, frozen=True):
    """A setting that weakens or breaks what we promise, for the operator to decide."""

    name: str
    value: str
    consequence: str


class ProcSettings:
    """The real ones."""

    def read(self, name: str) -> str | None:
        try:
            return (ROOT / name).read_text().strip()
        except FileNotFoundError:
            return None

    def write(self, name: str, value: str) -> None:
        (ROOT / name).write_text(value)

    def interfaces(self, family: str) -> list[str]:
        try:
            names = sorted(entry.name for entry in (ROOT / family / "conf").iterdir())
        except FileNotFoundError:
            return []
        return [name for name in names if name not in ("all", "default")]


def plan(settings: Settings) -> dict[str, str]:
    """What must be written, in this order, before the node can route."""
    writes: dict[str, str] = {}
    if settings.read(FORWARDING_IPV4) == "0":
        writes[FORWARDING_IPV4] = "1"
    if settings.read(FORWARDING_IPV6) == "0":
        for interface in settings.interfaces("ipv6"):
            name = f"ipv6/conf/{interface}/accept_ra"
            if settings.read(name) == "1":
                writes[name] = "2"
        writes[FORWARDING_IPV6] = "1"
    return writes


def enable_routing(settings: Settings) -> list[SettingChange]:
    """Make this node a router. Raises OSError if the kernel refuses."""
    changes: list[SettingChange] = []
    for name, value in plan(settings).items():
        was = settings.read(name) or ""
        settings.write(name, value)
        changes.append(SettingChange(name, was, value))
    return changes


_PROBLEMS: Mapping[tuple[str, str], str] = {
    (LOOSE_REVERSE_PATH, "2"): "reverse path filtering is loose on every interface, so a workload can send from"
    " another's IPv4 address; set it to 0 or 1",
    (FORWARDING_IPV4, "0"): "this node forwards no IPv4 packets: workloads reach nothing beyond it; set it to 1",
    (FORWARDING_IPV6, "0"): "this node forwards no IPv6 packets; set it to 1",
    ("ipv6/conf/all/disable_ipv6", "1"): "IPv6 is off: workloads get no working IPv6 address",
}


def problems(settings: Settings) -> list[SettingProblem]:
    """What stands against us. The kernel takes the greater of `all` and the interface's own rp_filter."""
    return [
        SettingProblem(name, value, consequence)
        for (name, value), consequence in _PROBLEMS.items()
        if settings.read(name) == value
    ]


def allow_ipv6(interface: str) -> None:
    """Let one interface of the calling thread's namespace have IPv6 addresses; container runtimes turn them off."""
    switch = ROOT / "ipv6/conf" / interface / "disable_ipv6"
    if switch.read_text().strip() != "0":
        switch.write_text("0")
