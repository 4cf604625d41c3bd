"""Keep one owner's routes in the kernel equal to the desired ones.

The owner's routes are those of one protocol, metric and table: such a route that nobody desires is a leftover and is
removed; any other route is somebody else's and is never touched, even where it stands in the way (that is a failure,
reported and tried again). Nothing is written before the kernel has been read.

`RouteTable` decides and is synchronous; `KernelRoutes` is the adapter. The work for a change is proportional to the
change. Both agents that write routes use this: felix for workloads and blocks, the BGP agent for learnt routes."""

import errno
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from msgspec import Struct, field

from weft.netlink.message import AF_INET, AF_INET6, NLM_F_APPEND, NLM_F_REPLACE, Message
from weft.netlink.route import (
    RTM_DELROUTE,
    RTM_NEWROUTE,
    IPNetwork,
    PackedPrefix,
    RouteOwner,
    RouteReader,
    RouteWriter,
    Target,
    check_ipv6_hops,
    decode_route,
    dump_routes,
    look_up_route,
    pack,
    unpack,
)
from weft.netlink.socket import DumpInterruptedError, NetlinkSocket

BATCH = 500
_MOST_LOOK_UPS = 64
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 30.0


class RouteChanges(Struct, frozen=True):
    """What to write. `create` must not overwrite anything; `replace` and `delete` name routes that are ours."""

    create: Mapping[PackedPrefix, Target] = field(default_factory=dict)
    replace: Mapping[PackedPrefix, Target] = field(default_factory=dict)
    delete: Sequence[PackedPrefix] = ()


class RouteRefusal(Struct, frozen=True):
    """What the kernel said to one write."""

    prefix: PackedPrefix
    errno: int
    text: str


class RouteFailure(Struct, frozen=True):
    """A route that is not as desired. It stays pending and is tried again at `retry_at_s`."""

    prefix: IPNetwork
    target: Target | None
    errno: int
    text: str
    attempts: int
    retry_at_s: float


class RouteKernel(Protocol):
    """The kernel's routes of one owner."""

    def read(self) -> dict[PackedPrefix, Target]:
        """All of them. Raises OSError or DumpInterruptedError."""

    def look_up(self, prefixes: Sequence[PackedPrefix]) -> dict[PackedPrefix, Target]:
        """Those of these prefixes that surely have a route of ours; one that is missing here may have one all the
        same. Takes no longer when there are many routes. Raises OSError."""

    def apply(self, changes: RouteChanges) -> list[RouteRefusal]:
        """Write, and return what was refused; everything else is in the kernel."""


class KernelRoutes:
    """The real kernel, in the network namespace of `socket`."""

    def __init__(self, socket: NetlinkSocket, owner: RouteOwner) -> None:
        self._socket = socket
        self._owner = owner
        self._writer = RouteWriter(owner)
        self._reader = RouteReader(owner)

    def read(self) -> dict[PackedPrefix, Target]:
        found: dict[PackedPrefix, Target] = {}
        for family in (AF_INET, AF_INET6):
            try:
                answers = self._socket.dump(dump_routes(family, self._owner))
            except OSError as error:
                if error.errno != errno.ENOENT:  # a table that nobody has used yet
                    raise
                continue
            found.update(self._reader.read(answers))
        return found

    def look_up(self, prefixes: Sequence[PackedPrefix]) -> dict[PackedPrefix, Target]:
        found = self._reader.read(self._socket.exchange([look_up_route(packed) for packed in prefixes]).replies)
        return {packed: found[packed] for packed in prefixes if packed in found}

    def apply(self, changes: RouteChanges) -> list[RouteRefusal]:
        writer = self._writer
        refused = self._send(list(changes.delete), writer.delete(changes.delete))
        refused = [refusal for refusal in refused if refusal.errno != errno.ESRCH]  # gone already
        refused += self._send(list(changes.replace), writer.replace(changes.replace.items()))
        refused += self._send(list(changes.create), writer.add(changes.create.items()))
        return refused

    def _send(self, prefixes: list[PackedPrefix], messages: list[bytes]) -> list[RouteRefusal]:
        refused: list[RouteRefusal] = []
        for start in range(0, len(messages), BATCH):
            for failure in self._socket.request(messages[start : start + BATCH]):
                refused.append(RouteRefusal(prefixes[start + failure.index], failure.errno, failure.text))
        return refused


class _LinksOf:
    """The links that a target names, worked out once for many routes in a row to the same target."""

    def __init__(self) -> None:
        self._target: Target | None = None
        self._links: tuple[int, ...] = ()

    def __call__(self, target: Target) -> tuple[int, ...]:
        if target is not self._target:
            self._target = target
            self._links = tuple({hop.link for hop in target.hops if hop.link is not None})
        return self._links


@lru_cache(maxsize=4096)
def _fulfils(actual: Target, desired: Target) -> bool:
    """Is this what was asked for? A desired hop that names no link leaves the choice to the kernel."""
    if actual[1:] != desired[1:] or len(actual.hops) != len(desired.hops):
        return False
    left = list(actual.hops)
    # The particular hops choose first, so that one with any link does not take theirs.
    for wanted in sorted(desired.hops, key=lambda hop: hop.link is None):
        for hop in left:
            if hop == wanted or (wanted.link is None and hop._replace(link=None) == wanted):
                left.remove(hop)
                break
        else:
            return False
    return True


class RouteTable:
    """The state machine: desired routes in, `apply` writes what differs.

    Tell it what should be (`desire`, `desire_only`) and what happened (`on_notifications`, `on_link_change`,
    `resync`), and call `apply` afterwards and again at `retry_at_s`."""

    def __init__(self, kernel: RouteKernel, owner: RouteOwner) -> None:
        self._kernel = kernel
        self._owner = owner
        self._desired: dict[PackedPrefix, Target] = {}
        self._actual: dict[PackedPrefix, Target] = {}
        # A set, for its order by hash: routes written in the order of their prefixes make the kernel's trie grow and
        # shrink again and again, and deletions take twice as long.
        self._pending: set[PackedPrefix] = set()
        self._failures: dict[PackedPrefix, RouteFailure] = {}
        self._by_link: dict[int, set[PackedPrefix]] = {}
        self._in_doubt: set[PackedPrefix] = set()
        self._must_read = True
        self._read_again_at_s = 0.0

    @property
    def failures(self) -> list[RouteFailure]:
        """Every route that is known not to be as desired."""
        return list(self._failures.values())

    def retry_at_s(self) -> float | None:
        """When `apply` has something to try again; None if nothing failed."""
        times = [failure.retry_at_s for failure in self._failures.values()]
        if self._must_read and self._read_again_at_s:
            times.append(self._read_again_at_s)
        return min(times, default=None)

    @property
    def has_nothing(self) -> bool:
        """No route is desired, known to be there, or still to be looked at: nothing would be missed without it."""
        return not (self._must_read or self._desired or self._actual or self._pending)

    def actual(self) -> dict[IPNetwork, Target]:
        """Our routes in the kernel as far as known."""
        return {unpack(packed): target for packed, target in self._actual.items()}

    def desire(self, changes: Mapping[IPNetwork, Target | None]) -> None:
        """Change what is desired; None withdraws a prefix. Raises ValueError for an IPv6 route with an IPv4 gateway."""
        self._set_all((pack(prefix), target) for prefix, target in changes.items())

    def desire_only(self, routes: Mapping[IPNetwork, Target]) -> None:
        """These routes and no others are desired."""
        packed = {pack(prefix): target for prefix, target in routes.items()}
        self._set_all([(known, None) for known in self._desired if known not in packed])
        self._set_all(packed.items())

    def _set_all(self, changes: Iterable[tuple[PackedPrefix, Target | None]]) -> None:
        desired, pending, failures = self._desired, self._pending, self._failures
        links_of = _LinksOf()
        for packed, target in changes:
            old = desired.get(packed)
            if old is target:
                continue
            if target is not None and len(packed) == 17:
                check_ipv6_hops(target)
            if old is not None:
                for link in links_of(old):
                    self._by_link[link].discard(packed)
                    if not self._by_link[link]:
                        del self._by_link[link]
            if target is None:
                del desired[packed]
            else:
                desired[packed] = target
                for link in links_of(target):
                    self._by_link.setdefault(link, set()).add(packed)
            pending.add(packed)
            if failures and old != target:
                failures.pop(packed, None)

    def resync(self) -> None:
        """The kernel may have changed in a way we were not told of (notifications lost, an uplink or an address went
        or came): read everything before the next write, and try again at once what failed."""
        self._must_read = True
        self._read_again_at_s = 0.0
        self._failures.clear()

    def on_link_change(self, link: int) -> None:
        """A link went down or came up. The kernel drops the IPv4 routes of a link without a notification, so those that
        name this link are looked up again. Where routes leave the link to the kernel, call `resync`."""
        users = self._by_link.get(link)
        if not users:
            return
        for packed in users:
            self._in_doubt.add(packed)
            self._failures.pop(packed, None)
        if len(self._in_doubt) > _MOST_LOOK_UPS:
            self._must_read = True

    def on_notifications(self, notifications: Iterable[Message]) -> None:
        """What others did to routes (RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE). Our own echoes do no harm, but cost."""
        for notification in notifications:
            if notification.kind not in (RTM_NEWROUTE, RTM_DELROUTE):
                continue
            route = decode_route(notification)
            if route is None or not self._owner.in_place_of(route):
                continue
            packed = pack(route.destination)
            created = notification.kind == RTM_NEWROUTE
            if self._owner.owns(route):
                self._on_ours(packed, route.target if created else None, notification.flags)
            elif created and notification.flags & NLM_F_REPLACE and self._actual.pop(packed, None) is not None:
                self._pending.add(packed)  # a replace ignores the protocol: ours is gone
            elif not created:
                self._failures.pop(packed, None)  # perhaps it was what stood in our way

    def _on_ours(self, packed: PackedPrefix, target: Target | None, flags: int) -> None:
        if flags & NLM_F_APPEND:
            self._must_read = True  # only the added hop is told
        elif target is not None:
            self._actual[packed] = target
        else:
            self._actual.pop(packed, None)
        self._pending.add(packed)

    def apply(self, now_s: float) -> list[RouteFailure]:
        """Write what differs and is due; returns what the kernel refused now (`failures` has the earlier ones too).

        Raises OSError or DumpInterruptedError when the kernel cannot be read; then nothing was written."""
        if self._must_read and now_s < self._read_again_at_s:
            return []
        try:
            self._read()
        except (OSError, DumpInterruptedError):
            self._must_read, self._read_again_at_s = True, now_s + FIRST_RETRY_S
            raise
        changes = self._changes(now_s)
        refused = {refusal.prefix: refusal for refusal in self._kernel.apply(changes)}
        self._note_written(changes, refused)
        return [self._note_refused(refusal, now_s) for refusal in refused.values()]

    def _read(self) -> None:
        if self._must_read:
            self._actual = self._kernel.read()
            self._must_read = False
            self._in_doubt.clear()
            self._pending.update(self._actual.keys() - self._desired.keys())
            actual, pending = self._actual, self._pending
            for packed, target in self._desired.items():
                if actual.get(packed) is not target:
                    pending.add(packed)
            return
        if self._in_doubt:
            found = self._kernel.look_up(list(self._in_doubt))
            for packed in self._in_doubt:
                self._actual.pop(packed, None)
            self._actual.update(found)
            self._pending.update(self._in_doubt)
            self._in_doubt.clear()

    def _changes(self, now_s: float) -> RouteChanges:
        create: dict[PackedPrefix, Target] = {}
        replace: dict[PackedPrefix, Target] = {}
        delete: list[PackedPrefix] = []
        waiting: set[PackedPrefix] = set()
        desired, known, failures = self._desired, self._actual, self._failures
        for packed in self._pending:
            if failures and packed in failures and failures[packed].retry_at_s > now_s:
                waiting.add(packed)
                continue
            wanted, actual = desired.get(packed), known.get(packed)
            if wanted is None:
                if actual is not None:
                    delete.append(packed)
            elif actual is None:
                create[packed] = wanted
            elif actual is not wanted:
                if _fulfils(actual, wanted):
                    known[packed] = wanted
                else:
                    replace[packed] = wanted
        # What was due and needs nothing any more has come right by other means.
        attempted = {*create, *replace, *delete} if failures else set()
        for packed in [one for one in failures if one not in waiting]:
            if packed not in attempted:
                del failures[packed]
        self._pending = waiting
        return RouteChanges(create, replace, delete)

    def _note_written(self, changes: RouteChanges, refused: Mapping[PackedPrefix, RouteRefusal]) -> None:
        for written in (changes.create, changes.replace):
            if refused:
                written = {packed: target for packed, target in written.items() if packed not in refused}
            self._actual.update(written)
            for packed in written if self._failures else ():
                self._failures.pop(packed, None)
        for packed in changes.delete:
            if packed not in refused:
                self._actual.pop(packed, None)
                self._failures.pop(packed, None)

    def _note_refused(self, refusal: RouteRefusal, now_s: float) -> RouteFailure:
        earlier = self._failures.get(refusal.prefix)
        attempts = earlier.attempts + 1 if earlier else 1
        if refusal.errno == errno.EEXIST and attempts == 1:
            self._must_read = True  # ours after all, or somebody else's: only the kernel knows
        failure = RouteFailure(
            unpack(refusal.prefix),
            self._desired.get(refusal.prefix),
            refusal.errno,
            refusal.text,
            attempts,
            now_s + min(FIRST_RETRY_S * 2 ** (attempts - 1), LONGEST_RETRY_S),
        )
        self._failures[refusal.prefix] = failure
        self._pending.add(refusal.prefix)
        return failure
