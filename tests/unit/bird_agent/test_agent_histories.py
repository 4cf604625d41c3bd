"""Whatever happened to sessions, links, agent and speaker: kernel and peers have what a fresh node would give them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bird_agent.agent import Agent, Step
from bird_agent.exabgp import events
from bird_agent.exabgp.events import PathAttributes
from bird_agent.nexthops import Underlay
from tests.fakes.speaker import FakeSpeaker
from tests.unit.bird_agent.agent_world import BLOCKS, POOL, UNDERLAY, World, block, block_key
from tests.unit.bird_agent.test_agent_passing import CLIENTS, REFLECTORS, member, stored
from weft.datastore.syncer import Deleted, InSync

OFFERED = ["10.65.8.0/26", "10.65.9.0/26", "192.0.2.0/24"]  # the last is not passed on
V4 = "ipv4 unicast"
LOST = ("closing connection", None, False)
TOLD = ("notification received (6,2)", (6, 2), False)
RESETS = ("graceful restarted negotiated, closing without sending any notification", None, False)


class Node(World):
    """n1, which reflects between two clients, with what these offer."""

    def __init__(self, blocks: set[str], offers: dict[str, dict[str, int]]) -> None:
        super().__init__(2, 3)
        self.blocks, self.offers = set(blocks), {peer: dict(some) for peer, some in offers.items()}
        self.reported: set[Any] = set()
        self._start()
        self.speaker.configure(CLIENTS)
        self.speaker.attach()
        self.step()
        for peer in CLIENTS:
            self.come_up(peer)

    def _start(self) -> None:
        own = [member(1, "244.0.0.1"), member(2), member(3), REFLECTORS, stored(POOL)]
        self.agent.on_datastore([*own, *map(block, sorted(self.blocks)), InSync()])
        self.step()

    def step(self, seconds: float = 0.01) -> list[Step]:
        steps = super().step(seconds)
        for step in steps:
            self.reported |= step.routes.keys()
            if step.sweep:
                self.kernel = {prefix: to for prefix, to in self.kernel.items() if prefix in self.reported}
        return steps

    def offer(self, peer: str, prefix: str, preference: int | None) -> None:
        address, network = ip_address(peer), ip_network(prefix)
        if preference is None:
            self.offers[peer].pop(prefix, None)
            self.speaker.tell(events.RoutesReceived(address, PathAttributes(), (), (network,)))
            return
        self.offers[peer][prefix] = preference
        attributes = PathAttributes(0, local_preference=preference)
        self.speaker.tell(events.RoutesReceived(address, attributes, ((network, address),), ()))

    def come_up(self, peer: str) -> None:
        self.speaker.up(peer, self.now)
        self.tell_all(peer)

    def tell_all(self, peer: str) -> None:
        for prefix, preference in list(self.offers[peer].items()):
            self.offer(peer, prefix, preference)
        self.speaker.tell(events.EndOfRib(ip_address(peer), V4))

    def go_down(self, peer: str, how: Any) -> None:
        self.speaker.peers[ip_address(peer)].up = False
        reason, notification, sent = how
        self.speaker.tell(events.SessionDown(ip_address(peer), self.now, reason, notification, sent))

    # What may happen.

    def flap(self, peer: str, how: Any, forgets: str) -> None:
        self.go_down(peer, how)
        self.step()
        self.offers[peer].pop(forgets, None)
        self.come_up(peer)

    def lose_link(self, peer: str, prefix: str) -> None:
        self.agent.on_underlay(Underlay(UNDERLAY.connected, {}, frozenset()))
        self.step()
        self.offer(peer, prefix, 7)  # on its way already
        for each in CLIENTS:
            self.go_down(each, ("peer reset, message (teardown)", None, False))
        del self.offers[peer][prefix]
        self.agent.on_underlay(UNDERLAY)
        self.step()
        for each in CLIENTS:
            self.come_up(each)

    def restart_agent(self, complete: bool) -> None:
        self.speaker.detach()
        self.agent = Agent("n1", started_at=self.now)
        self.reported = set()
        self.agent.on_underlay(UNDERLAY)
        self.speaker.agent = self.agent
        self.agent.conversation.on_speaker_found()
        self._start()
        self.attach(complete)

    def attach(self, complete: bool) -> None:
        """Anew: the history may have had gaps."""
        self.speaker.detach()
        self.speaker.complete, asked = complete, len(self.speaker.refreshed)
        self.speaker.attach()
        self.step()
        self.speaker.complete = True
        for peer in self.speaker.refreshed[asked:]:
            self.speaker.tell(events.RefreshMark(peer, V4, True))
            for prefix, preference in list(self.offers[str(peer)].items()):
                self.offer(str(peer), prefix, preference)
            self.speaker.tell(events.RefreshMark(peer, V4, False))

    def restart_speaker(self, forgets: str) -> None:
        self.speaker.detach()
        self.agent.conversation.on_speaker_ended()
        self.step()
        self.speaker = FakeSpeaker(self.agent, self.speaker.pid + 2)
        self.agent.conversation.on_speaker_started()
        self.speaker.configure(CLIENTS)
        self.speaker.attach()
        self.step()
        for peer in CLIENTS:
            self.offers[peer].pop(forgets, None)
            self.come_up(peer)

    def set_block(self, cidr: str, has: bool) -> None:
        (self.blocks.add if has else self.blocks.discard)(cidr)
        self.agent.on_datastore([block(cidr) if has else Deleted(block_key(cidr))])

    def reconfigure(self, cluster: str) -> None:
        """Another cluster, and the old one again."""
        for each in (cluster, "244.0.0.1"):
            self.agent.on_datastore([member(1, each)])
            self.step()
            self.speaker.configure(CLIENTS)
            self.step()

    def leave_and_return(self, peer: str) -> None:
        number = int(peer[-1])
        self.agent.on_datastore([Deleted(member(number).key)])
        self.step()
        asked = len(self.speaker.refreshed)
        self.agent.on_datastore([member(number)])
        self.step()
        self.speaker.configure(CLIENTS)  # for the speaker nothing has changed
        self.step()
        for each in self.speaker.refreshed[asked:]:
            self.tell_all(str(each))

    def outcome(self) -> tuple[Any, Any]:
        for _ in range(3):
            self.step(150)
        told = {
            str(peer): {str(prefix): one.attributes[prefix] for prefix in one.remembered}
            for peer, one in self.speaker.peers.items()
        }
        return self.kernel, told


peers, prefixes, cidrs = st.sampled_from(CLIENTS), st.sampled_from(OFFERED), st.sampled_from(BLOCKS)
happenings = st.one_of(
    st.tuples(st.just("offer"), peers, prefixes, st.sampled_from([None, 100, 200])),
    st.tuples(st.just("flap"), peers, st.sampled_from([LOST, TOLD, RESETS]), prefixes),
    st.tuples(st.just("lose_link"), peers, prefixes),
    st.tuples(st.just("restart_agent"), st.booleans()),
    st.tuples(st.just("attach"), st.booleans()),
    st.tuples(st.just("restart_speaker"), prefixes),
    st.tuples(st.just("set_block"), cidrs, st.booleans()),
    st.tuples(st.just("reconfigure"), st.just("244.0.0.2")),
    st.tuples(st.just("leave_and_return"), peers),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(happenings, max_size=8))
def test_a_node_ends_where_a_fresh_one_begins(history: list[Any]) -> None:
    node = Node({BLOCKS[0]}, {peer: {OFFERED[0]: 100, OFFERED[2]: 200} for peer in CLIENTS})
    for what, *arguments in history:
        getattr(node, what)(*arguments)
        node.step()
    assert node.outcome() == Node(node.blocks, node.offers).outcome()
