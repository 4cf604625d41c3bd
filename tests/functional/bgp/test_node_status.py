"""CalicoNodeStatus resources, filled in by a running agent."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import EtcdServer
from tests.functional.bgp.fabric import wait_until
from tests.functional.bgp.pair import BLOCK, Pair
from weft.ctl.main import main

pytestmark = pytest.mark.root

WISH = """apiVersion: projectcalico.org/v3
kind: CalicoNodeStatus
metadata: {name: s}
spec: {node: n1, classes: [%s], updatePeriodSeconds: 1}
"""


def test_a_node_tells_its_status_while_it_changes_and_is_silent_otherwise(
    pair: Pair,
    etcd: EtcdServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ETCD_ENDPOINTS", etcd.endpoint)

    def apply(classes: str) -> None:
        (tmp_path / "s.yaml").write_text(WISH % classes)
        assert main(["apply", "-f", str(tmp_path / "s.yaml")]) == 0

    def status() -> Any:
        capsys.readouterr()
        assert main(["get", "caliconodestatus", "s", "-o", "json"]) == 0
        return json.loads(capsys.readouterr().out)["status"]

    apply("Agent, BGP, Routes")
    told = wait_until("the first report", lambda: status() if status().get("lastUpdated") else None)
    assert told["agent"]["birdV4"]["state"] == "Ready"
    assert told["agent"]["birdV6"] == {"state": "NotReady"}
    (peer,) = told["bgp"]["peersV4"]
    assert (peer["peerIP"], peer["type"], peer["state"]) == ("10.1.0.254", "GlobalPeer", "Established")
    assert told["bgp"]["numberEstablishedV4"] == 1
    routes = {one["destination"]: one for one in told["routes"]["routesV4"]}
    assert routes[BLOCK]["learnedFrom"] == {"sourceType": "Static"}
    assert routes["203.0.113.0/24"] == {
        "type": "FIB",
        "destination": "203.0.113.0/24",
        "gateway": "10.1.0.254",
        "interface": "up0",
        "learnedFrom": {"sourceType": "BGPPeer", "peerIP": "10.1.0.254"},
    }
    time.sleep(2.5)
    assert status()["lastUpdated"] == told["lastUpdated"]  # nothing has changed
    pair.bird.ask("disable p0")
    wait_until("the session's end is told", lambda: status()["bgp"]["numberEstablishedV4"] == 0)
    assert status()["bgp"]["peersV4"][0]["state"] in ("Active", "Idle", "Connect")
    apply("Agent")
    assert status()["bgp"]["numberNotEstablishedV4"] == 1  # a document says nothing about a status
    wait_until("what is not asked for any more is gone", lambda: "peersV4" not in status()["bgp"])
    capsys.readouterr()
    assert main(["get", "nodestatus", "-o", "wide"]) == 0
    assert capsys.readouterr().out.split() == ["NAME", "NODE", "CLASSES", "s", "n1", "Agent"]
