"""weftctl on a real etcd: documents in the style of Calico's documentation go in unchanged and come out again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.functional.ctl.conftest import MANIFESTS, Weftctl

POOL = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {{name: {name}}}
spec: {{cidr: {cidr}}}
"""
POOLS = "/calico/resources/v3/projectcalico.org/ippools/"
PLAIN = POOL.format(name="plain", cidr="10.65.0.0/16")


@pytest.mark.parametrize("name", ["pools", "bgp", "policies"])
def test_documented_manifests_apply_unchanged_and_what_is_printed_applies_again(weftctl: Weftctl, name: str) -> None:
    path = str(MANIFESTS / f"{name}.yaml")
    applied = weftctl("apply", "-f", path)
    assert applied.code == 0, applied.err
    printed = weftctl("get", "-f", path, "-o", "yaml")
    assert printed.code == 0, printed.err
    again = weftctl("apply", "-f", "-", stdin=printed.out)
    assert (again.code, again.out) == (0, applied.out), again.err
    assert weftctl("get", "-f", path, "-o", "yaml").out == printed.out
    deleted = weftctl("delete", "-f", path)
    # A tier goes only once its policies have gone, so the order of the file is the reader's affair.
    assert deleted.code == (1 if name == "policies" else 0), deleted.err


def test_a_directory_and_several_files_are_applied_together(weftctl: Weftctl, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(PLAIN)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b.json").write_text(
        json.dumps({"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "t"}, "spec": {}})
    )
    (tmp_path / "notes.txt").write_text("not a manifest")
    assert weftctl("apply", "-f", str(tmp_path)).out == "Successfully applied 1 'IPPool' resource(s)\n"
    both = weftctl("apply", "-f", str(tmp_path), "-R", "-f", "-", stdin=POOL.format(name="b", cidr="10.66.0.0/16"))
    assert both.out == "Successfully applied 3 resource(s)\n"


def test_nothing_is_written_when_one_document_is_wrong(weftctl: Weftctl) -> None:
    text = f"{PLAIN}---\n{POOL.format(name='bad', cidr='10.66.0.0/33')}"
    refused = weftctl("apply", "-f", "-", stdin=text)
    assert refused.code == 1
    assert refused.err.startswith(
        "Failed to execute command: <stdin>, document 2: spec.cidr: '10.66.0.0/33' is not valid: "
    )
    assert weftctl("get", "pools", "-o", "name").out == ""


def test_one_refused_resource_does_not_stop_the_others(weftctl: Weftctl) -> None:
    assert weftctl("create", "-f", "-", stdin=PLAIN).code == 0
    second = weftctl("create", "-f", "-", stdin=f"{PLAIN}---\n{POOL.format(name='other', cidr='10.70.0.0/16')}")
    assert second.code == 1
    assert second.err == (
        "Partial success: created 1 out of 2 'IPPool' resources:\n  resource already exists: IPPool(plain)\n"
    )
    assert weftctl("create", "--skip-exists", "-f", "-", stdin=PLAIN).code == 0


@pytest.mark.parametrize(
    ("verb", "text", "words"),
    [
        pytest.param("replace", PLAIN, "resource does not exist: IPPool(plain)", id="replace needs it to exist"),
        pytest.param(
            "create",
            POOL.format(name="inside", cidr="10.80.128.0/20"),
            "'10.80.128.0/20' is not valid: a CIDR that does not overlap with IPPool(there) CIDR 10.80.0.0/16",
            id="pools may not overlap",
        ),
        pytest.param(
            "apply",
            POOL.format(name="there", cidr="10.81.0.0/16"),
            "spec.cidr: '10.81.0.0/16' is not valid: 10.80.0.0/16: the CIDR of a pool cannot be modified",
            id="a pool's CIDR is for ever",
        ),
        pytest.param(
            "apply",
            POOL.format(name="there", cidr="10.80.0.0/16, blockSize: 28"),
            "spec.blockSize: 28 is not valid: 26: the block size of a pool cannot be modified",
            id="a pool's block size is for ever",
        ),
        pytest.param(
            "apply",
            "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: t.p}, spec: {tier: none}}",
            "spec.tier: 'none' is not valid: the name of an existing tier",
            id="a policy needs its tier",
        ),
        pytest.param(
            "apply",
            "{apiVersion: projectcalico.org/v3, kind: Profile, metadata: {name: projectcalico-default-allow}}",
            "metadata.name: 'projectcalico-default-allow' is not valid: another name: this profile is built in",
            id="the built-in profile stays",
        ),
    ],
)
def test_what_calico_refuses_is_refused_with_the_field_and_what_would_be_right(
    weftctl: Weftctl, verb: str, text: str, words: str
) -> None:
    weftctl("create", "-f", "-", stdin=POOL.format(name="there", cidr="10.80.0.0/16"))
    refused = weftctl(verb, "-f", "-", stdin=text)
    assert refused.code == 1
    assert words in refused.err


def test_an_old_resource_version_is_a_conflict_and_none_is_not(weftctl: Weftctl) -> None:
    weftctl("apply", "-f", "-", stdin=PLAIN)
    old = weftctl("get", "pool", "plain", "-o", "yaml").out
    assert weftctl("apply", "-f", "-", stdin=PLAIN.replace("16}", "16, natOutgoing: true}")).code == 0
    stale = weftctl("apply", "-f", "-", stdin=old)
    assert stale.code == 1
    assert "update conflict: IPPool(plain)" in stale.err
    assert weftctl("replace", "-f", "-", stdin=PLAIN).code == 0


def test_identity_is_given_once_and_unknown_stored_fields_survive(
    weftctl: Weftctl, put: Callable[[str, str], None], read: Callable[[str], str]
) -> None:
    weftctl("apply", "-f", "-", stdin=PLAIN)
    before = json.loads(read(f"{POOLS}plain"))
    assert before["metadata"]["uid"]
    assert before["metadata"]["creationTimestamp"]
    assert "resourceVersion" not in before["metadata"]
    assert before["spec"]["blockSize"] == 26
    before["spec"]["fromTheFuture"] = {"kept": True}
    put(f"{POOLS}plain", json.dumps(before))
    changed = PLAIN.replace("name: plain", "name: plain, labels: {rack: a}").replace("16}", "16, disabled: true}")
    assert weftctl("apply", "-f", "-", stdin=changed).code == 0
    after = json.loads(read(f"{POOLS}plain"))
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["labels"] == {"rack": "a"}
    assert after["spec"]["disabled"] is True
    assert after["spec"]["fromTheFuture"] == {"kept": True}


def test_a_policy_stored_under_its_older_name_is_found_updated_and_deleted(
    weftctl: Weftctl, put: Callable[[str, str], None], read: Callable[[str], str]
) -> None:
    key = "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/default.old"
    stored = {
        "kind": "GlobalNetworkPolicy",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "default.old", "uid": "1"},
        "spec": {"tier": "default", "selector": "all()", "types": ["Ingress"]},
    }
    put(key, json.dumps(stored))
    assert weftctl("get", "gnp", "old", "-o", "name").out == "globalnetworkpolicy/old\n"
    printed = weftctl("get", "gnp", "old", "-o", "yaml").out
    assert weftctl("apply", "-f", "-", stdin=printed.replace("all()", "has(x)")).code == 0
    assert "has(x)" in read(key)
    assert weftctl("delete", "gnp", "old").code == 0
    assert read(key) == ""


def test_overlay_modes_are_accepted_with_a_warning(weftctl: Weftctl) -> None:
    applied = weftctl("apply", "-f", "-", stdin=PLAIN.replace("16}", "16, vxlanMode: Always}"))
    assert applied.code == 0
    assert "Warning: IPPool/plain: vxlanMode Always is not enforced until overlays exist" in applied.err


def test_namespaces_are_handled_as_calicoctl_does(weftctl: Weftctl) -> None:
    text = "{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: s%s}, spec: {nets: [10.0.0.0/8]}}"
    assert weftctl("apply", "-f", "-", stdin=text % "").code == 0
    assert weftctl("apply", "-n", "web", "-f", "-", stdin=text % "").code == 0
    mismatch = weftctl("apply", "-n", "web", "-f", "-", stdin=text % ", namespace: db")
    assert "resource namespace does not match client namespace. db != web" in mismatch.err
    assert weftctl("get", "netsets").out == "NAME\ns\n\n"
    assert weftctl("get", "netsets", "-A").out == "NAMESPACE   NAME\ndefault     s\nweb         s\n\n"
    assert weftctl("get", "pools", "-A").code == 2
    assert weftctl("delete", "networkset", "s", "-n", "web").out == "Successfully deleted 1 'NetworkSet' resource(s)\n"
    assert weftctl("get", "networkset", "s", "-n", "web").err == "resource does not exist: NetworkSet(web/s)\n"


def test_deleting_what_is_not_there_fails_unless_it_may_be_missing(weftctl: Weftctl) -> None:
    gone = weftctl("delete", "bgppeer", "x", "y")
    assert gone.code == 1
    assert "resource does not exist: BGPPeer(x)" in gone.err
    assert weftctl("delete", "bgppeer", "x", "-s").code == 0


def test_a_tier_with_policies_and_the_built_in_tiers_stay(weftctl: Weftctl) -> None:
    weftctl("apply", "-f", str(MANIFESTS / "policies.yaml"))
    assert "cannot delete a non-empty tier" in weftctl("delete", "tier", "internal-access").err
    assert "cannot delete default tier" in weftctl("delete", "tier", "default").err


def test_wide_and_custom_columns_show_what_calicoctl_shows(weftctl: Weftctl) -> None:
    weftctl("apply", "-f", str(MANIFESTS / "bgp.yaml"))
    assert weftctl("get", "bgpconfig", "-o", "wide").out == (
        "NAME      LOGSEVERITY   MESHENABLED   ASNUMBER\ndefault   Info          false         63400\n\n"
    )
    columns = weftctl("get", "bgppeers", "-o", "custom-columns=PEERIP,NODE").out
    assert "192.168.1.1    (global)" in columns
    assert weftctl("get", "bgppeers", "-o", "custom-columns=NOPE").code == 2
    node = (
        "{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n1}, spec: {bgp: {ipv4Address: 10.0.0.1/24}}}"
    )
    weftctl("apply", "-f", "-", stdin=node)
    assert "n1     (63400)   10.0.0.1/24" in weftctl("get", "nodes", "-o", "wide").out


def test_a_deleted_node_takes_its_endpoints_and_blocks_with_it(
    weftctl: Weftctl, put: Callable[[str, str], None], read: Callable[[str], str]
) -> None:
    node = (
        "{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n1}, spec: {bgp: {ipv4Address: 10.0.0.1/24}}}"
    )
    weftctl("apply", "-f", "-", stdin=node)
    affinity = "/calico/ipam/v2/host/n1/ipv4/block/10.65.0.0-26"
    put(affinity, '{"state":"confirmed","deleted":false}')
    assert weftctl("delete", "node", "n1").out == "Successfully deleted 1 'Node' resource(s)\n"
    assert read(affinity) == ""
    assert weftctl("get", "nodes", "-o", "name").out == ""


def test_a_deleted_pool_gives_its_blocks_back(
    weftctl: Weftctl, put: Callable[[str, str], None], read: Callable[[str], str]
) -> None:
    weftctl("apply", "-f", "-", stdin=PLAIN)
    affinity = "/calico/ipam/v2/host/n1/ipv4/block/10.65.0.0-26"
    elsewhere = "/calico/ipam/v2/host/n1/ipv4/block/10.99.0.0-26"
    for key in (affinity, elsewhere):
        put(key, '{"state":"confirmed","deleted":false}')
    assert weftctl("delete", "pool", "plain").code == 0
    assert read(affinity) == ""
    assert read(elsewhere) != ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("get",),
        ("get", "nonsense"),
        ("get", "pools", "-o", "go-template=x"),
        ("apply",),
        ("delete", "pools"),
        ("ipam", "configure"),
        ("ipam", "show", "--ip", "nonsense"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_2(weftctl: Weftctl, arguments: tuple[str, ...]) -> None:
    assert weftctl(*arguments).code == 2


def test_without_any_server_the_words_say_what_to_do(
    weftctl: Weftctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ETCD_ENDPOINTS")
    nobody = weftctl("get", "pools")
    assert nobody.code == 1
    assert f"{tmp_path}/node.sock: No such file or directory" in nobody.err
    assert "ETCD_ENDPOINTS" in nobody.err


def test_a_calico_configuration_file_names_the_datastore(
    weftctl: Weftctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import os

    endpoint = os.environ["ETCD_ENDPOINTS"]
    monkeypatch.delenv("ETCD_ENDPOINTS")
    file = tmp_path / "calicoctl.cfg"
    file.write_text(
        "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n"
        f"  datastoreType: etcdv3\n  etcdEndpoints: http://{endpoint}\n"
    )
    assert weftctl("get", "pools", "-c", str(file)).code == 0
    file.write_text("apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nspec: {etcdEndpoint: x}\n")
    assert "spec.etcdEndpoint: unknown field" in weftctl("get", "pools", "-c", str(file)).err


def test_a_datastore_that_does_not_answer_is_asked_once(weftctl: Weftctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCD_ENDPOINTS", "127.0.0.1:1")
    refused = weftctl("apply", "-f", str(MANIFESTS))
    assert refused.code == 1
    assert refused.err.count("datastore unavailable") == 1
    assert refused.err.endswith("  17 more were not tried\n")
