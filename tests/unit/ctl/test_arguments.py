"""The command line, in every order that calicoctl takes."""

from __future__ import annotations

import pytest

from weft.ctl.arguments import parse


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("get np web db -n prod -o yaml", id="flags last"),
        pytest.param("get -n prod -o yaml np web db", id="flags first"),
        pytest.param("get np -n prod -o yaml web db", id="flags between kind and names"),
        pytest.param("get np -n prod web -o yaml db", id="flags everywhere"),
    ],
)
def test_flags_may_stand_anywhere_among_kind_and_names(line: str) -> None:
    arguments = parse(line.split())
    assert (arguments.kind, arguments.names) == ("np", ["web", "db"])
    assert (arguments.namespace, arguments.output) == ("prod", "yaml")


def test_delete_takes_flags_between_kind_and_names() -> None:
    arguments = parse(["delete", "pool", "-s", "a"])
    assert (arguments.kind, arguments.names, arguments.skip_not_exists) == ("pool", ["a"], True)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        pytest.param("get np --nosuch web", "--nosuch", id="unknown flag"),
        pytest.param("apply -f a.yaml b.yaml", "b.yaml", id="name where none belongs"),
        pytest.param("ipam show extra", "extra", id="name for ipam"),
    ],
)
def test_what_is_no_flag_and_no_name_is_refused(line: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(line.split())
    assert stopped.value.code == 2
    assert f"unrecognized arguments: {named}" in capsys.readouterr().err
