"""BFD authentication beside real BIRD: every type, keys that do not fit, keys that are changed, and who goes on."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lab.netns import NetNs
from tests.functional.bgp.fabric import AgentNode, Bird, Store, bird_configuration, segment, wait_until
from tests.functional.bgp.pair import FIRST
from tests.functional.bgp.test_bfd import Switched, bfd_process, strike, switched, up_since

__all__ = ["switched"]  # a fixture

pytestmark = pytest.mark.root

TYPES = {
    "simple-password": "simple",
    "keyed-md5": "keyed md5",
    "meticulous-keyed-md5": "meticulous keyed md5",
    "keyed-sha1": "keyed sha1",
    "meticulous-keyed-sha1": "meticulous keyed sha1",
}
NEAR, FAR = "192.0.2.1", "192.0.2.9"
RIGHT, OTHER = "sixteen-bytes-ab", "quite-another"
Keys = Sequence[tuple[int, str]]


class Secrets:
    """Keys of BFD, replaced as Kubernetes does it: at once."""

    def __init__(self, node: AgentNode, directory: Path) -> None:
        self._directory = directory / "secrets" / "kube-system" / "bfd"
        self._directory.mkdir(parents=True)
        node.environ = {**node.environ, "WEFT_BGP_SECRETS_DIR": str(directory / "secrets")}

    def write(self, name: str, text: str) -> None:
        new = self._directory / f".{name}"
        new.write_text(text + "\n")
        new.rename(self._directory / name)


def bird_bfd(kind: str, keys: Keys) -> str:
    """What goes into a block of BIRD's; it sends with the first key."""
    base = "interval 100 ms; multiplier 3;"
    passwords = " ".join(f'password "{text}" {{ id {number}; }};' for number, text in keys)
    return f"{base} authentication {kind}; {passwords}" if keys else base


def test_bird_agrees_on_every_type_over_one_hop_and_several(
    node: AgentNode, store: Store, netns: Callable[[str], NetNs], tmp_path: Path
) -> None:
    tor, secrets = netns("tor"), Secrets(node, tmp_path)
    secrets.write("tor", RIGHT)
    store.node("n1", "10.1.0.1/24")
    interfaces, bodies = [], []
    for number, (ours, theirs) in enumerate(TYPES.items()):
        segment(node.netns, tor, f"up{number}", f"10.1.{number}.1/24", f"10.1.{number}.254/24")
        annotations = {"weft/bfd": f"100ms x 3 with {ours} key {number} from bfd/tor"}
        store.peer(f"tor{number}", annotations, peer_ip=f"10.1.{number}.254", as_number=65001, source_address="None")
        interfaces.append(f'interface "up{number}" {{ {bird_bfd(theirs, [(number, RIGHT)])} }};')
        bodies.append(f"local 10.1.{number}.254 as 65001; neighbor 10.1.{number}.1 as 64512; bfd on;")
    tor.ip("address", "add", f"{FAR}/32", "dev", "lo")
    node.netns.ip("address", "add", f"{NEAR}/32", "dev", "lo")
    node.netns.ip("route", "add", FAR, "via", "10.1.0.254", "src", NEAR)
    tor.ip("route", "add", NEAR, "via", "10.1.0.1")
    store.peer(
        "far",
        {"weft/bfd": "100ms x 3 with meticulous-keyed-sha1 key 200 from bfd/tor"},
        peer_ip=FAR,
        as_number=64512,
        source_address="None",
    )
    bodies.append(f"local {FAR} as 64512; neighbor {NEAR} as 64512; multihop; bfd on;")
    several = f"multihop {{ {bird_bfd('meticulous keyed sha1', [(200, RIGHT)])} }};"
    extra = f"protocol bfd {{ {' '.join(interfaces)} {several} }}"
    bird = Bird(tor, tmp_path / "bird", bird_configuration("10.1.0.254", bodies, sorted(FIRST), extra=extra))
    bird.start()
    node.start()
    wait_until("all six are up", lambda: bird.ask("show bfd sessions").count(" Up ") == 6)
    before = up_since(bird)
    for number in (signal.SIGKILL, signal.SIGHUP, signal.SIGKILL):
        strike(node, number)
    assert up_since(bird) == pytest.approx(before, abs=0.01)


class Pair:
    """A node and a BIRD that watch the path between them, with keys that can be changed."""

    def __init__(self, switched: Switched, directory: Path) -> None:
        self.switched, self.node = switched, switched.node
        self.secrets = Secrets(switched.node, directory)
        self.bird = Bird(switched.tor, directory / "bird", "")

    def ours(self, authentication: str) -> None:
        self.switched.watch({"weft/bfd": f"100ms x 3{authentication}"})

    def theirs(self, *keys: tuple[int, str]) -> None:
        body = "local 10.1.0.254 as 65001; neighbor 10.1.0.1 as 64512; hold time 240; bfd on;"
        extra = f'protocol bfd {{ interface "*" {{ {bird_bfd("meticulous keyed sha1", keys)} }}; }}'
        self.bird.configuration = bird_configuration("10.1.0.254", [body], sorted(FIRST), extra=extra)
        if self.bird.process is not None:
            self.bird.reconfigure(self.bird.configuration)

    def up(self) -> bool:
        return " Up " in self.bird.ask("show bfd sessions")

    def datagrams(self) -> int:
        """UDP that the node has received in its life: BFD's and nobody else's."""
        rows = self.node.netns.run(["cat", "/proc/net/snmp"]).splitlines()
        names, values = (row.split() for row in rows if row.startswith("Udp:"))
        return int(values[names.index("InDatagrams")])

    def refuses(self, why: str) -> None:
        wait_until(why, lambda: f"is not watched: BFD refuses what comes from there: {why}" in self.node.log())


def test_a_key_that_does_not_fit_leaves_bfd_down_and_says_why_and_keys_are_changed_without_a_loss(
    switched: Switched, tmp_path: Path
) -> None:
    pair = Pair(switched, tmp_path)
    new, old = "key 2 from bfd/new", "key 1 from bfd/tor"
    pair.ours(f" with meticulous-keyed-sha1 {old}")
    pair.theirs((1, OTHER))
    pair.bird.start()
    pair.node.start()
    wait_until("BGP does without", lambda: set(pair.node.routes()) == FIRST)
    assert bfd_process(pair.node) is None  # no secret, no BFD without it
    pair.secrets.write("tor", RIGHT)
    pair.refuses("it does not match key 1: the secrets of the two ends differ")
    assert not pair.up()
    pair.theirs((1, RIGHT))
    wait_until("BFD is up", pair.up)
    wait_until("we have its routes", lambda: set(pair.node.routes()) == FIRST)
    before, connection = up_since(pair.bird), pair.bird.connection()
    pair.secrets.write("new", OTHER)
    pair.ours(f" with meticulous-keyed-sha1 {old}, {new}")
    pair.theirs((1, RIGHT), (2, OTHER))
    settle(pair)
    pair.ours(f" with meticulous-keyed-sha1 {new}, {old}")
    pair.theirs((2, OTHER), (1, RIGHT))
    settle(pair)
    strike(pair.node, signal.SIGKILL)
    pair.ours(f" with meticulous-keyed-sha1 {new}")
    pair.theirs((2, OTHER))
    settle(pair)
    assert up_since(pair.bird) == pytest.approx(before, abs=0.01)
    assert pair.bird.connection() == connection
    pair.ours("")
    pair.refuses("it is authenticated (meticulous-keyed-sha1), and no key is configured")
    pair.theirs()
    wait_until("BFD is up without", pair.up)
    told = "".join(file.read_text() for file in pair.node.run_dir.glob("*.log"))
    running = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert [text for text in (RIGHT, OTHER) if text in told + running] == []


def settle(pair: Pair) -> None:
    """Until packets with what was changed last have come and gone."""
    heard = pair.datagrams()
    wait_until("some more packets", lambda: pair.datagrams() >= heard + 30)
