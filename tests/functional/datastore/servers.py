"""etcd processes that a test may kill, compact, secure and start again; each in a directory of its own."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import free_port, wait_for_port


@dataclass(slots=True)
class Etcd:
    """One single-member cluster on loopback."""

    directory: Path
    extra: tuple[str, ...] = ()
    scheme: str = "http"
    also_listen: str = ""
    client_port: int = field(default_factory=free_port)
    peer_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.client_port}"

    def start(self) -> "Etcd":
        peer = f"http://127.0.0.1:{self.peer_port}"
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    "etcd",
                    f"--data-dir={self.directory / 'data'}",
                    f"--listen-client-urls={','.join(filter(None, (self.endpoint, self.also_listen)))}",
                    f"--advertise-client-urls={self.endpoint}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster=default={peer}",
                    "--log-level=error",
                    *self.extra,
                ],
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        wait_for_port(self.client_port, self.process)
        return self

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def ctl(self, *arguments: str, flags: Sequence[str] = ()) -> str:
        done = subprocess.run(
            ["etcdctl", "--endpoints", self.endpoint, *flags, *arguments],
            env={**os.environ, "ETCDCTL_API": "3"},
            check=True,
            capture_output=True,
            text=True,
            timeout=20,
        )
        return done.stdout


def make_certificates(directory: Path) -> None:
    """A CA (ca.pem), a server's certificate for 127.0.0.1 (server.pem) and a client's (client.pem), with keys."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=20)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-days", "2", "-subj", "/CN=test CA", "-keyout", "ca.key", "-out", "ca.pem")
    for name, extensions in (
        ("server", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n"),
        ("client", "extendedKeyUsage=clientAuth\n"),
    ):
        (directory / f"{name}.ext").write_text(extensions)
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext")
        openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")
