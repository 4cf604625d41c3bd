"""Where weftctl's answers come from: an etcd it is told of, or the agent on this machine.

Settings are calicoctl's: a CalicoAPIConfig file, or ETCD_* in the environment. A file wins over the environment, and
an explicit --socket over both. Says where, connects nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from weft.ctl.errors import CommandError

if TYPE_CHECKING:
    from weft.config import EtcdConfig

DEFAULT_FILES = (Path("/etc/weft/weftctl.cfg"), Path("/etc/calico/calicoctl.cfg"))
DEFAULT_RUN_DIR = Path("/run/weft")
# Agents that may serve the datastore's services, most likely first.
SOCKETS = ("felix.sock", "node.sock", "bird-agent.sock")
API_VERSION = "projectcalico.org/v3"
FILE_FIELDS = {
    "etcdEndpoints": "ETCD_ENDPOINTS",
    "etcdUsername": "ETCD_USERNAME",
    "etcdPassword": "ETCD_PASSWORD",
    "etcdKeyFile": "ETCD_KEY_FILE",
    "etcdCertFile": "ETCD_CERT_FILE",
    "etcdCACertFile": "ETCD_CA_CERT_FILE",
}
# What a configuration for other datastores may also say; it means nothing here.
IGNORED_FIELDS = {"datastoreType", "kubeconfig", "k8sAPIEndpoint", "k8sKeyFile", "k8sCertFile", "k8sCAFile"}


class Target(Struct, frozen=True):
    """`etcd`: run the services in process; else ask the first of `sockets` that answers."""

    etcd: EtcdConfig | None
    sockets: tuple[Path, ...]


def run_dir(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("WEFT_RUN_DIR") or DEFAULT_RUN_DIR)


def find_target(environ: Mapping[str, str], config_file: Path | None, socket: Path | None) -> Target:
    """Raises CommandError for a file or setting that cannot be used."""
    if socket is not None:
        return Target(None, (socket,))
    settings = _file_settings(config_file)
    etcd = etcd_config(environ if settings is None else settings)
    return Target(etcd, tuple(run_dir(environ) / name for name in SOCKETS))


def etcd_config(settings: Mapping[str, str]) -> EtcdConfig | None:
    """None when no endpoints are configured."""
    endpoints = tuple(part.strip() for part in settings.get("ETCD_ENDPOINTS", "").split(",") if part.strip())
    if not endpoints:
        return None
    from weft.config import ConfigError, EtcdConfig

    def path(name: str) -> Path | None:
        return Path(settings[name]) if settings.get(name) else None

    try:
        return EtcdConfig(
            endpoints=endpoints,
            ca_cert_file=path("ETCD_CA_CERT_FILE"),
            cert_file=path("ETCD_CERT_FILE"),
            key_file=path("ETCD_KEY_FILE"),
            username=settings.get("ETCD_USERNAME") or None,
            password=settings.get("ETCD_PASSWORD") or None,
        )
    except ConfigError as error:
        raise CommandError(str(error)) from error


def _file_settings(config_file: Path | None) -> Mapping[str, str] | None:
    """Settings of the file given, or of the first default file there is; None: no file."""
    if config_file is None:
        config_file = next((path for path in DEFAULT_FILES if path.exists()), None)
        if config_file is None:
            return None
    try:
        text = config_file.read_bytes()
    except OSError as error:
        raise CommandError(f"{config_file}: {error.strerror}") from error
    return parse_file(text, str(config_file))


def parse_file(text: bytes, source: str) -> Mapping[str, str]:
    """A CalicoAPIConfig document as environment settings. Raises CommandError naming the field that is wrong."""
    import yaml

    try:
        document: Any = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except yaml.YAMLError as error:
        raise CommandError(f"{source}: not YAML or JSON: {error}") from error
    if not isinstance(document, dict):
        raise CommandError(f"{source}: expected a CalicoAPIConfig document")
    for field, expected in (("apiVersion", API_VERSION), ("kind", "CalicoAPIConfig")):
        if document.get(field) != expected:
            raise CommandError(f"{source}: {field}: {document.get(field)!r} is not valid: {expected}")
    spec = document.get("spec") or {}
    if not isinstance(spec, dict):
        raise CommandError(f"{source}: spec: {spec!r} is not valid: a mapping")
    if spec.get("datastoreType", "etcdv3") != "etcdv3":
        raise CommandError(f"{source}: spec.datastoreType: {spec['datastoreType']!r} is not valid: etcdv3")
    for field in spec:
        if field not in FILE_FIELDS and field not in IGNORED_FIELDS:
            expected = ", ".join(sorted(FILE_FIELDS))
            raise CommandError(f"{source}: spec.{field}: unknown field, valid ones are: {expected}")
    return {setting: str(spec[field]) for field, setting in FILE_FIELDS.items() if spec.get(field)}
