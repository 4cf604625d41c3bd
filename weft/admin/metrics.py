"""An agent's metrics over HTTP, for Prometheus.

Nothing is registered at import: an agent makes its registry and passes it in."""

from __future__ import annotations

import ipaddress
from typing import Self

from prometheus_client import CollectorRegistry, start_http_server


class MetricsServer:
    """Serves `registry` at http://address:port/metrics from a thread of its own until `close`."""

    def __init__(
        self, registry: CollectorRegistry, port: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address
    ) -> None:
        self._server, self._thread = start_http_server(port, addr=str(address), registry=registry)
        self.port: int = self._server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
