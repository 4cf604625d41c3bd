"""A route reflector's whole state, without I/O: sessions, what they say, what they are told, and when.

Inputs come through `on_*` and `configure`; `take` returns what has to be done about connections and what belongs in the
log; `choose` and `advance` give what peers are to be sent, when there is room for it. A change of one session's
settings resets that session alone. After a start nothing is told until the peers have told everything (RFC 4724 4.1),
so that a restarted reflector never withdraws what is merely late."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, assert_never

from bird_agent.bestpath import Peer
from bird_agent.holdoffs import HOLD_OFF_S, HoldOffs
from bird_agent.policy import Policies
from bird_agent.reflector import outputs
from bird_agent.reflector.addresses import remembered
from bird_agent.reflector.attributes import AttributeSets
from bird_agent.reflector.errors import Stop
from bird_agent.reflector.groups import Pieces
from bird_agent.reflector.learning import Learning
from bird_agent.reflector.plan import ReflectorPlan, ReflectorSession
from bird_agent.reflector.session import Jitter, Session
from bird_agent.reflector.standing import Standing
from bird_agent.reflector.tables import Tables
from bird_agent.reflector.telling import Telling
from bird_agent.reflector.timers import FOREVER, Timers
from bird_agent.session_config import Problem
from bird_agent.sessions import Action, MarkStale
from weft.model.address import IPAddress

COME_BACK_S: Final = 15.0
"""After a start, so long for every peer to open its session; those that came have longer to tell everything."""

ConnectionOutput = outputs.Connect | outputs.CancelConnect | outputs.Write | outputs.Close


class Reflector:
    """See the module. Not thread-safe: one loop owns it. All times are of one monotonic clock."""

    def __init__(self, now: float, jitter: Jitter) -> None:
        self._started_at = now
        self._jitter = jitter
        self._plan: ReflectorPlan | None = None
        self._policies = Policies()
        self._deferring = True
        self._sets = AttributeSets()
        self._outputs: list[tuple[IPAddress, ConnectionOutput]] = []
        self._notes: list[str] = []
        self._timers = Timers()
        self._look_again_at = FOREVER
        self.hold_offs = HoldOffs()
        self.peers: dict[IPAddress, Standing] = {}
        self.tables = Tables(self._sets)
        self._telling = Telling(self.peers, self.tables)

    @property
    def plan(self) -> ReflectorPlan | None:
        return self._plan

    @property
    def deferring(self) -> bool:
        """It has been started not long ago, and tells nobody anything until it knows everything."""
        return self._deferring

    @property
    def deadline(self) -> float:
        """When `on_tick` has something to do."""
        return min(self._timers.next, self._look_again_at)

    @property
    def restless(self) -> bool:
        """`choose` may have something to do, or `advance` for some peer."""
        return bool(self._telling.hungry) or self._deferring or self.tables.rib.changed

    def problems(self, now: float) -> list[Problem]:
        planned = () if self._plan is None else self._plan.problems
        return [*planned, *self._policies.problems, *self.hold_offs.problems(now)]

    # Who the peers are.

    def configure(self, plan: ReflectorPlan, policies: Policies, now: float) -> None:
        """The sessions there should be. What differs is changed, and nothing else."""
        before, self._plan, self._policies = self._plan, plan, policies
        if before is None:
            self._started_at = now  # it may have waited for addresses or a password; nobody could come back before
        self.hold_offs.on_planned({peer: one.config for peer, one in plan.sessions.items()})
        learning: dict[IPAddress, Learning] = {}
        anew = before is not None and before.identity != plan.identity
        for peer, standing in list(self.peers.items()):
            wanted = plan.sessions.get(peer)
            if wanted is None:
                self._end(peer, standing, Stop.DECONFIGURED, now)
                self.tables.rib.forget(peer)
            elif anew or standing.differs(wanted):
                self._end(peer, standing, Stop.CONFIGURATION_CHANGE, now)
                learning[peer] = standing.learning
                standing.learning.by_us = True
            else:
                standing.wanted = wanted
                standing.session.set_passive(wanted.passive)
                self._name(peer, standing)
        self.tables.configure(plan, policies)
        for peer, standing in self.peers.items():
            if standing.held_until is not None and peer not in self.hold_offs:
                self._release(peer, standing, now)
        self._telling.hungry.update(self.peers)
        for peer, wanted in plan.sessions.items():
            if peer not in self.peers:
                self._begin(wanted, learning.get(peer) or Learning(remembered(peer)), now)
            else:
                self._limit(peer, now)

    def _begin(self, wanted: ReflectorSession, learning: Learning, now: float) -> None:
        """`learning`: of the session before, whose routes may be kept until this one is up."""
        assert self._plan is not None
        peer = learning.peer
        session = Session(self._plan, wanted, now, sets=self._sets, jitter=self._jitter)
        session.restarting = self._deferring
        self.peers[peer] = standing = Standing(wanted, session, learning, since=now)
        if peer in self.hold_offs:
            standing.held_until = now + HOLD_OFF_S
        else:
            session.on_start(now)
        self._take(peer, standing, now)

    def _release(self, peer: IPAddress, standing: Standing, now: float) -> None:
        """It was held down, and may come up again."""
        standing.held_until = None
        standing.session.on_start(now)
        self._take(peer, standing, now)

    def _end(self, peer: IPAddress, standing: Standing, why: Stop, now: float) -> None:
        """For good: another session may take the place."""
        standing.session.on_stop(now, why)
        self._take(peer, standing, now)
        self._timers.forget(peer)
        self._telling.hungry.discard(peer)
        del self.peers[peer]

    def stop(self, now: float) -> None:
        """This process ends and another follows: the peers are to keep our routes until then."""
        for peer, standing in self.peers.items():
            standing.session.on_stop(now, Stop.RESTART)
            self._take(peer, standing, now)

    # What happens.

    def on_connection(self, peer: IPAddress, conn: int, incoming: bool, now: float) -> None:
        standing = self.peers[peer]
        standing.session.on_connection(conn, incoming, now)
        self._take(peer, standing, now)

    def on_connect_failed(self, peer: IPAddress, now: float) -> None:
        if (standing := self.peers.get(peer)) is not None:
            standing.session.on_connect_failed(now)
            self._take(peer, standing, now)

    def on_data(self, peer: IPAddress, conn: int, data: bytes, now: float) -> None:
        if (standing := self.peers.get(peer)) is not None:
            standing.session.on_data(conn, data, now)
            self._take(peer, standing, now)

    def on_closed(self, peer: IPAddress, conn: int, now: float) -> None:
        if (standing := self.peers.get(peer)) is not None:
            standing.session.on_closed(conn, now)
            self._take(peer, standing, now)

    def on_stalled(self, peer: IPAddress, now: float) -> None:
        """The connection takes no more for now."""
        standing = self.peers.get(peer)
        if standing is not None and standing.established and standing.stalled_since is None:
            standing.stalled_since = now
            self._take(peer, standing, now)

    def on_room(self, peer: IPAddress) -> None:
        """The connection has taken something."""
        if (standing := self.peers.get(peer)) is not None:
            standing.stalled_since = None

    def on_path_lost(self, peer: IPAddress, why: str, now: float) -> None:
        """Its session ends at once, and nothing of it is kept: what is dead cannot be restarting. But what leads
        elsewhere (`SessionConfig.dies_with`) is."""
        if (standing := self.peers.get(peer)) is not None and standing.established:
            self._note(peer, why)
            standing.session.on_stop(now, Stop.BFD_DOWN)
            self._take(peer, standing, now)

    def on_tick(self, now: float) -> None:
        self._look_again_at = FOREVER
        self.hold_offs.on_tick(now)
        for peer in self._timers.due(now):
            standing = self.peers[peer]
            if standing.held_until is not None and now >= standing.held_until:
                self._release(peer, standing, now)
            deadline = standing.session.deadline
            if deadline is not None and now >= deadline:
                standing.session.on_tick(now)
            if (until := standing.learning.deadline) is not None and now >= until:
                self._apply(peer, standing.learning.on_tick(now))
            if standing.stalled_since is not None and now - standing.stalled_since >= standing.patience_s:
                standing.stalled_since = None
                self._note(peer, "down: it has taken nothing for too long")
                standing.session.on_stop(now, Stop.OUT_OF_RESOURCES)
            self._take(peer, standing, now)

    def _take(self, peer: IPAddress, standing: Standing, now: float) -> None:
        for output in standing.session.take():
            match output:
                case outputs.Connect() | outputs.CancelConnect() | outputs.Write() | outputs.Close():
                    self._outputs.append((peer, output))
                case outputs.Updates():
                    self._on_updates(peer, standing, output, now)
                case outputs.Opened():
                    pass  # whether it comes up, is open
                case outputs.Up():
                    self._on_up(peer, standing, output, now)
                case outputs.Down():
                    self._on_down(peer, standing, output, now)
                case outputs.EndOfRib():
                    self._apply(peer, standing.learning.on_end_of_rib(output.family))
                case outputs.RefreshAsked():
                    standing.refresh_asked.add(output.family)
                    self._telling.hungry.add(peer)
                case outputs.RefreshMark():
                    learning = standing.learning
                    begins, family = output.begins, output.family
                    self._apply(
                        peer, learning.on_refresh_begins(family, now) if begins else learning.on_end_of_rib(family)
                    )
                case outputs.Treated():
                    if line := standing.problem_line(output.problem, now):  # a peer that is wrong is so many times
                        self._note(peer, line)
                case _:
                    assert_never(output)
        if (due := standing.deadline) is not None:
            self._timers.want(peer, due)

    def _on_up(self, peer: IPAddress, standing: Standing, up: outputs.Up, now: float) -> None:
        negotiated = up.negotiated
        standing.conn, standing.negotiated, standing.since, standing.last_error = up.conn, negotiated, now, ""
        self._apply(peer, standing.learning.on_up(negotiated, now))
        self.tables.rib.end_silence(peer)
        self._name(peer, standing)
        self.tables.join(peer, negotiated)
        self._telling.hungry.add(peer)
        standing.ends = {family for family, _ in self.tables.groups(peer)}
        standing.refresh_asked, standing.refreshing = set(), set()
        self._note(peer, f"up with hold time {negotiated.hold_time_s} s for {', '.join(sorted(standing.ends))}")

    def _name(self, peer: IPAddress, standing: Standing) -> None:
        """Who the peer is, for the choice of best paths; its settings may have changed meanwhile."""
        config, negotiated = standing.wanted.config, standing.negotiated
        if negotiated is None or self._plan is None:
            return
        local_as = None if config.local_as == self._plan.asn else config.local_as
        allowed = config.allowed_own_as
        self.tables.set_peer(Peer(peer, negotiated.router_id, negotiated.peer_as, config.internal, local_as, allowed))

    def _on_down(self, peer: IPAddress, standing: Standing, down: outputs.Down, now: float) -> None:
        news, standing.last_error = down.why != standing.last_error, down.why
        negotiated = standing.negotiated
        if not down.was_up or negotiated is None or standing.conn is None:
            if news:
                self._note(peer, f"does not come up: {down.why}")
            return
        self.tables.leave(peer)
        standing.conn, standing.since, standing.stalled_since = None, now, None
        standing.flaps += 1
        learning, dies_with = standing.learning, standing.wanted.config.dies_with
        if down.silent:
            self._apply(peer, learning.on_silence(negotiated, dies_with, down.why, now))
        else:
            self._apply(peer, learning.on_down(negotiated, down.graceful, down.why, now))
        how_long = "until others bring them" if down.silent else "while it restarts"
        kept = f"; its {self.tables.rib.received(peer)} routes are kept {how_long}" if standing.restarting else ""
        self._note(peer, f"down: {down.why}{kept}")

    def _on_updates(self, peer: IPAddress, standing: Standing, heard: outputs.Updates, now: float) -> None:
        if not standing.established:
            return
        standing.updates += 1
        standing.learning.on_heard(heard.family, now)
        path = None
        if heard.attributes is not None and heard.next_hop is not None:
            path = heard.attributes, heard.next_hop
        self.tables.rib.update(peer, heard.family, path, heard.announced, heard.withdrawn)
        self._limit(peer, now)

    def _limit(self, peer: IPAddress, now: float) -> None:
        """More prefixes than a peer may announce end its session, and keep it down for a while."""
        standing = self.peers[peer]
        allowed = standing.wanted.config.max_prefixes
        if allowed is None or not standing.established or self.tables.rib.received(peer) <= allowed:
            return
        self._note(peer, f"it announced more than {allowed} prefixes: held down for now")
        self.hold_offs.begin(standing.wanted.config, now)
        standing.session.on_stop(now, Stop.MAX_PREFIXES)
        standing.held_until = now + HOLD_OFF_S
        self._take(peer, standing, now)

    # What the peers are told.

    def choose(self, now: float) -> bool:
        """Choose best paths and tell the groups; whether anybody may be told anything yet."""
        if self._deferring and not self._know_everything(now):
            return False
        if self.tables.choose():
            self._telling.hungry.update(peer for peer, standing in self.peers.items() if standing.established)
        return True

    def _know_everything(self, now: float) -> bool:
        if self._plan is None:
            return False
        restart_time_s = self._plan.restart_time_s
        waits = self._started_at + COME_BACK_S
        for peer, standing in self.peers.items():
            if standing.established:
                if standing.tells_first and now < self._started_at + restart_time_s / 2:
                    self._look_again_at = self._started_at + restart_time_s / 2
                    return False
            elif now < waits and peer not in self.hold_offs:
                self._look_again_at = waits
                return False
        self._deferring = False
        for standing in self.peers.values():
            standing.session.restarting = False
        routes = sum(len(self.tables.rib.prefixes(family)) for family in ("ipv4 unicast", "ipv6 unicast"))
        self._notes.append(f"{routes} prefixes learnt after the start; peers are told now")
        return True

    def waiting(self) -> Iterator[tuple[IPAddress, int]]:
        """Peers that there may be something for, with their connections."""
        return self._telling.waiting()

    def advance(self, peer: IPAddress) -> Pieces:
        """What the peer is sent next; empty: it knows everything, or is not up."""
        return [] if self._deferring else self._telling.advance(peer)

    def is_hungry(self, peer: IPAddress) -> bool:
        """There may be something for it."""
        return peer in self._telling.hungry

    # Outputs.

    def take(self) -> tuple[list[tuple[IPAddress, ConnectionOutput]], list[str]]:
        """What is to be done about connections, in order, and lines for the log."""
        found = self._outputs, self._notes
        self._outputs, self._notes = [], []
        return found

    def _apply(self, peer: IPAddress, actions: list[Action]) -> None:
        gone = self.tables.apply(actions)
        reasons = [action.why for action in actions if not isinstance(action, MarkStale)]
        if gone and reasons:
            self._note(peer, f"{gone} of its routes go: {reasons[0]}")

    def _note(self, peer: IPAddress, text: str) -> None:
        standing = self.peers.get(peer)
        config = None if standing is None else standing.wanted.config
        who = f"{peer}" if config is None else f"{peer} (AS {config.peer_as}, {config.resource})"
        self._notes.append(f"BGP session with {who}: {text}")
