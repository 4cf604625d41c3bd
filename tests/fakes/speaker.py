"""An ExaBGP with its link, as the agent sees it: refuses what the real one refuses, and remembers what it announced.

A command for a peer that it was not configured with is ignored, an announcement reaches a peer only while its session
is up, and a peer that comes up is sent what is remembered for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address, ip_network

from msgspec.structs import replace

from bird_agent.agent import Agent
from bird_agent.exabgp import events, link
from bird_agent.exabgp.events import PeerOpen, SpeakerEvent
from weft.model.address import IPAddress, IPNetwork

_OF_EXABGP = re.compile(r"neighbor (\S+) announce (eor|route-refresh) ipv[46] unicast")
_OF_OURS = re.compile(r"weft (announce|withdraw) ([0-9a-f]+) (ipv4|ipv6) to ([0-9a-f.: ]+?)(?: with (.+))?")


@dataclass
class FakePeer:
    """One configured peer: what is remembered for it, and what it was sent, in order."""

    up: bool = False
    remembered: set[IPNetwork] = field(default_factory=set)
    sent: list[str] = field(default_factory=list)
    attributes: dict[IPNetwork, str] = field(default_factory=dict)
    """What each prefix was last announced with."""


class FakeSpeaker:
    """Drives an `Agent` as the daemon would."""

    def __init__(self, agent: Agent, pid: int = 100) -> None:
        self.agent = agent
        self.pid = pid
        self.attached = False
        self.peers: dict[IPAddress, FakePeer] = {}
        self.history: list[SpeakerEvent] = []
        self.complete = True
        self.ignored: list[bytes] = []
        self.refreshed: list[IPAddress] = []
        self.ceased: list[str] = []

    def configure(self, peers: Iterable[str]) -> None:
        wanted = {ip_address(peer) for peer in peers}
        self.peers = {peer: self.peers.get(peer, FakePeer()) for peer in wanted}
        if self.attached:
            self.agent.conversation.on_configured()

    def attach(self) -> None:
        self.attached = True
        self.agent.conversation.on_attached(link.Hello(1, self.pid, self.pid + 1))
        for peer in self.peers:
            self.agent.conversation.on_replaying(peer, self.complete)
            for event in self.history if self.complete else ():
                if getattr(event, "peer", None) == peer:
                    self.agent.on_speaker(event)
        self.agent.conversation.on_live()

    def detach(self) -> None:
        self.attached = False
        self.agent.conversation.on_detached()

    def tell(self, event: SpeakerEvent) -> None:
        """ExaBGP says something; the link keeps it."""
        self.history.append(event)
        if self.attached:
            self.agent.on_speaker(event)

    def up(self, peer: str, at: float = 0.0, graceful: bool = True, restarting: bool = False) -> None:
        address = ip_address(peer)
        families = {"ipv4 unicast": True} if graceful else None
        self.peers[address].up = True
        self.peers[address].sent = sorted(map(str, self.peers[address].remembered))
        self.tell(events.SessionConnecting(address, at))
        opened = replace(_opened(address, families), restarting=restarting)
        self.tell(events.SessionOpened(address, at, opened))
        self.tell(events.SessionUp(address, at))

    def obey(self, commands: Iterable[bytes]) -> None:
        """Carry out commands; dropped if nobody is attached, as the daemon drops them."""
        for command in commands:
            if not self.attached:
                continue
            if command == b"weft sync\n":
                self._answer_sync()
            elif command.startswith(b"weft unsent "):
                self.agent.on_speaker(events.UnsentReport(int(command.split()[2]), ()))
            elif command.startswith(b"weft cease "):
                self._cease(command.decode().split()[2:])
            elif not command.startswith(b"!"):
                self._obey(command)

    def _cease(self, words: list[str]) -> None:
        address = ip_address(words[0])
        self.ceased.append(" ".join(words))
        if address in self.peers and self.peers[address].up:
            self.peers[address].up = False
            reason = f"notification sent (6,{words[1]})"
            self.tell(events.SessionDown(address, 0.0, reason, (6, int(words[1])), sent=True))

    def _obey(self, command: bytes) -> None:
        line = command.decode().strip()
        ours, exabgps = _OF_OURS.fullmatch(line), _OF_EXABGP.fullmatch(line)
        if ours is not None:
            verb, packed, family, whom, attributes = ours.groups()
            prefixes = unpacked(bytes.fromhex(packed), family)
            for peer in self._known(whom.split(), command):
                for prefix in prefixes:
                    self._change(self.peers[peer], verb, prefix, attributes)
        elif exabgps is not None:
            for peer in self._known([exabgps[1]], command):
                if exabgps[2] == "eor":
                    self._send(self.peers[peer], "eor")
                else:
                    self.refreshed.append(peer)
        else:
            self.ignored.append(command)

    def _known(self, names: list[str], command: bytes) -> Iterator[IPAddress]:
        for address in map(ip_address, names):
            if address in self.peers:
                yield address
            else:
                self.ignored.append(command)

    def _change(self, peer: FakePeer, verb: str, prefix: IPNetwork, attributes: str) -> None:
        if verb == "withdraw":
            peer.remembered.discard(prefix)
            self._send(peer, f"-{prefix}")
            return
        if prefix not in peer.remembered:
            self._send(peer, str(prefix))
        peer.remembered.add(prefix)
        peer.attributes[prefix] = attributes

    @staticmethod
    def _send(peer: FakePeer, what: str) -> None:
        if peer.up:
            peer.sent.append(what)

    def _answer_sync(self) -> None:
        for address, peer in self.peers.items():
            opened = _opened(address, {"ipv4 unicast": True}) if peer.up else None
            state = "established" if peer.up else "idle"
            self.agent.on_speaker(events.SessionReport(address, state, 1.0, opened))
            self.agent.on_speaker(events.AdvertisedReport(address, tuple(peer.remembered)))
        self.agent.on_speaker(events.SyncEnd("digest"))


def unpacked(data: bytes, family: str) -> list[IPNetwork]:
    """Prefixes as an UPDATE has them. Raises ValueError."""
    found: list[IPNetwork] = []
    while data:
        size = (data[0] + 7) // 8
        address = data[1 : 1 + size].ljust(4 if family == "ipv4" else 16, b"\0")
        found.append(ip_network((address, data[0])))
        data = data[1 + size :]
    return found


def _opened(peer: IPAddress, families: dict[str, bool] | None) -> PeerOpen:
    return PeerOpen(64512, IPv4Address(int(peer) & 0xFFFFFFFF), 90, True, True, 120, families)
