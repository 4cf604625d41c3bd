"""The network configuration, as far as we read it: Calico's field names, and what the CNI conventions add.

Unknown fields are other plugins' and are passed over; a field of ours with a wrong type is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class IPAMSection(msgspec.Struct, frozen=True):
    """`assign_ipv4` and `assign_ipv6` are "true" or "false"; pools are names or prefixes."""

    type: str = ""
    assign_ipv4: str | bool | None = None
    assign_ipv6: str | bool | None = None
    ipv4_pools: tuple[str, ...] = ()
    ipv6_pools: tuple[str, ...] = ()


class PolicySection(msgspec.Struct, frozen=True):
    type: str = ""


class Label(msgspec.Struct, frozen=True):
    key: str
    value: str = ""


class MesosLabels(msgspec.Struct, frozen=True):
    labels: tuple[Label, ...] = ()


class MesosNetwork(msgspec.Struct, frozen=True):
    labels: MesosLabels = MesosLabels()


class Mesos(msgspec.Struct, frozen=True):
    network_info: MesosNetwork = MesosNetwork()


class ConventionArguments(msgspec.Struct, frozen=True):
    """`args.cni` of CONVENTIONS.md."""

    labels: tuple[Label, ...] = ()
    ips: tuple[str, ...] = ()


class Arguments(msgspec.Struct, frozen=True):
    cni: ConventionArguments = ConventionArguments()
    mesos: Mesos = msgspec.field(default=Mesos(), name="org.apache.mesos")


class RuntimeConfiguration(msgspec.Struct, frozen=True):
    """What the runtime fills in for the capabilities a configuration declares."""

    ips: tuple[str, ...] = ()
    mac: str = ""
    pod_annotations: Mapping[str, str] = msgspec.field(default_factory=dict, name="io.kubernetes.cri.pod-annotations")


class Attachment(msgspec.Struct, frozen=True):
    """One of GC's valid attachments."""

    container_id: str = msgspec.field(name="containerID")
    ifname: str


class NetworkConfiguration(msgspec.Struct, frozen=True):
    """What the runtime puts into the plugin's input."""

    cni_version: str = msgspec.field(default="", name="cniVersion")
    name: str = ""
    type: str = ""
    mtu: int = 0
    ipam: IPAMSection = IPAMSection()
    policy: PolicySection = PolicySection()
    args: Arguments = Arguments()
    runtime_config: RuntimeConfiguration = msgspec.field(default=RuntimeConfiguration(), name="runtimeConfig")
    dns: Mapping[str, Any] | None = None
    prev_result: Mapping[str, Any] | None = msgspec.field(default=None, name="prevResult")
    valid_attachments: tuple[Attachment, ...] | None = msgspec.field(default=None, name="cni.dev/valid-attachments")
    attachments: tuple[Attachment, ...] | None = msgspec.field(default=None, name="cni.dev/attachments")
