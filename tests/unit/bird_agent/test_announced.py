"""What the agent says of routes reaches ExaBGP's RIB, and from there the wire, as it was said."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from exabgp.bgp.message import Action
from exabgp.bgp.message.direction import Direction
from exabgp.bgp.message.open.asn import ASN
from exabgp.bgp.message.refresh import RouteRefresh
from exabgp.bgp.message.update import Update
from exabgp.bgp.message.update.nlri.inet import INET
from exabgp.configuration.configuration import Configuration, _Configuration
from exabgp.environment import getenv
from exabgp.logger import log
from exabgp.protocol.family import AFI, SAFI
from exabgp.reactor.api import API
from exabgp.reactor.api.command.command import Command
from exabgp.rib.change import Change
from exabgp.rib.outgoing import OutgoingRIB
from hypothesis import given
from hypothesis import strategies as st

from bird_agent.exabgp import announced, commands, grouping, oversized, prefixes
from bird_agent.exabgp.commands import Announcement
from bird_agent.exabgp.decoder import Decoder
from bird_agent.exabgp.events import CommandRefused
from tests.fakes.speaker import unpacked
from weft.model.address import IPNetwork

IPV4, IPV6 = (AFI.ipv4, SAFI.unicast), (AFI.ipv6, SAFI.unicast)
PEER = ip_address("10.1.0.2")
HOPS = {4: [ip_address("10.1.0.1"), ip_address("fd00::1")], 6: [ip_address("fd00::1")]}  # RFC 8950
UNCORRECTED = pytest.mark.xfail(raises=AssertionError, strict=True, reason="the defect that is avoided")


@pytest.fixture(scope="module", autouse=True)
def silent_exabgp() -> None:
    getenv().log.enable = False
    log.init(getenv())


class Neighbor(dict[str, Any]):
    """As much of ExaBGP's as a command asks for, with its own RIB."""

    def __init__(self, peer: str, families: list[Any]) -> None:
        super().__init__({"peer-address": SimpleNamespace(top=lambda: peer)})
        self._families = families
        self.rib = SimpleNamespace(outgoing=OutgoingRIB(True, families))

    def families(self) -> list[Any]:
        return self._families


class Speaker:
    """ExaBGP's parser and RIBs without its sessions. What it was told and refused, it says as the real one does."""

    def __init__(self, *peers: str, families: list[Any] | None = None) -> None:
        self.neighbors = {peer: Neighbor(peer, families or [IPV4, IPV6]) for peer in peers or ("10.1.0.2",)}
        self.configuration = Configuration([])
        self.configuration.neighbors = self.neighbors
        self.asynchronous = SimpleNamespace(schedule=lambda service, line, steps: list(steps))
        self.processes = SimpleNamespace(
            write=lambda service, line: self.said.append(line), answer_error=lambda _: None
        )
        self.said: list[str] = []
        self.api = API(self)
        announced.install()

    def take(self, *lines: bytes) -> None:
        for line in lines:
            self.api.process(self, "speaker", line.decode().strip())

    def rib(self, peer: str = "10.1.0.2") -> Any:
        return self.neighbors[peer].rib.outgoing

    def refused(self) -> list[CommandRefused]:
        found = [event for line in self.said for event in Decoder().decode(line.encode())]
        assert all(isinstance(event, CommandRefused) for event in found)
        return found  # type: ignore[return-value]


def negotiated(addpath: bool = False) -> Any:
    return SimpleNamespace(
        asn4=True, aigp=False, local_as=ASN(64512), peer_as=ASN(64512), msg_size=4096, neighbor=None, nexthop=True,
        families=[IPV4, IPV6], cached_attributes=None, cached_wire=b"",
        addpath=SimpleNamespace(receive=lambda afi, safi: addpath, send=lambda afi, safi: addpath),
    )  # fmt: skip


class Peer:
    """Reads UPDATEs with ExaBGP's own decoder, and has the table that they leave."""

    def __init__(self, updates: Callable[..., Any] = grouping.updates) -> None:
        self.table: dict[IPNetwork, tuple[str, str]] = {}
        self.take = updates
        self.updates = self.marks = 0

    def hear(self, rib: Any) -> None:
        """Everything that waits to be sent."""
        session = negotiated()
        for update in self.take(rib, True):
            if isinstance(update, RouteRefresh):
                self.marks += 1
                continue
            for message in update.messages(session, True):
                self.updates += 1
                heard = Update.unpack_message(message[19:], Direction.IN, session)
                for nlri in heard.nlris:
                    prefix = ip_network(nlri.cidr.prefix())
                    if nlri.action == Action.ANNOUNCE:
                        self.table[prefix] = (str(nlri.nexthop), str(heard.attributes.get(5, "")))
                    else:
                        self.table.pop(prefix, None)


NETWORKS = [ip_network("0.0.0.0/0"), ip_network("10.65.0.0/26"), ip_network("10.65.0.1/32"), ip_network("10.65.0.0/31"),
            ip_network("fd00::/64"), ip_network("fd00::1/128"), ip_network("fd00:0:0:1::/65")]  # fmt: skip
changes = st.lists(
    st.tuples(st.sampled_from(NETWORKS), st.none() | st.integers(0, 2), st.integers(0, 1), st.integers(0, 4)),
    max_size=12,
)


@given(changes)
def test_the_peer_ends_with_what_was_said_last_of_each_prefix(
    said: list[tuple[IPNetwork, int | None, int, int]],
) -> None:
    speaker, peer = Speaker(), Peer()
    expected: dict[IPNetwork, tuple[str, str]] = {}
    for prefix, preference, hop, flush in said:
        next_hop = HOPS[prefix.version][hop % len(HOPS[prefix.version])]
        if preference is None:
            speaker.take(*commands.withdraw(PEER, [prefix]))
            expected.pop(prefix, None)
        else:
            told = Announcement(next_hop, local_preference=preference)
            speaker.take(*commands.announce(PEER, {prefix: told}))
            expected[prefix] = (str(next_hop), str(preference))
        if not flush:
            peer.hear(speaker.rib())
    peer.hear(speaker.rib())
    assert (peer.table, speaker.said) == (expected, [])
    remembered = {ip_network(change.nlri.cidr.prefix()) for change in speaker.rib().cached_changes()}
    assert remembered == expected.keys()


@pytest.mark.parametrize(("prefix", "hop"), [(NETWORKS[1], 0), (NETWORKS[1], 1), (NETWORKS[5], 0)])
@pytest.mark.parametrize(
    ("room", "corrected"),
    [*((room, True) for room in range(-30, 80, 10)), pytest.param(-10, False, marks=UNCORRECTED)],
)
def test_a_prefix_whose_new_attributes_leave_it_no_room_is_withdrawn_or_said(
    prefix: IPNetwork, hop: int, room: int, corrected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if corrected:
        monkeypatch.setattr(Update, "_native_messages", oversized.native_messages)
        monkeypatch.setattr(Update, "_mp_messages", oversized.mp_messages)
    speaker, peer = Speaker(), Peer()
    next_hop = HOPS[prefix.version][hop]
    speaker.take(*commands.announce(PEER, {prefix: Announcement(next_hop, local_preference=1)}))
    peer.hear(speaker.rib())
    assert peer.table.keys() == {prefix}
    fixed = 19 + 4 + 4 + 7 + (7 if next_hop.version == 4 else 0)  # header, lengths, ORIGIN, LOCAL_PREF, NEXT_HOP
    unknown = f"attribute [ 0x63 0xD0 0x{'00' * (4096 - fixed - 4 - room)} ]"
    speaker.take(*commands.announce(PEER, {prefix: Announcement(next_hop, local_preference=2, others=(unknown,))}))
    assert speaker.said == []
    peer.hear(speaker.rib())
    assert peer.table.get(prefix) in (None, (str(next_hop), "2"))
    assert (prefix in peer.table) >= (room >= 70)
    speaker.take(*commands.announce(PEER, {prefix: Announcement(next_hop, local_preference=3)}))
    peer.hear(speaker.rib())
    assert peer.table == {prefix: (str(next_hop), "3")}


networks = st.builds(
    lambda number, length: ip_network((number >> (32 - length) << (32 - length), length)),
    st.integers(0, 2**32 - 1), st.integers(0, 32),
) | st.builds(
    lambda number, length: ip_network((number >> (128 - length) << (128 - length), length)),
    st.integers(2**32, 2**128 - 1), st.integers(16, 128),
)  # fmt: skip


@given(st.sets(networks, max_size=20))
def test_prefixes_are_packed_as_they_are_read(given_: set[IPNetwork]) -> None:
    packed = prefixes.pack(given_)
    assert {version: len(each) for version, each in packed.items()} == {
        version: count for version in (4, 6) if (count := sum(one.version == version for one in given_))
    }
    for version, each in packed.items():
        data = b"".join(each)
        assert announced.split(data, {4: 32, 6: 128}[version]) == each == sorted(each)
        assert set(unpacked(data, f"ipv{version}")) == {one for one in given_ if one.version == version}


@given(networks, st.booleans())
def test_a_prefix_is_the_nlri_that_exabgp_makes_of_it(prefix: IPNetwork, addpath: bool) -> None:
    kind = announced._KINDS[f"ipv{prefix.version}"]
    (packed,) = prefixes.pack([prefix])[prefix.version]
    order = announced._Order(kind, Action.ANNOUNCE, [packed], frozenset(), {}, None)
    ((index, ours),) = announced._changes(order)
    theirs, left = INET.unpack_nlri(*kind.family, packed, Action.ANNOUNCE, False)
    assert left == b""
    assert index == ours.index() == Change(theirs, {}).index()
    assert ours.nlri == theirs
    assert ours.nlri.cidr == theirs.cidr
    assert ours.nlri.pack_nlri(negotiated(addpath)) == theirs.pack_nlri(negotiated(addpath))
    assert ours.nlri.json() == theirs.json()


GOOD = b"weft announce 180a4100 ipv4 to 10.1.0.2 with next-hop 10.1.0.1 origin igp"


@pytest.mark.parametrize(
    "line",
    [
        b"weft announce",
        b"weft withdraw",
        b"weft announce json",
        b"weft announce 180a41 ipv4 to 10.1.0.2 with next-hop 10.1.0.1",
        b"weft announce 180a4100180a41 ipv4 to 10.1.0.2 with next-hop 10.1.0.1",
        b"weft announce 210a41000000 ipv4 to 10.1.0.2 with next-hop 10.1.0.1",
        b"weft announce 170a4101 ipv4 to 10.1.0.2 with next-hop 10.1.0.1",
        b"weft announce 180a410 ipv4 to 10.1.0.2 with next-hop 10.1.0.1",
        b"weft announce 180a4100 ipv5 to 10.1.0.2 with next-hop 10.1.0.1",
        b"weft announce 180a4100 ipv4 to 10.1.0.2",
        b"weft announce 180a4100 ipv4 to 10.1.0.2 with origin igp",
        b"weft announce 180a4100 ipv4 to 10.1.0.2 with next-hop 10.1.0.1 nonsense",
        b"weft announce 180a4100 ipv4 to 10.1.0.2 with next-hop 10.1.0.1 med many",
        b"weft announce 180a4100 ipv4 to 10.1.0.2 with next-hop 10.1.0.1 nlri 10.0.0.0/8",
        b"weft announce 180a4100 ipv4 with next-hop 10.1.0.1",
        b"weft announce  ipv4 to 10.1.0.2 with next-hop 10.1.0.1",
        b"weft withdraw 180a4100 ipv4 to 10.1.0.2 with next-hop 10.1.0.1",
        b"weft withdraw 180a41 ipv4 to 10.1.0.2",
    ],
)
def test_a_command_that_cannot_be_read_is_refused_and_does_nothing(line: bytes) -> None:
    speaker = Speaker()
    speaker.take(GOOD)
    before = (dict(speaker.rib()._seen), dict(speaker.rib()._new_nlri))
    speaker.take(line)
    assert [event.command for event in speaker.refused()] == [line.decode()]
    assert (speaker.rib()._seen, speaker.rib()._new_nlri) == before
    speaker.take(GOOD.replace(b"180a4100", b"180a4200"))
    assert len(speaker.rib()._new_nlri) == 2


@given(st.data())
def test_a_damaged_command_is_carried_out_or_refused(data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(GOOD)))
    junk = data.draw(st.text("0123456789abcdefipvnextho. ", max_size=4)).encode()
    damaged = GOOD[:cut] + junk + GOOD[cut + data.draw(st.integers(0, 3)) :]
    speaker = Speaker()
    speaker.take(damaged)
    if speaker.said:
        assert speaker.refused()
        assert not speaker.rib().pending()
    for change in speaker.rib()._new_nlri.values():
        assert change.nlri.cidr.mask <= 32
        assert "10.1" in str(change.nlri.nexthop) or b"next-hop 10.1.0.1" not in damaged


def test_only_the_peers_that_are_named_and_carry_the_family_are_told() -> None:
    speaker = Speaker("10.1.0.2", "10.1.0.3", "10.1.0.4")
    speaker.neighbors["10.1.0.3"]._families = [IPV6]
    told = [ip_address(peer) for peer in ("10.1.0.2", "10.1.0.3", "10.1.0.9")]
    (said,) = commands.announcements({NETWORKS[1]: Announcement(HOPS[4][0])})
    speaker.take(*commands.to(told, said))
    assert [peer for peer in speaker.neighbors if speaker.rib(peer).pending()] == ["10.1.0.2"]
    assert speaker.said == []


def test_what_a_peer_was_told_is_not_told_again_but_after_a_withdrawal_it_is() -> None:
    speaker, peer = Speaker(), Peer()
    announce = list(commands.announce(PEER, {NETWORKS[1]: Announcement(HOPS[4][0])}))
    for lines, updates in ((announce, 1), (announce, 1), ([*commands.withdraw(PEER, [NETWORKS[1]])], 2), (announce, 3)):
        speaker.take(*lines)
        peer.hear(speaker.rib())
        assert peer.updates == updates


def test_a_word_of_exabgps_own_in_a_command_makes_it_no_other_command() -> None:
    """ExaBGP looks for the names of its commands anywhere in a line, the last in the alphabet first."""
    announced.install()
    names = iter(Command.functions)
    assert [name for name in names if name in announced.COMMANDS] == sorted(announced.COMMANDS, reverse=True)
    before = Command.functions[: Command.functions.index("weft announce")]
    told = Announcement(HOPS[4][0], ("64512:1",), as_path=(64512,), others=("atomic-aggregate",))
    lines = [*commands.announce(PEER, dict.fromkeys(NETWORKS, told)), *commands.withdraw(PEER, NETWORKS)]
    assert not [
        name for name in before for line in lines if f"{name} " in line.decode() and name not in announced.COMMANDS
    ]


@pytest.mark.parametrize(
    "updates", [grouping.updates, pytest.param(OutgoingRIB.updates, marks=UNCORRECTED)], ids=["ours", "ExaBGP's"]
)
@pytest.mark.parametrize("again", [False, True], ids=["at first", "asked for again"])
def test_many_prefixes_are_few_messages(updates: Callable[..., Any], again: bool) -> None:
    speaker, peer = Speaker(), Peer(updates)
    nets = {ip_network((0xFD << 120 | number, 128)) for number in range(1000)}
    nets |= {ip_network((0x0A000000 | number, 32)) for number in range(1000)}
    preferred = [Announcement(HOPS[6][0], local_preference=number) for number in range(2)]
    told = {net: preferred[int(net.network_address) % 2] for net in nets}
    speaker.take(*commands.announce(PEER, told))
    if again:
        list(speaker.rib().updates(True))
        speaker.rib().resend(enhanced_refresh=True)
    peer.hear(speaker.rib())
    assert {net: preference for net, (_, preference) in peer.table.items()} == {
        net: str(one.local_preference) for net, one in told.items()
    }
    assert (peer.updates <= 14, peer.marks) == (True, 4 * again)
    speaker.take(*commands.withdraw(PEER, nets))
    peer.hear(speaker.rib())
    assert (peer.table, peer.updates <= 24) == ({}, True)


def test_prefixes_of_which_the_attributes_differ_or_the_families_stay_apart() -> None:
    speaker, peer = Speaker(), Peer()
    for number, net in enumerate([*NETWORKS, *NETWORKS[:1]]):
        speaker.take(*commands.announce(PEER, {net: Announcement(HOPS[6][0], local_preference=number % 2)}))
    peer.hear(speaker.rib())
    assert peer.updates == 4


# What ExaBGP's own commands do, which ours do not.


def exabgps(rib: OutgoingRIB, order: Any, found: list[tuple[bytes, Any]]) -> None:
    for _, change in found:
        rib.add_to_rib(change)


def ours(rib: OutgoingRIB, order: Any, found: list[tuple[bytes, Any]]) -> None:
    announced.put(rib, order.kind.family, order.attributes, found)


@pytest.mark.parametrize("put", [ours, pytest.param(exabgps, marks=UNCORRECTED)], ids=["ours", "ExaBGP's"])
def test_changes_to_one_prefix_leave_in_the_order_of_time(put: Callable[..., None]) -> None:
    speaker, peer, reader = Speaker(), Peer(), announced._Reader()
    one, two = (GOOD.decode() + f" med {med} local-preference {med}" for med in (1, 2))
    for line in (one, two, one):
        order = reader.read(speaker.api, line)
        put(speaker.rib(), order, announced._changes(order))
    peer.hear(speaker.rib())
    assert peer.table == {ip_network("10.65.0.0/24"): ("10.1.0.1", "1")}


class Counted(str):
    """A peer's name that counts what it is compared with."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)


def inject(speaker: Speaker, order: Any) -> None:
    for _, change in announced._changes(order):
        _Configuration.inject_change(speaker.configuration, list(speaker.neighbors), change)


@pytest.mark.parametrize(
    "carry_out", [announced._carry_out, pytest.param(inject, marks=UNCORRECTED)], ids=["ours", "ExaBGP's"]
)
def test_a_route_for_many_peers_costs_each_of_them_one_step_and_no_copy(carry_out: Callable[..., None]) -> None:
    names = [f"10.1.{number // 250}.{number % 250}" for number in range(100)]
    speaker, copies = Speaker(*names), []
    for neighbor in speaker.neighbors.values():
        neighbor.remove_self = lambda change: copies.append(change) or change  # type: ignore[attr-defined]
    speaker.neighbors = speaker.configuration.neighbors = {
        Counted(name): one for name, one in speaker.neighbors.items()
    }
    order = announced._Reader().read(speaker.api, GOOD.decode().replace("10.1.0.2", " ".join(names)))
    Counted.compared = 0
    carry_out(speaker, order)
    told = {id(change) for name in names for change in speaker.rib(name)._new_nlri.values()}
    assert (len(told), Counted.compared <= 300, copies) == (1, True, [])


def test_a_refusal_names_the_beginning_of_the_command_only() -> None:
    speaker = Speaker()
    speaker.take(b"weft announce " + b"20" * 10_000)
    (line,) = speaker.said
    assert len(line) < 600
    assert json.loads(line)["type"] == "weft-refused"
