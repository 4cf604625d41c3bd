"""The CNI specification as values: what a runtime asks, what it is answered. Pure: bytes in, values out.

Spec versions 0.3.1 to 1.1.0 (containernetworking/cni, SPEC.md). What an ADD does is not decided here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

import msgspec
from msgspec import Struct

from felix.cni.configuration import NetworkConfiguration
from weft.model.address import IPAddress
from weft.model.errors import WeftError
from weft.model.wire import NO_JSON

SUPPORTED_VERSIONS: Final = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
_SINCE: Final = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
_REQUIRED: Final = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": (),
    "STATUS": (),
    "VERSION": (),
}
_CONTAINER_ID: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*\Z")
_INTERFACE: Final = re.compile(r"[^\s/:]{1,15}\Z")
_NETWORK: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*\Z")


class Code(IntEnum):
    """Error codes of the specification; from 100 on they are the plugin's own."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    CANNOT_DECODE = 6
    INVALID_CONFIGURATION = 7
    TRY_AGAIN_LATER = 11
    NOT_AVAILABLE = 50
    NO_ADDRESS = 100
    INTERFACE_EXISTS = 101
    CHECK_FAILED = 102
    INTERNAL = 999


class CNIError(WeftError):
    """What the runtime is answered instead of a result."""

    def __init__(self, code: Code, message: str, details: str = "") -> None:
        self.code = code
        self.message = message
        self.details = details
        super().__init__(f"{message}: {details}" if details else message)


class Request(Struct, frozen=True):
    """One call of the plugin, checked: what its command needs is there. `netns` is a path, or ""."""

    command: str
    version: str
    container_id: str
    netns: str
    interface: str
    arguments: Mapping[str, str]
    configuration: NetworkConfiguration


class Interface(Struct, frozen=True):
    """An interface of a result; `sandbox` is "" on the host."""

    name: str
    mac: str
    mtu: int
    sandbox: str


def split_message(message: bytes) -> tuple[dict[str, str], bytes]:
    """A message of the plugin program: NAME=VALUE strings ending in NUL, an empty one, the input."""
    head, end, raw = message.partition(b"\0\0") if not message.startswith(b"\0") else (b"", b"\0", message[1:])
    if not end:
        raise CNIError(Code.CANNOT_DECODE, "the plugin program sent no environment")
    environment = {}
    for line in head.decode(errors="surrogateescape").split("\0"):
        name, _, value = line.partition("=")
        environment[name] = value
    return environment, raw


def parse_request(environment: Mapping[str, str], raw: bytes) -> Request:
    """Raises CNIError, which `asked_version` helps to answer."""
    command = environment.get("CNI_COMMAND", "")
    if command not in _REQUIRED:
        raise CNIError(Code.INVALID_ENVIRONMENT, f"unknown CNI_COMMAND {command!r}")
    for name in _REQUIRED[command]:
        if not environment.get(name):
            raise CNIError(Code.INVALID_ENVIRONMENT, f"{command} needs {name}")
    container_id, interface = environment.get("CNI_CONTAINERID", ""), environment.get("CNI_IFNAME", "")
    if container_id and not _CONTAINER_ID.match(container_id):
        raise CNIError(Code.INVALID_ENVIRONMENT, f"CNI_CONTAINERID {container_id!r} is no container id")
    if interface and (not _INTERFACE.match(interface) or interface in (".", "..")):
        raise CNIError(Code.INVALID_ENVIRONMENT, f"CNI_IFNAME {interface!r} is no interface name")
    configuration = _parse_configuration(raw)
    _check_version(command, configuration.cni_version)
    if not _NETWORK.match(configuration.name) and command != "STATUS":
        raise CNIError(Code.INVALID_CONFIGURATION, f"{configuration.name!r} is no network name")
    return Request(
        command=command,
        version=configuration.cni_version,
        container_id=container_id,
        netns=environment.get("CNI_NETNS", ""),
        interface=interface,
        arguments=_parse_arguments(environment.get("CNI_ARGS", "")),
        configuration=configuration,
    )


def asked_version(raw: bytes) -> str:
    """The version to answer a request in that cannot be parsed."""
    try:
        tree = msgspec.json.decode(raw)
    except NO_JSON:
        return SUPPORTED_VERSIONS[-1]
    version = tree.get("cniVersion") if isinstance(tree, dict) else None
    return version if isinstance(version, str) and version else SUPPORTED_VERSIONS[-1]


def format_error(version: str, error: CNIError) -> bytes:
    body = {"cniVersion": version, "code": int(error.code), "msg": error.message}
    return msgspec.json.encode(body | {"details": error.details} if error.details else body)


def format_versions(version: str) -> bytes:
    return msgspec.json.encode({"cniVersion": version, "supportedVersions": SUPPORTED_VERSIONS})


def format_result(
    request: Request, interfaces: Sequence[Interface], addresses: Sequence[IPAddress], gateways: Mapping[int, str]
) -> bytes:
    """The result of an ADD, behind what earlier plugins of the chain made. The addresses are those of the
    last interface; `gateways` are by IP version."""
    previous = request.configuration.prev_result or {}
    version = request.version
    made = [_interface(one, version) for one in interfaces]
    before = list(previous.get("interfaces") or [])
    index = len(before) + len(made) - 1
    versions = list(dict.fromkeys(address.version for address in addresses))
    routes = [{"dst": "0.0.0.0/0" if one == 4 else "::/0", "gw": gateways[one]} for one in versions]
    dns = previous.get("dns") or request.configuration.dns
    result: dict[str, Any] = {
        "cniVersion": version,
        "interfaces": [*before, *made],
        "ips": [*(previous.get("ips") or []), *(_ip(address, index, version) for address in addresses)],
        "routes": [*(previous.get("routes") or []), *routes],
    }
    return msgspec.json.encode(result | {"dns": dns} if dns else result)


def _interface(one: Interface, version: str) -> dict[str, Any]:
    made: dict[str, Any] = {"name": one.name, "mac": one.mac}
    if version >= "1.1.0" and one.mtu:
        made["mtu"] = one.mtu
    return made | {"sandbox": one.sandbox} if one.sandbox else made


def _ip(address: IPAddress, index: int, version: str) -> dict[str, Any]:
    """`version` is required before 1.0.0 and unknown from then on."""
    ip: dict[str, Any] = {"version": str(address.version)} if version < "1.0.0" else {}
    return ip | {"interface": index, "address": f"{address}/{address.max_prefixlen}"}


def _parse_configuration(raw: bytes) -> NetworkConfiguration:
    try:
        return msgspec.json.decode(raw, type=NetworkConfiguration)
    except msgspec.ValidationError as error:
        raise CNIError(Code.INVALID_CONFIGURATION, "the network configuration is not valid", str(error)) from None
    except NO_JSON as error:
        raise CNIError(Code.CANNOT_DECODE, "the network configuration is no JSON", str(error)) from None


def _check_version(command: str, version: str) -> None:
    if version not in SUPPORTED_VERSIONS:
        supported = ", ".join(SUPPORTED_VERSIONS)
        raise CNIError(
            Code.INCOMPATIBLE_VERSION, f"CNI version {version or 'none'} is not supported", f"supported: {supported}"
        )
    if version < _SINCE.get(command, ""):
        raise CNIError(Code.INCOMPATIBLE_VERSION, f"{command} does not exist in CNI version {version}")


def _parse_arguments(text: str) -> dict[str, str]:
    """CNI_ARGS: `K=V;K=V`."""
    arguments = {}
    for pair in filter(None, text.split(";")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise CNIError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS: {pair!r} is no NAME=VALUE")
        arguments[name] = value
    return arguments
