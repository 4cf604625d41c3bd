"""weftctl as on a machine of its own."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from weft.ctl.main import main


def weftctl(run_dir: Path, endpoint: str | None, *arguments: str) -> tuple[int, str, str]:
    """On a machine with these sockets, and with an etcd if one is named: exit code, output, complaint."""
    out, err = io.StringIO(), io.StringIO()
    environ = {"WEFT_RUN_DIR": str(run_dir)} | ({} if endpoint is None else {"ETCD_ENDPOINTS": endpoint})
    with patch.dict(os.environ, environ), redirect_stdout(out), redirect_stderr(err):
        if endpoint is None:
            os.environ.pop("ETCD_ENDPOINTS", None)
        code = main(["bgp", *arguments])
    return code, out.getvalue(), err.getvalue()
