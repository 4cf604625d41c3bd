"""`weftctl get --watch` as a process of its own: it prints what is there, then changes, until interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.conftest import EtcdServer
from tests.functional.ctl.conftest import Weftctl

SET = "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: %s}, spec: {nets: [10.0.0.0/8]}}"


def test_a_watch_prints_what_is_there_and_then_each_change(weftctl: Weftctl, etcd: EtcdServer) -> None:
    weftctl("apply", "-f", "-", stdin=SET % "a")
    # A shell's background job ignores SIGINT, and so does what it starts: these tests may be one.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "weft.ctl.main", "get", "globalnetworksets", "-w"]
    environ = {**os.environ, "ETCD_ENDPOINTS": etcd.endpoint}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        try:
            lines = [watch.stdout.readline() for _ in range(2)]
            weftctl("apply", "-f", "-", stdin=SET % "b")
            lines.append(watch.stdout.readline())
            weftctl("delete", "globalnetworkset", "a")
            lines.append(watch.stdout.readline())
            watch.send_signal(signal.SIGINT)
            assert watch.wait(10) == 130
            assert watch.stderr.read() == ""
        finally:
            watch.kill()
    assert [line.split() for line in lines] == [["EVENT", "NAME"], ["ADDED", "a"], ["ADDED", "b"], ["DELETED", "a"]]
