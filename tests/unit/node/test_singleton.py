"""A program runs once, and who runs it can be found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from weft import singleton

HOLD = "import sys; from pathlib import Path; from weft.singleton import hold; hold(Path(sys.argv[1])); {}"


def test_nobody_holds_a_lock_that_was_never_taken(tmp_path: Path) -> None:
    assert singleton.holder(tmp_path / "a.lock") is None


def test_a_held_lock_names_its_holder_and_is_free_when_that_is_killed(tmp_path: Path) -> None:
    path = singleton.lock_path(tmp_path, "a")
    waiting = HOLD.format("print('held', flush=True); sys.stdin.read()")
    with subprocess.Popen(
        [sys.executable, "-c", waiting, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert singleton.holder(path) == process.pid
        with pytest.raises(singleton.AlreadyRunningError) as refused:
            singleton.hold(path)
        assert refused.value.pid == process.pid
        process.kill()
    assert singleton.holder(path) is None


def test_a_child_of_the_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    script = HOLD.format("import subprocess; print(subprocess.Popen(['sleep', '30'], stdout=2).pid)")
    child = int(subprocess.check_output([sys.executable, "-c", script, str(path)]))
    try:
        assert singleton.holder(path) is None
    finally:
        os.kill(child, 9)


def test_a_program_that_knows_nothing_of_locks_is_given_one(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    command = [sys.executable, "-I", "-S", singleton.__file__, str(path), "sh", "-c", "echo; read line"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert singleton.holder(path) == process.pid
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert second.returncode == singleton.EXIT_ALREADY_RUNNING
        assert str(process.pid) in second.stderr
        process.communicate(b"\n")
