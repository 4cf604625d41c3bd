"""Whom weftctl bgp asks, as far as the command line and a machine without agents decide it."""

from __future__ import annotations

from pathlib import Path

import pytest

from weft.ctl.main import main


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("-c", "weft.cfg"), 2, "--config is for asking another node, by --node NAME"),
        (("--node", "a/b"), 2, "'a/b' is not valid: a name without slashes"),
        (("--node", ""), 2, "'' is not valid"),
        (("--node", "n1", "--reflector", "a/b"), 2, "'a/b' is not valid"),
        ((), 1, "the BGP agent does not answer on {run}/bird-agent.sock: No such file or directory (--node NAME asks"),
        (("--reflector", "rr"), 1, "the reflector does not answer on {run}/reflector-rr.sock"),
        (("--node", "n1"), 1, "no agent answers ({run}/felix.sock: No such file or directory; "),
    ],
    ids=["config alone", "a slash", "no name", "a reflector's slash", "no agent", "no reflector", "nobody to ask"],
)
def test_who_cannot_be_asked_is_said_with_what_to_do(
    arguments: tuple[str, ...],
    code: int,
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WEFT_RUN_DIR", str(tmp_path))
    monkeypatch.delenv("ETCD_ENDPOINTS", raising=False)
    monkeypatch.setattr("weft.ctl.config.DEFAULT_FILES", ())
    assert main(("bgp", "peers", *arguments)) == code
    assert complaint.format(run=tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        ("bgp", "peers", "--node", "n\udcff"),
        ("bgp", "trace", "\udcff", "--node", "n1"),
        ("bgp", "peers", "--node", "n1", "--reflector", "\udcff"),
        ("get", "node", "n\udcff"),
    ],
    ids=["node", "destination", "reflector", "any other name"],
)
def test_bytes_that_are_no_text_are_no_name(line: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert ended.value.code == 2
    assert "is no UTF-8" in capsys.readouterr().err
