"""Path attributes as the reflector keeps them: one frozen value for each distinct set.

A set carries what the decision needs and the bytes that are passed on, unknown attributes included, in one canonical
form: ascending, AS numbers of four bytes, next hop left out, because it belongs to a route's prefixes. Equal sets
are one object while anybody holds it: compare and group them by identity."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from operator import itemgetter
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

from msgspec.structs import replace

from bird_agent.exabgp.events import PathAttributes
from bird_agent.reflector import as_path
from bird_agent.reflector.remembered import Remembered

ORIGIN: Final = 1
AS_PATH: Final = 2
NEXT_HOP: Final = 3
MED: Final = 4
LOCAL_PREF: Final = 5
ATOMIC_AGGREGATE: Final = 6
AGGREGATOR: Final = 7
COMMUNITIES: Final = 8
ORIGINATOR_ID: Final = 9
CLUSTER_LIST: Final = 10
MP_REACH: Final = 14
MP_UNREACH: Final = 15
EXTENDED_COMMUNITIES: Final = 16
AS4_PATH: Final = 17
AS4_AGGREGATOR: Final = 18
IPV6_EXTENDED_COMMUNITIES: Final = 25
LARGE_COMMUNITIES: Final = 32

OPTIONAL: Final = 0x80
TRANSITIVE: Final = 0x40
PARTIAL: Final = 0x20
EXTENDED_LENGTH: Final = 0x10

DEFAULT_LOCAL_PREFERENCE: Final = 100
_CODE: Final = itemgetter(1)


class RawAttribute(NamedTuple):
    """One attribute as it is passed on. `flags` without the bit that says how its length is written."""

    flags: int
    code: int
    value: bytes

    def encoded(self) -> bytes:
        flags, code, value = self
        size = len(value)
        if size > 255:
            return struct.pack("!BBH", flags | EXTENDED_LENGTH, code, size) + value
        return bytes((flags, code, size)) + value


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class AttributeSet:
    """See the module. Made by `AttributeSets` alone. `wire` is all attributes; `split` the end of its ORIGIN and
    AS_PATH, behind which NEXT_HOP belongs."""

    path: PathAttributes
    wire: bytes
    split: int

    def raw(self) -> list[RawAttribute]:
        """The attributes one by one."""
        return split_attributes(self.wire)[0]


def split_attributes(field: bytes) -> tuple[list[RawAttribute], int]:
    """The attributes of a field as far as they can be told apart, and where that ends."""
    found = []
    position, size = 0, len(field)
    while size - position >= 3:
        flags = field[position]
        if flags & EXTENDED_LENGTH:
            if size - position < 4:
                break
            begin = position + 4
            end = begin + (field[position + 2] << 8 | field[position + 3])
        else:
            begin = position + 3
            end = begin + field[position + 2]
        if end > size:
            break
        found.append(RawAttribute(flags & ~EXTENDED_LENGTH, field[position + 1], field[begin:end]))
        position = end
    return found, position


class AttributeSets:
    """Every set there is in a process, once. Sessions that exchange routes share one of these."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[bytes, AttributeSet] = WeakValueDictionary()
        self._derived: Remembered[tuple[object, ...], AttributeSet] = Remembered()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, path: PathAttributes, raw: Iterable[RawAttribute]) -> AttributeSet:
        """The set of these attributes. `path` must say the same as `raw`, whose AS numbers have four bytes."""
        return self.described(raw, lambda: path)

    def described(self, raw: Iterable[RawAttribute], describe: Callable[[], PathAttributes]) -> AttributeSet:
        """As `of`, with the path only made where the set is new."""
        parts = [each.encoded() for each in sorted(raw, key=_CODE)]
        wire = b"".join(parts)
        known = self._known.get(wire)
        if known is None:
            before = [part for part in parts if part[1] < NEXT_HOP]
            known = self._known[wire] = AttributeSet(describe(), wire, len(b"".join(before)))
        return known

    def reflected(self, attributes: AttributeSet, originator: IPv4Address, cluster: IPv4Address) -> AttributeSet:
        """As it is reflected: ORIGINATOR_ID if it has none, our cluster before the others (RFC 4456 8)."""
        return self._derive((attributes, originator, cluster), lambda: self._reflected(attributes, originator, cluster))

    def exported(self, attributes: AttributeSet, local_as: int) -> AttributeSet:
        """As it is told to an external peer: our AS before the others, and what stays within an AS left out
        (RFC 4271 5.1, RFC 4456 8)."""
        return self._derive((attributes, local_as), lambda: self._exported(attributes, local_as))

    def imported(self, attributes: AttributeSet, local_preference: int) -> AttributeSet:
        """With a local preference, as what was learnt outside is told within the AS (RFC 4271 5.1.5)."""
        key = (attributes, "preference", local_preference)
        return self._derive(key, lambda: self._with_preference(attributes, local_preference))

    def _derive(self, key: tuple[object, ...], make: Callable[[], AttributeSet]) -> AttributeSet:
        known = self._derived.get(key)
        if known is None:
            known = make()
            self._derived.put(key, known, len(known.wire))
        return known

    def _reflected(self, attributes: AttributeSet, originator: IPv4Address, cluster: IPv4Address) -> AttributeSet:
        path = attributes.path
        origin = path.originator_id or originator
        clusters = (cluster, *path.cluster_list)
        kept = [each for each in attributes.raw() if each.code not in (ORIGINATOR_ID, CLUSTER_LIST)]
        kept.append(RawAttribute(OPTIONAL, ORIGINATOR_ID, origin.packed))
        kept.append(RawAttribute(OPTIONAL, CLUSTER_LIST, b"".join(each.packed for each in clusters)))
        return self.described(kept, lambda: replace(path, originator_id=origin, cluster_list=clusters))

    def _exported(self, attributes: AttributeSet, local_as: int) -> AttributeSet:
        segments = as_path.prepended(attributes.path.as_path, local_as)
        inside = (AS_PATH, MED, LOCAL_PREF, ORIGINATOR_ID, CLUSTER_LIST)
        kept = [each for each in attributes.raw() if each.code not in inside]
        kept.append(RawAttribute(TRANSITIVE, AS_PATH, as_path.written(segments)))
        gone: dict[str, Any] = {"med": None, "local_preference": None, "originator_id": None, "cluster_list": ()}
        return self.described(kept, lambda: replace(attributes.path, as_path=segments, **gone))

    def _with_preference(self, attributes: AttributeSet, preference: int) -> AttributeSet:
        kept = [each for each in attributes.raw() if each.code != LOCAL_PREF]
        kept.append(RawAttribute(TRANSITIVE, LOCAL_PREF, struct.pack("!I", preference)))
        return self.described(kept, lambda: replace(attributes.path, local_preference=preference))
