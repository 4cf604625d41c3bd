"""weftctl bgp against a running agent, and its metrics."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.functional.bgp.fabric import wait_until
from tests.functional.bgp.pair import BLOCK, Pair
from weft.ctl.main import main
from weft.model.bgp import BGPFilterRuleV4
from weft.model.keys import ResourceKey

pytestmark = pytest.mark.root


def test_an_engineer_sees_sessions_paths_and_why_they_are_used_or_not(
    pair: Pair, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEFT_RUN_DIR", str(pair.node.run_dir))

    def ask(*arguments: str) -> Any:
        capsys.readouterr()
        assert main(["bgp", *arguments, "-o", "json"]) == 0
        return json.loads(capsys.readouterr().out)

    def table(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["bgp", *arguments]) == 0
        return capsys.readouterr().out

    (peer,) = ask("peers")
    assert (peer["address"], peer["state"], peer["resource"]) == ("10.1.0.254", "Established", "BGPPeer/tor")
    assert (peer["received"], peer["accepted"], peer["announced"], peer["flaps"]) == (2, 2, 1, 0)
    assert (peer["routerId"], peer["holdTimeS"]) == ("10.1.0.254", 30)
    assert "Not enforced" not in table("peers")
    pair.store.peer("second", peer_ip="10.1.0.99")
    why = "Not enforced: BGPPeer/second: asNumber is needed for 10.1.0.99, which is no node"
    wait_until("it is told", lambda: why in table("peers"))
    pair.store.delete(ResourceKey("BGPPeer", "second"))
    pair.store.filter("f", import_v4=[BGPFilterRuleV4(action="Reject", as_path_prefix=(65001,))])
    pair.store.peer("tor", peer_ip="10.1.0.254", as_number=65001, filters=("f",))
    wait_until("the filter refuses everything", lambda: pair.routes() == set())
    received = ask("received", "10.1.0.254")
    assert {one["standing"] for one in received} == {"refused"}
    assert {one["reason"] for one in received} == {"rejected by BGPFilter/f importV4[0]"}
    assert ask("best") == []
    assert "rejected by BGPFilter/f importV4[0]" in table("routes")
    pair.store.filter("f")
    wait_until("the filter is empty", lambda: len(pair.routes()) == 2)
    trace = ask("trace", "203.0.113.7")
    assert (trace["prefix"], trace["kernel"]) == ("203.0.113.0/24", ["via 10.1.0.254 dev up0"])
    assert trace["paths"][0]["reason"] == "the only path that can be used"
    (told,) = ask("advertised", "10.1.0.254")
    assert (told["prefix"], told["asPath"], told["reason"]) == (BLOCK, "64512", "block")
    assert "10.65.0.0/26" in table("trace", "10.65.0.9")
    assert "neighbor 10.1.0.254 {" in table("config")
    assert main(["bgp", "received", "192.0.2.1"]) == 1
    assert "BGP peer 192.0.2.1" in capsys.readouterr().err
