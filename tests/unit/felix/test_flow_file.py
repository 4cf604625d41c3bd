"""Flow records are lines in order, the file is rotated by size, and a disk that fails holds nobody up."""

from pathlib import Path

import pytest

from felix import flow_file
from felix.flow_file import FlowFile


def test_lines_are_appended_in_the_order_of_calls(tmp_path: Path) -> None:
    file = FlowFile(tmp_path / "made" / "flows.jsonl")
    for number in range(5):
        assert file.write([b"%d" % number, b"x"])
    file.close()
    assert (tmp_path / "made" / "flows.jsonl").read_text() == "".join(f"{number}\nx\n" for number in range(5))


def test_a_full_file_makes_room_and_the_oldest_goes(tmp_path: Path) -> None:
    file = FlowFile(tmp_path / "f", rotate_bytes=10, keep=2)
    for line in (b"aaaaaaa", b"bbbbbbb", b"ccccccc", b"ddddddd"):
        assert file.write([line])
    file.close()
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"f": "ddddddd\n", "f.1": "ccccccc\n", "f.2": "bbbbbbb\n"}


def test_what_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "f").mkdir()
    file = FlowFile(tmp_path / "f")
    for _ in range(3):
        file.write([b"x"])
    file.close()
    assert [record.message.partition(":")[0] for record in caplog.records] == ["the flow log cannot be written"]


def test_standard_output_is_the_other_place(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    file = FlowFile(None)
    file.write([b"{}"])
    file.close()
    assert capfdbinary.readouterr().out == b"{}\n"


def test_more_than_the_disk_can_take_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    gate = threading.Event()
    file = FlowFile(tmp_path / "f")
    monkeypatch.setattr(file, "_append", lambda data: gate.wait(10))
    taken = [file.write([b"x"]) for _ in range(flow_file.MOST_WAITING + 2)]
    gate.set()
    file.close()
    assert taken == [True] * flow_file.MOST_WAITING + [False, False]
