"""weftctl as a long-lived process inside a namespace: one JSON line with arguments and stdin in, one with what came of
it out. It spares a test the start of a new interpreter for each command; what is run is weftctl's own `main`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from lab.netns import NetNs
from weft.ctl.main import main


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


class Weftctl:
    """`run("get", "pools")` in `netns`; `close` ends the process."""

    def __init__(self, netns: NetNs, environ: Mapping[str, str]) -> None:
        self._process = netns.popen(
            [sys.executable, "-m", "tests.functional.truth.commands"],
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def try_(self, *arguments: str, stdin: str = "") -> Result:
        asking, answering = self._process.stdin, self._process.stdout
        assert asking is not None
        assert answering is not None
        asking.write(json.dumps({"arguments": arguments, "stdin": stdin}) + "\n")
        asking.flush()
        return Result(**json.loads(answering.readline()))

    def run(self, *arguments: str, stdin: str = "") -> str:
        result = self.try_(*arguments, stdin=stdin)
        assert result.code == 0, (arguments, result.err, stdin)
        return result.out

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def _once(arguments: list[str], stdin: str) -> Result:
    streams = sys.stdin, sys.stdout, sys.stderr
    out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
    sys.stdin, sys.stdout, sys.stderr = io.TextIOWrapper(io.BytesIO(stdin.encode())), out, err
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
    out.seek(0)
    return Result(code, out.read(), err.getvalue())


def _serve() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        result = _once(asked["arguments"], asked["stdin"])
        print(json.dumps({"code": result.code, "out": result.out, "err": result.err}), flush=True)


if __name__ == "__main__":
    _serve()
