"""Passwords in files, and the address that the kernel would send from."""

from __future__ import annotations

import logging
from ipaddress import ip_address
from pathlib import Path

import pytest

from bird_agent.exabgp.configuration import render, without_passwords
from bird_agent.session_config import Needs, Password, SecretKey
from bird_agent.surroundings import SecretFiles, look_around
from tests.unit.bird_agent.test_exabgp_text import neighbor

KEY = SecretKey("bgp", "tor")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "kube-system" / "bgp"
    made.mkdir(parents=True)
    return made


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"s3cret\n", "s3cret", id="a line"),
        pytest.param(b" s p ", " s p ", id="spaces belong to it"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b"\xff\xfe", None, id="not text"),
        pytest.param(b"x" * 5000, None, id="too long"),
    ],
)
def test_what_a_file_says(tmp_path: Path, directory: Path, content: bytes, expected: str | None) -> None:
    (directory / "tor").write_bytes(content)
    found = SecretFiles(tmp_path, "kube-system").read(KEY)
    assert found == (None if expected is None else Password(expected))


def test_a_file_that_cannot_be_used_is_complained_of_once_and_without_its_content(
    tmp_path: Path, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = SecretFiles(tmp_path, "kube-system")
    with caplog.at_level(logging.WARNING):
        assert secrets.read(KEY) is None
        assert caplog.messages == []
        (directory / "tor").write_bytes(b"secret" + b"\xff")
        assert [secrets.read(KEY) for _ in range(3)] == [None] * 3
    assert caplog.messages == ["the secret bgp/tor cannot be used: it is not text"]


@pytest.mark.parametrize("key", [SecretKey("..", "x"), SecretKey("bgp", "../../x"), SecretKey("", "x")])
def test_no_name_leads_out_of_the_directory(tmp_path: Path, directory: Path, key: SecretKey) -> None:
    (tmp_path / "x").write_text("other")
    (tmp_path / "kube-system" / "x").write_text("other")
    assert SecretFiles(tmp_path, "kube-system").read(key) is None


def test_looking_around_finds_secrets_and_the_address_the_kernel_would_use(tmp_path: Path, directory: Path) -> None:
    (directory / "tor").write_text("s3cret")
    needs = Needs(frozenset({KEY, SecretKey("bgp", "absent")}), frozenset({ip_address("127.0.0.9")}))
    found = look_around(needs, SecretFiles(tmp_path, "kube-system"))
    assert found.secrets == {KEY: Password("s3cret")}
    assert found.sources == {ip_address("127.0.0.9"): ip_address("127.0.0.1")}
    assert "s3cret" not in f"{found} {found!r}"


def test_what_exabgp_says_of_a_configuration_hides_passwords() -> None:
    text = render([neighbor(password="pa55:word"), neighbor("10.1.0.3", password="x")], ["helper"])
    hidden = without_passwords(f'line 12: {text} md5-password "unfinished')
    assert "pa55" not in hidden
    assert "unfinished" not in hidden
    assert hidden.count("(hidden)") == 3
