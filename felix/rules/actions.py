"""What a rule of the table `inet weft` does with a packet, as frozen values: verdicts, and actions beside them.

Part of `values`, which names everything here, too. An action that the kernel would refuse by itself cannot be built;
whether statements go together is for `values.Rule` to say.

Source of the terms: nft(8)."""

from msgspec import Struct

from felix.rules.matches import Way
from felix.rules.required import PRINTABLE, require, require_masked, require_name
from weft.model.address import IPAddress

# --- verdicts -------------------------------------------------------------------------------------------------


class Accept(Struct, frozen=True):
    """Ends this base chain; the other base chains of the hook still see the packet."""


class Drop(Struct, frozen=True):
    pass


class Return(Struct, frozen=True):
    pass


class Jump(Struct, frozen=True):
    chain: str

    def __post_init__(self) -> None:
        require_name(self.chain)


class Goto(Struct, frozen=True):
    chain: str

    def __post_init__(self) -> None:
        require_name(self.chain)


Verdict = Accept | Drop | Return | Jump | Goto


# --- actions --------------------------------------------------------------------------------------------------


class Counter(Struct, frozen=True):
    """Counts what reaches it. A chain that is rewritten counts from zero again."""


class CountIn(Struct, frozen=True):
    """Counts what reaches it in the named counter, which several rules may share and which outlives them."""

    counter: str

    def __post_init__(self) -> None:
        require_name(self.counter)


LIMIT_UNITS = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}


class Limit(Struct, frozen=True):
    """Goes on with so many packets in so many seconds (one, a minute, an hour, a day), and with `burst` at once;
    the rule ends for the others."""

    packets: int
    burst: int
    seconds: int = 1

    def __post_init__(self) -> None:
        require(0 < self.packets < 1 << 32, f"not a rate: {self.packets}")
        require(self.seconds in LIMIT_UNITS, f"not a unit of a rate: {self.seconds} s")
        require(0 < self.burst < 1 << 32, f"not a burst: {self.burst}")


class Log(Struct, frozen=True):
    """To the kernel log, or to an nflog group: there `snap_bytes` of a packet, None: all of it."""

    prefix: str = ""
    group: int | None = None
    snap_bytes: int | None = None

    def __post_init__(self) -> None:
        require(len(self.prefix.encode()) <= 127, f"log prefix of more than 127 bytes: {self.prefix!r}")
        require(PRINTABLE.match(self.prefix) is not None, f"log prefix with a quote or backslash: {self.prefix!r}")
        require(self.group is None or 0 <= self.group <= 65535, f"not an nflog group: {self.group}")
        require(self.snap_bytes is None or self.group is not None, "the kernel log takes no part of a packet")
        require(self.snap_bytes is None or 0 < self.snap_bytes <= 65535, f"not a length: {self.snap_bytes}")


class SetMark(Struct, frozen=True):
    """`meta mark set (mark and not mask) or value`."""

    value: int
    mask: int = 0xFFFFFFFF

    def __post_init__(self) -> None:
        require_masked(self.value, self.mask)


class SetConntrackMark(Struct, frozen=True):
    value: int
    mask: int = 0xFFFFFFFF

    def __post_init__(self) -> None:
        require_masked(self.value, self.mask)


class Masquerade(Struct, frozen=True):
    """Ends the rule. Only in nat chains of postrouting."""

    fully_random: bool = False


class SourceNat(Struct, frozen=True):
    """`snat to address`. Ends the rule. Only in nat chains of postrouting."""

    address: IPAddress


class NoTrack(Struct, frozen=True):
    """Only in chains of priority raw."""


class Reject(Struct, frozen=True):
    """`reject with icmpx admin-prohibited`, or a TCP reset (needs L4Protocol TCP before it). Ends the rule."""

    tcp_reset: bool = False


class InterfaceVerdict(Struct, frozen=True):
    """`iifname vmap @map`: the verdict the map has for the interface; goes on if it has none."""

    way: Way
    map: str

    def __post_init__(self) -> None:
        require_name(self.map)


Action = (
    Counter
    | CountIn
    | Limit
    | Log
    | SetMark
    | SetConntrackMark
    | Masquerade
    | SourceNat
    | NoTrack
    | Reject
    | InterfaceVerdict
)
FINAL = (Accept, Drop, Return, Jump, Goto, Masquerade, SourceNat, Reject, InterfaceVerdict)
