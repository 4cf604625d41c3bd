"""scripts/setup where everything has been set up before."""

from __future__ import annotations

import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

SETUP = Path(__file__).parents[2] / "scripts" / "setup"


def test_what_cannot_be_compiled_stops_nothing(tmp_path: Path) -> None:
    for directory in ("scripts", ".venv/bin", "weft"):
        (tmp_path / directory).mkdir(parents=True)
    shutil.copy(SETUP, tmp_path / "scripts")
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    (tmp_path / ".venv/.weft-stamp").write_text(f"{sha256(SETUP.read_bytes()).hexdigest()}  -")
    (tmp_path / "weft/good.py").write_text("GOOD = 1\n")
    (tmp_path / "weft/bad.py").write_text("BAD = \n")
    done = subprocess.run([tmp_path / "scripts/setup"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
    assert "not all of Python's code could be compiled" in done.stderr
    assert list(tmp_path.glob("weft/__pycache__/good.*.pyc"))
