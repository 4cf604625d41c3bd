"""A container runtime that knows nothing of us: podman, with our plugin in its network configuration."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import ctl
from lab.state import PROGRAMS, Lab
from tests.fv.conftest import answers, eventually

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("flat")]

NODE = "node1"
IMAGE = "localhost/busybox:test"
# What the machine that runs the tests may not raise is asked for at a value that it has.
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]

Podman = Callable[..., str]


@pytest.fixture
def podman(flat: Lab, tmp_path: Path) -> Iterator[Podman]:
    """Runs podman on a node of the lab, with storage and network configuration of its own."""
    networks = tmp_path / "net.d"
    networks.mkdir()
    plugin = {"type": "weft", "ipam": {"type": "weft-ipam", "assign_ipv4": "true", "assign_ipv6": "true"}}
    conflist = {"cniVersion": "0.4.0", "name": "lab", "plugins": [plugin]}
    (networks / "10-lab.conflist").write_text(json.dumps(conflist))
    # Whoever sees the container end first takes its network down: podman, or the process that its monitor starts with
    # an environment of its own. So the plugin is told where the agent is by a script, not by the environment.
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    script = plugins / "weft"
    script.write_text(f"#!/bin/sh\nWEFT_CNI_SOCKET={flat.host_directory(NODE) / 'cni.sock'} exec {PROGRAMS}/weft\n")
    script.chmod(0o755)
    (tmp_path / "containers.conf").write_text(
        f'[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["{plugins}"]\nnetwork_config_dir = "{networks}"\n'
        '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n'
    )
    configuration = f"CONTAINERS_CONF={tmp_path / 'containers.conf'}"

    run_root = flat.host_directory(NODE) / "podman"  # at most 50 characters, podman says

    def run(*arguments: str) -> str:
        storage = ["--root", str(tmp_path / "root"), "--runroot", str(run_root), "--storage-driver", "vfs"]
        command = ["env", configuration, "podman", *storage, *arguments]
        return flat.netns(NODE).run(command, timeout_s=60)

    run("import", str(busybox_image(tmp_path)), IMAGE)
    yield run
    run("rm", "--all", "--force", "--time", "0")


def busybox_image(directory: Path) -> Path:
    """A root file system with busybox and nothing else."""
    path = directory / "image.tar"
    with tarfile.open(path, "w") as image:
        image.add("/bin/busybox", "bin/busybox")
        for name in ("ip", "ping", "sleep", "sh"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            image.addfile(link)
        for name in ("etc", "proc", "sys", "dev", "tmp", "run"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            image.addfile(folder)
    return path


def test_podman_brings_a_container_up_and_takes_it_down_through_our_plugin(flat: Lab, podman: Podman) -> None:
    podman("run", "--detach", "--name", "one", "--network", "lab", *LIMITS, IMAGE, "/bin/sleep", "60")
    seen = json.loads(podman("inspect", "one"))[0]["NetworkSettings"]["Networks"]["lab"]
    assert seen["IPAddress"].startswith("10.65.")
    for address in (seen["IPAddress"], seen["GlobalIPv6Address"]):
        eventually(lambda address=address: answers(flat.netns("client"), address), what=f"the client reaches {address}")
    client = str(flat.topology.host("client").uplink.ipv4.ip)
    assert " 0% packet loss" in podman("exec", "one", "/bin/ping", "-c", "1", "-W", "2", client)
    endpoints = ctl.weftctl(flat, "get", "workloadendpoints", "-A", "-o", "wide")
    assert seen["IPAddress"] in endpoints

    podman("rm", "--force", "--time", "0", "one")
    assert seen["IPAddress"] not in ctl.weftctl(flat, "get", "workloadendpoints", "-A", "-o", "wide")
    assert f"{seen['IPAddress']} dev" not in flat.netns(NODE).ip("route", "show", "proto", "80")
