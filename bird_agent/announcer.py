"""What each peer has been told, and the commands that bring it to what it should be told.

Pure. A peer is told through ExaBGP, which remembers announcements and sends them again when a session comes up; so
what is tracked here is what ExaBGP remembers, for peers whose session is down too. A peer that ExaBGP does not know
yet is told nothing. Our own end-of-RIB comes behind everything else: it makes a peer drop what it had kept of us."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Address

from bird_agent.drain import Phase, shaped
from bird_agent.exabgp import commands
from bird_agent.exabgp.commands import Announcement, Family, Told
from bird_agent.policy import Exporter
from bird_agent.session_config import SessionConfig
from weft.model.address import IPAddress, IPNetwork

_NOT_KNOWN = Announcement(next_hop=IPv4Address(0))  # attributes that nothing is announced with


class Announcer:
    """All peers."""

    def __init__(self) -> None:
        self._told: dict[IPAddress, dict[IPNetwork, Announcement]] = {}
        self._end_of_rib_due: dict[IPAddress, tuple[Family, ...]] = {}
        self._compare_all = False
        self._changed: set[IPNetwork] = set()
        self._incomplete = False
        self._phase = Phase.ANNOUNCING

    def set_phase(self, phase: Phase) -> None:
        """Whether the node stays, is leaving, or announces nothing any more."""
        self._phase, self._compare_all = phase, True

    def on_sessions_changed(self) -> None:
        """Peers or their settings changed: everything is compared."""
        self._compare_all = True

    def on_prefixes_changed(self, prefixes: Iterable[IPNetwork]) -> None:
        """These were added to or taken from what is announced."""
        self._changed.update(prefixes)

    def on_up(self, peer: IPAddress, carried: tuple[Family, ...]) -> None:
        """Of these families its session has to be told the end."""
        self._end_of_rib_due[peer] = carried

    def on_down(self, peer: IPAddress) -> None:
        self._end_of_rib_due.pop(peer, None)

    def on_detached(self) -> None:
        """What ExaBGP remembers is known again when it has reported it."""
        self._told.clear()

    def on_report(self, known: Iterable[IPAddress], remembered: Mapping[IPAddress, Collection[IPNetwork]]) -> None:
        """ExaBGP's peers and the prefixes that it remembers for each; with which attributes, it did not say."""
        self._told = {peer: dict.fromkeys(remembered.get(peer, ()), _NOT_KNOWN) for peer in known}
        self._compare_all = True

    def told(self, peer: IPAddress) -> Mapping[IPNetwork, Announcement]:
        return self._told.get(peer, {})

    def has_told(self, peer: IPAddress) -> bool:
        """Everything, end-of-RIB included, since its session came up."""
        return peer in self._told and peer not in self._end_of_rib_due

    def next_commands(
        self, sessions: Mapping[IPAddress, SessionConfig], exporter: Exporter, complete: bool = True
    ) -> list[bytes]:
        """What to say now so that every peer is told what `exporter` says; empty if nothing has changed.

        Until that is `complete` nothing is withdrawn that an earlier agent announced, and no end-of-RIB is sent."""
        if complete and self._incomplete:
            self._compare_all = True
        self._incomplete = not complete
        if not (self._compare_all or self._changed or (complete and self._end_of_rib_due)):
            return []
        withdrawals: list[bytes] = []
        for_peers: dict[Told, list[IPAddress]] = {}
        for peer, told in self._told.items():
            config = sessions.get(peer)
            if config is None:
                # ExaBGP closes without a NOTIFICATION, behind which the peer would keep our routes for a restart.
                withdrawals.extend(commands.withdraw(peer, list(told)))
                told.clear()
                continue
            gone, new = self._difference(config, told, exporter)
            withdrawals.extend(commands.withdraw(peer, gone))
            for said in commands.announcements(new):
                for_peers.setdefault(said, []).append(peer)
        self._compare_all = False
        self._changed.clear()
        announcements = [line for said, peers in for_peers.items() for line in commands.to(peers, said)]
        ends = self._ends_of_rib(sessions) if complete else []
        return [*withdrawals, *announcements, *ends]

    def _ends_of_rib(self, sessions: Mapping[IPAddress, SessionConfig]) -> list[bytes]:
        due = [peer for peer in self._end_of_rib_due if peer in self._told and peer in sessions]
        return [commands.end_of_rib(peer, family) for peer in due for family in self._end_of_rib_due.pop(peer)]

    def _difference(
        self, config: SessionConfig, told: dict[IPNetwork, Announcement], exporter: Exporter
    ) -> tuple[list[IPNetwork], dict[IPNetwork, Announcement]]:
        """What one peer has to be told: withdrawals and announcements; `told` is then what it has been told."""
        announcements = exporter.announcements(config, None if self._compare_all else self._changed)
        desired = shaped(self._phase, config, announcements)
        looked_at = set(told) if self._compare_all else self._changed
        gone = [prefix for prefix in looked_at if prefix in told and prefix not in desired]
        if self._incomplete and self._phase is not Phase.WITHDRAWN:
            gone = [prefix for prefix in gone if told[prefix] is not _NOT_KNOWN]
        new = {
            prefix: attributes
            for prefix, attributes in desired.items()
            if (known := told.get(prefix)) is not attributes and known != attributes
        }
        for prefix in gone:
            del told[prefix]
        told.update(new)
        return gone, new
