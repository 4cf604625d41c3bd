"""Where weftctl asks: an explicit socket, a file, the environment, in this order."""

from __future__ import annotations

from pathlib import Path

import pytest

from weft.ctl import config
from weft.ctl.errors import CommandError

FILE = """
apiVersion: projectcalico.org/v3
kind: CalicoAPIConfig
metadata:
spec:
  datastoreType: etcdv3
  etcdEndpoints: https://10.0.0.1:2379, https://10.0.0.2:2379
  etcdKeyFile: /etc/key.pem
  etcdCertFile: /etc/cert.pem
  etcdCACertFile: /etc/ca.pem
"""


@pytest.fixture(autouse=True)
def no_default_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILES", ())


def test_the_environment_names_etcd_as_for_calicoctl() -> None:
    environ = {"ETCD_ENDPOINTS": "http://a:2379,http://b:2379", "ETCD_USERNAME": "u", "ETCD_PASSWORD": "p"}
    etcd = config.find_target(environ, None, None).etcd
    assert etcd is not None
    assert (etcd.endpoints, etcd.username, etcd.password) == (("http://a:2379", "http://b:2379"), "u", "p")


def test_a_file_wins_over_the_environment_and_a_socket_over_both(tmp_path: Path) -> None:
    file = tmp_path / "calicoctl.cfg"
    file.write_text(FILE)
    environ = {"ETCD_ENDPOINTS": "http://elsewhere:2379"}
    etcd = config.find_target(environ, file, None).etcd
    assert etcd is not None
    assert etcd.endpoints == ("https://10.0.0.1:2379", "https://10.0.0.2:2379")
    assert etcd.ca_cert_file == Path("/etc/ca.pem")
    assert config.find_target(environ, file, Path("/s")) == config.Target(None, (Path("/s"),))


def test_without_endpoints_the_agents_of_this_machine_are_asked() -> None:
    target = config.find_target({"WEFT_RUN_DIR": "/run/lab"}, None, None)
    assert target.etcd is None
    assert target.sockets[0] == Path("/run/lab/felix.sock")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1", "not YAML or JSON"),
        ("- a", "expected a CalicoAPIConfig document"),
        (FILE.replace("/v3", "/v1"), "apiVersion: 'projectcalico.org/v1' is not valid: projectcalico.org/v3"),
        (FILE.replace("CalicoAPIConfig", "IPPool"), "kind: 'IPPool' is not valid: CalicoAPIConfig"),
        (FILE.replace("etcdv3", "kubernetes"), "spec.datastoreType: 'kubernetes' is not valid: etcdv3"),
        (FILE.replace("etcdKeyFile", "etcdKeyFil"), "spec.etcdKeyFil: unknown field"),
    ],
    ids=["syntax", "shape", "version", "kind", "datastore", "field"],
)
def test_a_file_that_is_wrong_is_refused_with_what_would_be_right(text: str, words: str) -> None:
    with pytest.raises(CommandError) as refused:
        config.parse_file(text.encode(), "calicoctl.cfg")
    assert str(refused.value).startswith("calicoctl.cfg: ")
    assert words in str(refused.value)


def test_half_a_certificate_is_refused_in_the_names_of_the_settings() -> None:
    with pytest.raises(CommandError, match="ETCD_CERT_FILE and ETCD_KEY_FILE together"):
        config.etcd_config({"ETCD_ENDPOINTS": "a:1", "ETCD_CERT_FILE": "/c"})
