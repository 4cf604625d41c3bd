"""bgp reflectors on a real etcd: settings, what they would come to, and how it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import EtcdServer
from tests.functional.ctl.conftest import Weftctl
from weft.admin.client import AdminClient
from weft.admin.server import AdminServer
from weft.admin.services.datastore import datastore_services
from weft.config import EtcdConfig
from weft.datastore.etcd import EtcdDatastore
from weft.model.errors import ValidationError

Put = Callable[[str, str], None]


def nodes(weftctl: Weftctl, count: int) -> None:
    text = "\n---\n".join(
        f"{{apiVersion: projectcalico.org/v3, kind: Node, metadata: {{name: n{number}, labels: "
        f"{{topology.kubernetes.io/zone: {'ab'[number % 2]}, rack: r{number % 3}}}}}, "
        f"spec: {{bgp: {{ipv4Address: 10.0.0.{number}/24}}}}}}"
        for number in range(1, count + 1)
    )
    assert weftctl("apply", "-f", "-", stdin=text).code == 0


def test_a_dry_run_counts_the_sessions_that_would_begin_and_end_and_stores_nothing(
    weftctl: Weftctl, etcd: EtcdServer
) -> None:
    nodes(weftctl, 20)
    shown = weftctl("bgp", "reflectors", "enable", "--above-nodes", "10", "--dry-run")
    assert shown.code == 0
    assert "Automatic reflectors: disabled" in shown.out
    assert "Fabric: 20 nodes, full mesh; 190 sessions, at most 19 on one node" in shown.out
    assert "With these settings: reflectors (20 nodes, more than 10); 46 sessions, at most 15 on one node" in shown.out
    assert "Sessions that would begin: 46, end: 190" in shown.out
    assert "Automatic reflectors: disabled; above 100 nodes" in weftctl("bgp", "reflectors").out


def test_settings_are_stored_and_what_nodes_say_of_themselves_is_shown(weftctl: Weftctl, put: Put) -> None:
    nodes(weftctl, 6)
    assert weftctl("bgp", "reflectors", "enable", "--above-nodes", "4", "--per-domain", "1").code == 0
    replaced = {"node": "n9", "domain": "a", "why": "no sign of life", "by": "n1", "at": "2026-01-31T12:00:00Z"}
    put("/calico/weft/v1/reflectors/state", json.dumps({"mode": "reflectors", "epoch": 1, "replaced": [replaced]}))
    report = json.loads(weftctl("bgp", "reflectors", "-o", "json").out)
    reflectors = {one["domain"]: one["reflectors"] for one in report["now"]["domains"]}
    assert {domain: len(names) for domain, names in reflectors.items()} == {"a": 1, "b": 1}
    put(f"/calico/weft/v1/reflectors/serving/{reflectors['a'][0]}", '{"addresses": ["10.9.0.1"], "up": true}')
    said = {"epoch": 1, "attached": reflectors["a"], "complete": True}
    put("/calico/weft/v1/reflectors/attached/n2", json.dumps(said))
    shown = weftctl("bgp", "reflectors").out
    assert "Automatic reflectors: enabled; above 4 nodes, a mesh again below 3; 1 in each domain" in shown
    assert re.search(rf"^a +3 +{reflectors['a'][0]} +1 of 1 +1 of 3$", shown, re.MULTILINE)
    assert "n9" in shown
    assert "no sign of life" in shown
    moved = weftctl("bgp", "reflectors", "set", "--domain-label", "rack", "--dry-run").out
    assert "With these settings: reflectors" in moved
    assert weftctl("bgp", "reflectors", "disable").code == 0
    assert '"enabled": false' in weftctl("bgp", "reflectors", "-o", "json").out


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("set", "--per-domain", "9"), 1, "perDomain"),
        (("set", "--back-below", "500"), 1, "0 (four fifths of aboveNodes), or 1 to 101"),
        (("enable", "--pools", "nowhere"), 1, "the name of an IPPool"),
        (("enable", "--above-nodes", "many"), 2, "--above-nodes: 'many' is not a number"),
        (("set",), 2, "set needs at least one setting"),
        (("--above-nodes", "3"), 2, "settings are changed by enable or set"),
    ],
)
def test_what_makes_no_sense_is_refused_with_field_value_and_what_is_right(
    weftctl: Weftctl, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    refused = weftctl("bgp", "reflectors", *arguments)
    assert refused.code == code
    assert complaint in refused.err


async def test_an_agents_socket_answers_the_same(etcd: EtcdServer, tmp_path: Path) -> None:
    store = EtcdDatastore(EtcdConfig(endpoints=(f"http://{etcd.endpoint}",)))
    socket = tmp_path / "agent.sock"
    async with AdminServer(socket, datastore_services(store), ready=lambda: True), AdminClient(socket) as client:
        assert (await client.reflectors.configure({"enabled": True, "above_nodes": 7})).above_nodes == 7
        report = await client.reflectors.report({"per_domain": 1})
        assert report.then is not None
        assert report.settings.enabled
        with pytest.raises(ValidationError) as refused:
            await client.reflectors.configure({"colour": "red"})
        assert refused.value.field == "colour"
    await store.close()
