"""What is kept of the datastore: told again as it was said, replaced without a state in between, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bird_agent.datastore_view import DatastoreView
from bird_agent.policy import Policies
from bird_agent.reflector import keeping
from bird_agent.reflector.process import OwnNode, Wanted
from bird_agent.reflector.recall import Recall, UnusableError, Whose, decode, encode
from bird_agent.session_config import Surroundings
from weft.config import AgentConfig
from weft.datastore.syncer import Deleted, InSync, SyncEvent, Unreadable, Upserted
from weft.model import keys
from weft.model.base import Metadata, Resource
from weft.model.bgp import BGPPassword, BGPPeer, BGPPeerSpec, SecretKeySelector
from weft.model.codec import StoredValue
from weft.model.keys import Key, ReflectorKey, ResourceKey
from weft.model.node import Node, NodeBGPSpec, NodeSpec
from weft.model.reflectors import ReflectorRecord, ReflectorSettings

BROKEN = ResourceKey("BGPPeer", "broken")


def node(name: str, last: int) -> Node:
    bgp = NodeBGPSpec(
        ipv4_address=IPv4Interface(f"10.0.0.{last}/24"), route_reflector_cluster_id=IPv4Address("1.1.1.1")
    )
    return Node(metadata=Metadata(name=name, labels={"rack": f"r{last}"}), spec=NodeSpec(bgp=bgp))


def peer(name: str, last: int) -> BGPPeer:
    password = BGPPassword(secret_key_ref=SecretKeySelector(name="bgp", key="key"))
    return BGPPeer(metadata=Metadata(name=name), spec=BGPPeerSpec(peer_ip=f"10.0.0.{last}", password=password))


resources = st.one_of(
    st.builds(node, st.sampled_from(["rr", "n1", "n2"]), st.integers(1, 3)),
    st.builds(peer, st.sampled_from(["p1", "p2"]), st.integers(1, 3)),
)
states = st.lists(resources, max_size=5)


def stored(resources: Sequence[Resource], unreadable: bool = False) -> dict[Key, StoredValue | bytes]:
    known: dict[Key, StoredValue | bytes] = {keys.of(one): one for one in resources}
    return {**known, BROKEN: b'{"spec": 7'} if unreadable else known


def events(known: dict[Key, StoredValue | bytes]) -> list[SyncEvent]:
    return [
        Unreadable(key, value, "broken") if isinstance(value, bytes) else Upserted(key, value, 5)
        for key, value in known.items()
    ]


class Consumer:
    """The view that a plan is made from, and how often it has looked different while it was whole."""

    def __init__(self) -> None:
        self.view = DatastoreView("rr", None)
        self.seen: list[object] = []

    def tell(self, batch: Sequence[SyncEvent]) -> None:
        if batch:
            self.view.on_events(batch)
            if self.view.in_sync and (not self.seen or self.seen[-1] != self.state()):
                self.seen.append(self.state())

    def state(self) -> object:
        return dict(self.view.nodes), dict(self.view._peers)


def state_of(resources: Sequence[Resource]) -> object:
    found = {one.metadata.name: one for one in resources}
    return tuple({name: one for name, one in found.items() if isinstance(one, cls)} for cls in (Node, BGPPeer))


@given(before=states, now=states, unreadable=st.booleans(), cut=st.integers(0, 5))
def test_what_is_recalled_is_replaced_at_once(
    before: list[Resource], now: list[Resource], unreadable: bool, cut: int
) -> None:
    consumer, between = Consumer(), Recall()
    kept = decode(RR, encode(RR, 77, stored(before, unreadable)))
    assert kept.at_s == 77
    consumer.tell(between.on_recalled(kept.events))
    assert between.recalling
    first = events(stored(now))
    for batch in (first[:cut], first[cut:]):
        consumer.tell(between.on_datastore(batch))
    assert consumer.seen == [state_of(before)]
    consumer.tell(between.on_datastore([InSync()]))
    assert not between.recalling
    assert consumer.seen[1:] == ([] if state_of(before) == state_of(now) else [state_of(now)])
    assert between.known == stored(now)
    for key in list(stored(now)):
        consumer.tell(between.on_datastore([Deleted(key)]))
    assert consumer.state() == state_of([])


def test_what_comes_after_the_datastore_has_answered_is_not_told() -> None:
    between = Recall()
    between.on_datastore([InSync()])
    assert between.on_recalled(events(stored([node("rr", 1)]))) == []
    assert not between.recalling


def test_a_reflector_whose_node_went_while_it_was_away_has_no_sessions() -> None:
    source, between = OwnNode(AgentConfig.from_environ({"NODENAME": "rr"})), Recall()
    before = stored([node("rr", 1), peer("p1", 2)])
    source.on_datastore(between.on_recalled(events(before)))
    wanted = source.wanted(Surroundings())
    assert wanted is not None
    assert source.on_datastore(between.on_datastore([InSync()]))
    gone = source.wanted(Surroundings())
    assert gone == Wanted(replace(wanted.plan, sessions={}), Policies())


def test_records_and_what_cannot_be_read_are_kept_as_they_are() -> None:
    values: dict[Key, StoredValue | bytes] = {
        ReflectorKey("settings"): ReflectorSettings(enabled=True, above_nodes=7),
        ReflectorKey("serving", "n1"): ReflectorRecord(addresses=(IPv4Address("10.9.0.1"),), up=True),
        BROKEN: b"\xff\x00",
    }
    told = decode(RR, encode(RR, 0, values)).events
    assert {event.key: event.value for event in told if isinstance(event, Upserted)} == {
        key: value for key, value in values.items() if key != BROKEN
    }
    assert [(event.key, event.raw) for event in told if isinstance(event, Unreadable)] == [(BROKEN, b"\xff\x00")]


def test_a_password_is_kept_as_the_name_of_its_secret() -> None:
    """Whoever puts text of secrets into resources' classes has to change what is kept."""
    assert b'"password":{"secretKeyRef":{"key":"key","name":"bgp"}}' in encode(RR, 0, stored([peer("p1", 1)]))


RR = Whose("rr", ("etcd1:2379", "etcd2:2379"))
GOOD = encode(RR, 0, stored([node("rr", 1), peer("p1", 2)]))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "begin as it should"),
        (b"\xff\xfe", "begin as it should"),
        (b"[]\n", "begin as it should"),
        (GOOD.replace(b'"version":1', b'"version":2'), "of version 2"),
        (encode(Whose("other", ()), 0, {}), "of the reflector other"),
        (
            encode(Whose("rr", ("etcd9:2379",)), 0, {}),
            "at etcd9:2379, and ours is at etcd1:2379, etcd2:2379",
        ),
        (GOOD[:-1], "checksum"),
        (GOOD.replace(b"10.0.0.2", b"10.0.0.3"), "checksum"),
    ],
    ids=[
        "nothing",
        "no text",
        "no header",
        "another version",
        "another reflector's",
        "another cluster's",
        "cut short",
        "changed",
    ],
)
def test_what_is_not_ours_or_damaged_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(UnusableError, match=why):
        decode(RR, data)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_one_wrong_byte_is_noticed(at: int, change: int) -> None:
    damaged = bytearray(GOOD)
    damaged[at] ^= change
    try:
        told = decode(RR, bytes(damaged)).events
    except UnusableError:
        return
    assert told == decode(RR, GOOD).events  # the time, which decides nothing


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(UnusableError):
        decode(RR, data)


def test_the_file_is_ours_alone_and_replaced_in_one_step(tmp_path: Path) -> None:
    path = keeping.path_of(tmp_path / "state", "rr")
    assert keeping.read(path) is None
    keeping.write(path, b"one")
    before = path.stat()
    with path.open("rb") as reader:
        keeping.write(path, b"two")
        assert reader.read() == b"one"
    assert keeping.read(path) == b"two"
    assert path.stat().st_ino != before.st_ino
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = keeping.path_of(tmp_path, "rr")
    keeping.write(path, b"one")
    path.chmod(0o620)
    with pytest.raises(UnusableError, match="others"):
        keeping.read(path)


def test_a_datastore_with_another_member_is_the_same() -> None:
    more = RR._replace(endpoints=("etcd2:2379", "etcd3:2379"))
    assert decode(more, GOOD) == decode(RR, GOOD)
