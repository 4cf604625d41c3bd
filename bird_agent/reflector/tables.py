"""What the peers said, which paths are best, and what each group of peers is told of them.

Pure. It joins the RIB, the rules of reflection and the groups, and knows no connection: who is up is told, and
`advance` gives what a peer is to be sent next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import assert_never

from msgspec import Struct, field

from bird_agent.bestpath import Local, Path, Peer, unusable
from bird_agent.drain import honoured
from bird_agent.exabgp.commands import Family
from bird_agent.policy import Importer, Own, Policies
from bird_agent.reflector.attributes import AttributeSet, AttributeSets
from bird_agent.reflector.codec import CannotBeTold, Encoder
from bird_agent.reflector.groups import Group
from bird_agent.reflector.negotiation import Negotiated
from bird_agent.reflector.plan import ReflectorPlan
from bird_agent.reflector.prefixes import FAMILIES, Nlri, network_of
from bird_agent.reflector.reflection import (
    Audience,
    Reflection,
    Role,
    Told,
    audience_of,
    changed,
    filter_route,
    role_of,
)
from bird_agent.reflector.remembered import Remembered
from bird_agent.reflector.rib import Rib, Route
from bird_agent.sessions import Action, DropAll, DropStale, FallSilent, MarkStale
from weft.model.address import IPAddress

_Key = tuple[object, Audience, Family]


class _Channel(Struct):
    """One group, and what has been decided for it about attribute sets, which come many times each."""

    key: _Key
    audience: Audience
    family: Family
    encoder: Encoder
    group: Group
    answers: Remembered[Route, Told | str] = field(default_factory=Remembered)
    interned: Remembered[Told, Told] = field(default_factory=Remembered)

    def intern(self, told: Told) -> Told | str:
        """One object for what is equal, so that it is encoded together; a reason where it cannot be encoded."""
        known = self.interned.get(told)
        if known is None:
            try:
                self.encoder.encode(self.family, told.attributes, told.next_hop, [b"\0"])
            except CannotBeTold as error:
                return str(error)
            known = told
            self.interned.put(told, told, len(told.attributes.wire))
        return known


class Tables:
    """See the module. `sets` is shared with the sessions, whose attribute sets come here."""

    def __init__(self, sets: AttributeSets) -> None:
        self._sets = sets
        self._local = Local(0, IPv4Address(0))
        self._roles: dict[IPAddress, Role] = {}
        self._audiences: dict[IPAddress, Audience] = {}
        self._policies = Policies()
        self._addresses: frozenset[IPAddress] = frozenset()
        self._mistakes = Importer(Own(), Policies(), lambda _: "")
        self._reflection = Reflection(IPv4Address(0), self._roles, sets)
        self._channels: dict[_Key, _Channel] = {}
        self._joined: dict[IPAddress, tuple[Negotiated, dict[Family, _Channel]]] = {}
        self.rib = Rib(self._judge_import, lambda peer: bool(self._policies.of(peer).imports))

    # Who the peers are.

    def configure(self, plan: ReflectorPlan, policies: Policies) -> None:
        """Peers, roles and filters."""
        local = Local(plan.asn, plan.router_id, plan.cluster_id)
        roles = {peer: role_of(session) for peer, session in plan.sessions.items()}
        refiltered = [peer for peer in roles if self._policies.of(peer).imports != policies.of(peer).imports]
        addresses = frozenset(plan.addresses)
        everything = local != self._local or addresses != self._addresses
        anew = {peer: role for peer, role in self._roles.items() if peer in roles} != {
            peer: role for peer, role in roles.items() if peer in self._roles
        }
        anew = anew or self._local.cluster_id != local.cluster_id
        self._local, self._roles, self._policies, self._addresses = local, roles, policies, addresses
        self._reflection = Reflection(plan.cluster_id, roles, self._sets)
        self._audiences = {
            peer: audience_of(session, policies.of(peer).exports, plan.networks)
            for peer, session in plan.sessions.items()
        }
        if everything:
            self.rib.judge_all_again()
        else:
            self.rib.judge_again(refiltered)
        if anew:
            for channel in self._channels.values():
                self._tell_all(channel)
        self._regroup()

    def _regroup(self) -> None:
        """Peers whose audience is another one now change groups; their sessions stay, and so does what they hold."""
        for peer, (negotiated, channels) in list(self._joined.items()):
            wanted = self._audiences.get(peer)
            if wanted is None or all(channel.audience == wanted for channel in channels.values()):
                continue
            held = {family: channel.group.held(peer) for family, channel in channels.items()}
            self.leave(peer)
            self.join(peer, negotiated, held)

    # What the peers say.

    def _judge_import(self, route: Route, family: Family, nlri: Nlri) -> Route:
        path, prefix = route.path, network_of(family, nlri)
        why_not = unusable(path, self._local) or self._no_next_hop(path.next_hop)
        if why_not is None and isinstance(judged := self._mistakes(path, prefix), str):
            why_not = judged
        if why_not is not None:
            return Route(path, route.attributes, why_not)
        rules = self._policies.of(path.peer.address).imports[prefix.version]
        verdict = rules.judge(before := filter_route(route, family, nlri), path.peer.internal) if rules else None
        if verdict is None or verdict.route == before:
            refused = "" if verdict is None or verdict.accepted else f"rejected by {verdict.rule}"
            left = honoured(path)
            return route if not refused and left is path else Route(left, route.attributes, refused)
        attributes = changed(self._sets, route.attributes, verdict.route)
        changed_path = Path(path.peer, path.next_hop, attributes.path, verdict.route.local_preference)
        return Route(honoured(changed_path), attributes)

    def _no_next_hop(self, next_hop: IPAddress) -> str | None:
        if next_hop in self._addresses:
            return "its next hop is this reflector, which forwards nothing"
        if next_hop.is_link_local:
            return "its next hop is link-local, which means nothing to other peers"
        return None

    def role(self, peer: IPAddress) -> Role:
        """What a configured peer is to us."""
        return self._roles[peer]

    def set_peer(self, peer: Peer) -> None:
        self.rib.set_peer(peer)

    def apply(self, actions: Sequence[Action]) -> int:
        """What becomes of a peer's routes; how many went."""
        gone = 0
        for action in actions:
            match action:
                case MarkStale():
                    self.rib.mark_stale(action.peer, action.family)
                case DropStale():
                    gone += self.rib.drop_stale(action.peer, action.family)
                case DropAll():
                    gone += self.rib.drop(action.peer)
                case FallSilent():
                    gone += self.rib.fall_silent(action.peer, action.dead)
                case _:
                    assert_never(action)
        return gone

    # What the peers are told.

    def join(
        self, peer: IPAddress, negotiated: Negotiated, held: Mapping[Family, Iterable[Nlri]] = MappingProxyType({})
    ) -> None:
        """The session is up, and the peer knows nothing yet but what it holds from the groups it was in."""
        audience = self._audiences[peer]
        channels: dict[Family, _Channel] = {}
        for family in FAMILIES:
            if family in negotiated.families:
                channel = channels[family] = self._channel((negotiated.group, audience, family), negotiated)
                channel.group.join(peer, held.get(family, ()))
        self._joined[peer] = negotiated, channels

    def _channel(self, key: _Key, negotiated: Negotiated) -> _Channel:
        """That of the group, which a first member brings to life."""
        channel = self._channels.get(key)
        if channel is None:
            _, audience, family = key
            encoder = Encoder(negotiated)
            channel = _Channel(key, audience, family, encoder, Group(_OfFamily(encoder, family)))
            self._channels[key] = channel
            self._tell_all(channel)
        return channel

    def leave(self, peer: IPAddress) -> None:
        """The session is gone. Nothing happens to what the peer said."""
        _, channels = self._joined.pop(peer)
        for channel in channels.values():
            channel.group.leave(peer)
            if not channel.group:
                del self._channels[channel.key]

    def choose(self) -> int:
        """Choose best paths where something changed, and tell the groups; how many changed."""
        changes = self.rib.take_changes()
        for channel in self._channels.values():
            tell, family = channel.group.tell, channel.family
            for of, nlri, route in changes:
                if of == family:
                    tell(nlri, None if route is None else self._answer(channel, route, nlri))
            channel.group.compact()
        return len(changes)

    def groups(self, peer: IPAddress) -> list[tuple[Family, Group]]:
        """Those that a peer that is up is in, one a family."""
        joined = self._joined.get(peer)
        return [] if joined is None else [(family, channel.group) for family, channel in joined[1].items()]

    def end_of_rib(self, peer: IPAddress, family: Family) -> bytes:
        _, channels = self._joined[peer]
        return channels[family].encoder.end_of_rib(family)

    def told(self, peer: IPAddress) -> Iterator[tuple[Family, Nlri, Told]]:
        """All that the peer is told."""
        for family, group in self.groups(peer):
            for nlri, told in group.table(peer):
                yield family, nlri, told

    def told_of(self, peer: IPAddress, family: Family, nlri: Nlri) -> Told | str:
        """What the peer is told about a prefix, or why nothing."""
        route = self.rib.best(family).get(nlri)
        if route is None:
            return "there is no path that can be used"
        if route.path.peer.address == peer:
            return "the peer brought the best path itself"
        joined = self._joined.get(peer)
        if joined is None:
            return "the session is down"
        if family not in joined[1]:
            return f"{family} was not agreed on"
        channel = joined[1][family]
        answer = self._reflection.judge(channel.audience, route, family, nlri)
        return answer if isinstance(answer, str) else channel.intern(answer)

    def size(self) -> int:
        """How many prefixes have a best path."""
        return sum(len(self.rib.best(family)) for family in FAMILIES)

    def _tell_all(self, channel: _Channel) -> None:
        channel.answers.clear()
        for nlri, route in self.rib.best(channel.family).items():
            channel.group.tell(nlri, self._answer(channel, route, nlri))

    def _answer(self, channel: _Channel, route: Route, nlri: Nlri) -> Told | None:
        filtered = bool(channel.audience.exports)
        answer = None if filtered else channel.answers.get(route)
        if answer is None:
            answer = self._reflection.judge(channel.audience, route, channel.family, nlri)
            if not isinstance(answer, str):
                answer = channel.intern(answer)
            if not filtered:
                channel.answers.put(route, answer, len(route.attributes.wire))
        return None if isinstance(answer, str) else answer


class _OfFamily(Struct, frozen=True):
    """The encoder of one family, as a group wants it."""

    encoder: Encoder
    family: Family

    def encode(self, attributes: AttributeSet, next_hop: IPAddress, prefixes: Sequence[Nlri]) -> Sequence[bytes]:
        return self.encoder.encode(self.family, attributes, next_hop, prefixes)

    def withdraw(self, prefixes: Sequence[Nlri]) -> Sequence[bytes]:
        return self.encoder.withdraw(self.family, prefixes)
