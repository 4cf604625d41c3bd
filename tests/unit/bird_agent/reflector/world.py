"""A reflector and its peers without sockets: peers are scripts that speak real BGP messages and remember what they
are told. What a script does not read waits, as in a socket's buffer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address, ip_network

from bird_agent.exabgp.commands import Family
from bird_agent.exabgp.events import AsSegment, PathAttributes
from bird_agent.policy import Policies, policies
from bird_agent.reflector import outputs
from bird_agent.reflector.as_path import written
from bird_agent.reflector.attributes import (
    AS_PATH,
    CLUSTER_LIST,
    COMMUNITIES,
    LOCAL_PREF,
    MED,
    OPTIONAL,
    ORIGIN,
    ORIGINATOR_ID,
    TRANSITIVE,
    AttributeSet,
    AttributeSets,
    RawAttribute,
)
from bird_agent.reflector.codec import Encoder
from bird_agent.reflector.exabgp_codec import write_open, write_refresh
from bird_agent.reflector.framing import KEEPALIVE, Framer, Message
from bird_agent.reflector.negotiation import Negotiated, OpenMessage, Restart, negotiate, our_open
from bird_agent.reflector.outputs import EndOfRib, Updates
from bird_agent.reflector.plan import ReflectorPlan, ReflectorSession
from bird_agent.reflector.prefixes import IPV4, Nlri, nlri_of
from bird_agent.reflector.reflector import Reflector
from bird_agent.reflector.updates import UpdateDecoder
from bird_agent.session_config import SessionConfig, SessionKind
from weft.model.address import IPAddress
from weft.model.bgp import BGPFilter

LOCAL_AS = 64512
OURS = ip_address("10.0.0.1")
CLUSTER = IPv4Address("10.0.0.1")


def session(peer: str, client: bool = True, asn: int = LOCAL_AS, **settings: object) -> ReflectorSession:
    config = SessionConfig(
        peer=ip_address(peer),
        peer_as=asn,
        local=OURS,
        local_as=LOCAL_AS,
        kind=SessionKind.NODE,
        resource=f"BGPPeer/{peer}",
        **settings,  # type: ignore[arg-type]
    )
    return ReflectorSession(config, client)


def plan(*sessions: ReflectorSession, **fields: object) -> ReflectorPlan:
    values = {
        "name": "rr",
        "asn": LOCAL_AS,
        "router_id": CLUSTER,
        "cluster_id": CLUSTER,
        "addresses": (OURS,),
        "sessions": {one.config.peer: one for one in sessions},
    }
    return ReflectorPlan(**{**values, **fields})  # type: ignore[arg-type]


def raw(path: PathAttributes) -> list[RawAttribute]:
    """The attributes of a path as a peer writes them."""
    found = [
        RawAttribute(TRANSITIVE, ORIGIN, bytes((path.origin,))),
        RawAttribute(TRANSITIVE, AS_PATH, written(path.as_path)),
    ]
    if path.med is not None:
        found.append(RawAttribute(OPTIONAL, MED, path.med.to_bytes(4, "big")))
    if path.local_preference is not None:
        found.append(RawAttribute(TRANSITIVE, LOCAL_PREF, path.local_preference.to_bytes(4, "big")))
    if path.communities:
        value = b"".join(high.to_bytes(2, "big") + low.to_bytes(2, "big") for high, low in path.communities)
        found.append(RawAttribute(OPTIONAL | TRANSITIVE, COMMUNITIES, value))
    if path.originator_id is not None:
        found.append(RawAttribute(OPTIONAL, ORIGINATOR_ID, path.originator_id.packed))
    if path.cluster_list:
        found.append(RawAttribute(OPTIONAL, CLUSTER_LIST, b"".join(each.packed for each in path.cluster_list)))
    return found


def attributes(sets: AttributeSets, **fields: object) -> AttributeSet:
    """`as_path` is given as numbers."""
    numbers = fields.pop("as_path", ())
    segments = (AsSegment("as-sequence", tuple(numbers)),) if numbers else ()  # type: ignore[arg-type]
    path = PathAttributes(origin=0, as_path=segments, **fields)  # type: ignore[arg-type]
    return sets.of(path, raw(path))


@dataclass
class Script:
    """One peer. `table` is what it has from the reflector now, `heard` every message about routes, in order."""

    wanted: ReflectorSession
    conn: int
    sets: AttributeSets
    graceful: bool = True
    enhanced: bool = True
    router_id: IPv4Address | None = None
    reads: bool = True
    table: dict[tuple[Family, Nlri], tuple[AttributeSet, IPAddress]] = field(default_factory=dict)
    heard: list[object] = field(default_factory=list)
    unread: list[bytes] = field(default_factory=list)
    closed: bool = False
    _framer: Framer = field(default_factory=Framer)
    _decoder: UpdateDecoder | None = None
    _encoder: Encoder | None = None

    @property
    def address(self) -> IPAddress:
        return self.wanted.config.peer

    def open_message(self, families: tuple[Family, ...] = (IPV4,), restarting: bool = False) -> OpenMessage:
        """A peer that has not restarted does not say that it kept forwarding, as BIRD."""
        config = self.wanted.config
        router_id = self.router_id or IPv4Address(int(config.peer) & 0xFFFFFFFF)
        return OpenMessage(
            asn=config.peer_as,
            router_id=router_id,
            hold_time_s=90,
            asn4=True,
            families=families,
            route_refresh=True,
            enhanced_refresh=self.enhanced,
            restart=Restart(120, dict.fromkeys(families, restarting), restarting) if self.graceful else None,
        )

    def on_bytes(self, data: bytes, of: ReflectorPlan) -> None:
        for kind, body in self._framer.receive_data(data):
            match kind:
                case Message.OPEN:
                    theirs = our_open(of, self.wanted, restarting=False)
                    self._agree(negotiate(self.open_message(), theirs, theirs.asn))
                case Message.UPDATE:
                    assert self._decoder is not None
                    for event in self._decoder.decode(body):
                        self._on_event(event)
                case Message.NOTIFICATION | Message.REFRESH:
                    self.heard.append((kind, body))

    def _agree(self, negotiated: Negotiated) -> None:
        self._decoder = UpdateDecoder(negotiated, self.sets)
        self._encoder = Encoder(negotiated)

    def _on_event(self, event: object) -> None:
        self.heard.append(event)
        if isinstance(event, Updates):
            for nlri in event.withdrawn:
                self.table.pop((event.family, nlri), None)
            for nlri in event.announced:
                assert event.attributes is not None
                assert event.next_hop is not None
                self.table[event.family, nlri] = event.attributes, event.next_hop

    @property
    def encoder(self) -> Encoder:
        assert self._encoder is not None
        return self._encoder

    def prefixes(self) -> set[Nlri]:
        return {nlri for _, nlri in self.table}


class World:
    """The reflector, and its peers by address. `now` moves only by `wait`."""

    def __init__(self, wanted: ReflectorPlan, filters: Mapping[str, BGPFilter] | None = None) -> None:
        self.now = 1000.0
        self.sets = AttributeSets()
        self.filters = dict(filters or {})
        self.reflector = Reflector(self.now, lambda: 0.5)
        self.peers: dict[IPAddress, Script] = {}
        self.notes: list[str] = []
        self._conns = 0
        self.configure(wanted)

    def configure(self, wanted: ReflectorPlan) -> None:
        self.plan = wanted
        self.reflector.configure(wanted, self.policies, self.now)
        self.settle()

    @property
    def policies(self) -> Policies:
        return policies([one.config for one in self.plan.sessions.values()], self.filters)

    def connect(self, peer: str, restarting: bool = False, **settings: object) -> Script:
        """The peer calls, and says its OPEN and that ours is fine."""
        self._conns += 1
        wanted = self.plan.sessions[ip_address(peer)]
        script = Script(wanted, self._conns, self.sets, **settings)  # type: ignore[arg-type]
        self.peers[wanted.config.peer] = script
        self.reflector.on_connection(wanted.config.peer, script.conn, True, self.now)
        self.send(script, write_open(script.open_message(restarting=restarting)))
        self.send(script, KEEPALIVE)
        return script

    def connect_all(self, **settings: object) -> list[Script]:
        return [self.connect(str(peer), **settings) for peer in self.plan.sessions]

    def start(self, **settings: object) -> list[Script]:
        """Everybody is up, has told that it has nothing, and the reflector tells what it learns from now on."""
        scripts = self.connect_all(**settings)
        for script in scripts:
            self.end_of_rib(script)
        if not all(script.graceful for script in scripts):
            self.wait(4)
        assert not self.reflector.deferring
        return scripts

    def send(self, script: Script, data: bytes) -> None:
        self.reflector.on_data(script.address, script.conn, data, self.now)
        self.settle()

    def announce(
        self, script: Script, prefixes: Iterable[str], known: AttributeSet | None = None, next_hop: str = ""
    ) -> None:
        hop = ip_address(next_hop) if next_hop else script.address
        nlris = [nlri_of(ip_network(prefix)) for prefix in prefixes]
        for message in script.encoder.encode(IPV4, known or attributes(self.sets, local_preference=100), hop, nlris):
            self.send(script, message)

    def withdraw(self, script: Script, prefixes: Iterable[str]) -> None:
        for message in script.encoder.withdraw(IPV4, [nlri_of(ip_network(prefix)) for prefix in prefixes]):
            self.send(script, message)

    def end_of_rib(self, script: Script) -> None:
        self.send(script, script.encoder.end_of_rib(IPV4))

    def refresh(self, script: Script) -> None:
        self.send(script, write_refresh(IPV4))

    def lose(self, script: Script) -> None:
        """The connection is gone without a word."""
        script.closed = True
        self.reflector.on_closed(script.address, script.conn, self.now)
        self.settle()

    def read(self, script: Script) -> None:
        """It takes what waited for it, and reads from now on."""
        script.reads = True
        waiting, script.unread = script.unread, []
        self.reflector.on_room(script.address)
        for data in waiting:
            script.on_bytes(data, self.plan)
        self.settle()

    def wait(self, seconds: float) -> None:
        """Time goes by in small steps; peers that are up keep their sessions alive."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 10)
            for script in list(self.peers.values()):
                if not script.closed:
                    self.reflector.on_data(script.address, script.conn, KEEPALIVE, self.now)
            self.reflector.on_tick(self.now)
            self.settle()

    def settle(self) -> None:
        """Carry out what the reflector wants, as the loop does, until it wants no more."""
        for _ in range(1000):
            self._carry_out()
            if not (self.reflector.choose(self.now) and self._feed()):
                return
        raise AssertionError("the reflector does not come to rest")

    def _carry_out(self) -> None:
        wanted, notes = self.reflector.take()
        self.notes += notes
        for peer, output in wanted:
            script = self.peers.get(peer)
            match output:
                case outputs.Write() if script is not None and script.conn == output.conn:
                    self._deliver(script, [output.data])
                case outputs.Close() if script is not None and script.conn == output.conn:
                    script.closed = True

    def _feed(self) -> bool:
        moved = False
        for peer, conn in list(self.reflector.waiting()):
            script = self.peers[peer]
            if script.conn != conn or script.unread:
                continue
            while not script.unread and (pieces := self.reflector.advance(peer)):
                moved = True
                self._deliver(script, [bytes(piece) for piece in pieces])
        return moved

    def _deliver(self, script: Script, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            if script.reads:
                script.on_bytes(piece, self.plan)
            else:
                script.unread.append(piece)
        if script.unread:
            self.reflector.on_stalled(script.address, self.now)


__all__ = ["EndOfRib", "World", "attributes", "plan", "session"]
