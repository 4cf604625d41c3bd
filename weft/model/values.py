"""Small values that Calico writes as a number or a string: ports, protocols, AS numbers, durations.

They are parsed here once, refuse what cannot be meant, and know the JSON form Calico writes."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

PROTOCOL_NUMBERS: Final = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132, "UDPLite": 136}
_PROTOCOL_NAMES: Final = {name.lower(): name for name in PROTOCOL_NUMBERS}
_PORT_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,128}\Z")
_PORT_RANGE: Final = re.compile(r"(\d+):(\d+)\Z")
_GO_DURATION: Final = re.compile(r"([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+\Z")
_GO_UNIT: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


class _Scalar:
    """A frozen value made of its slots, in order.

    Not a msgspec struct or a dataclass: those decode from a JSON object, these from a number or a string."""

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def _set(self, **fields: object) -> None:
        """For constructors only."""
        for field, value in fields.items():
            object.__setattr__(self, field, value)

    def _fields(self) -> tuple[Any, ...]:
        return tuple(getattr(self, field) for field in self.__match_args__)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), self._fields()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._fields()))})"


class AsNumber(int):
    """A 4-byte AS number; reads `64512`, `"64512"` and `"1.10"`, writes the plain number."""

    @classmethod
    def parse(cls, raw: object) -> AsNumber:
        expected = "an AS number from 0 to 4294967295, or its dotted form such as 1.10"
        if isinstance(raw, int) and not isinstance(raw, bool):
            number = raw
        elif isinstance(raw, str):
            high, dot, low = raw.partition(".")
            if not (high.isascii() and high.isdigit() and (not dot or (low.isascii() and low.isdigit()))):
                raise ValueError(expected)
            if dot and (int(high) > 0xFFFF or int(low) > 0xFFFF):
                raise ValueError(expected)
            number = (int(high) << 16) + int(low) if dot else int(high)
        else:
            raise ValueError(expected)
        if not 0 <= number <= 0xFFFFFFFF:
            raise ValueError(expected)
        return cls(number)

    def to_json(self) -> int:
        return int(self)


if TYPE_CHECKING:
    Number = float
else:

    class Number(float):
        """A float that is written without a fraction where it has none, as Go does."""

        @classmethod
        def parse(cls, raw: object) -> Number:
            if isinstance(raw, (int, float)) and not isinstance(raw, bool):
                try:
                    number = cls(raw)
                except OverflowError:
                    number = cls("inf")
                if math.isfinite(number):
                    return number
            raise ValueError("a finite number")

        def to_json(self) -> int | float:
            return int(self) if self.is_integer() else float(self)


class Protocol(_Scalar):
    """An IP protocol; `name` is "" where Calico was given a number. Compare by `number`."""

    __slots__ = ("name", "number")
    __match_args__ = ("number", "name")
    number: int
    name: str

    def __init__(self, number: int, name: str = "") -> None:
        if not 1 <= number <= 255:
            raise ValueError("a protocol number from 1 to 255")
        if name and PROTOCOL_NUMBERS.get(name) != number:
            raise ValueError(f"one of {', '.join(PROTOCOL_NUMBERS)}")
        self._set(number=number, name=name)

    @classmethod
    def parse(cls, raw: object) -> Protocol:
        """`"TCP"`, `"tcp"` (as Calico before v3 wrote it), `6` or `"6"`."""
        if isinstance(raw, int) and not isinstance(raw, bool):
            return cls(raw)
        if isinstance(raw, str):
            if raw.isascii() and raw.isdigit():
                return cls(int(raw))
            name = _PROTOCOL_NAMES.get(raw.lower())
            if name is not None:
                return cls(PROTOCOL_NUMBERS[name], name)
        raise ValueError(f"one of {', '.join(PROTOCOL_NUMBERS)}, or a protocol number from 1 to 255")

    @property
    def has_ports(self) -> bool:
        """TCP, UDP and SCTP: what Calico accepts ports with."""
        return self.number in (6, 17, 132)

    def to_json(self) -> int | str:
        return self.name or self.number

    def __str__(self) -> str:
        return self.name or str(self.number)


class Port(_Scalar):
    """A range of ports (`first` to `last`, both included), or the name of an endpoint's port.

    Port 0 is left to validation: Calico stores it and matches nothing real with it."""

    __slots__ = ("first", "last", "name")
    __match_args__ = ("first", "last", "name")
    first: int
    last: int
    name: str

    def __init__(self, first: int = 0, last: int = 0, name: str = "") -> None:
        if name:
            if first or last or not _PORT_NAME.match(name):
                raise ValueError("a port name of letters, digits, '_', '.' and '-'")
        elif not 0 <= first <= last <= 65535:
            raise ValueError("a port from 1 to 65535, or a range with the smaller port first")
        self._set(first=first, last=last, name=name)

    @classmethod
    def parse(cls, raw: object) -> Port:
        """`80`, `"80"`, `"80:90"` or a name."""
        if isinstance(raw, int) and not isinstance(raw, bool):
            return cls(raw, raw)
        if not isinstance(raw, str):
            raise ValueError('a port number, a range such as "8000:8100", or a port name')
        if raw.isascii() and raw.isdigit():
            return cls(int(raw), int(raw))
        ports = _PORT_RANGE.match(raw)
        if ports:
            return cls(int(ports[1]), int(ports[2]))
        if not raw:
            raise ValueError('a port number, a range such as "8000:8100", or a port name')
        return cls(name=raw)

    @property
    def is_named(self) -> bool:
        return bool(self.name)

    def to_json(self) -> int | str:
        if self.name:
            return self.name
        return self.first if self.first == self.last else f"{self.first}:{self.last}"

    def __str__(self) -> str:
        return str(self.to_json())


class KubernetesPort(Port):
    """A port as Kubernetes' NetworkPolicy has it: a number, or the name of a container's port. "80" is no number."""

    __slots__ = ()

    @classmethod
    def parse(cls, raw: object) -> KubernetesPort:
        """`80` or a name."""
        if isinstance(raw, int) and not isinstance(raw, bool):
            if not 0 <= raw <= 65535:
                raise ValueError("a port from 1 to 65535")
            return cls(raw, raw)
        if isinstance(raw, str) and raw:
            return cls(name=raw)
        raise ValueError("a port number, or the name of a container's port")


class Duration(timedelta):
    """A span of time in Kubernetes' spelling (`5s`, `1m30s`, `500ms`), to the microsecond."""

    @classmethod
    def parse(cls, raw: object) -> Duration:
        if isinstance(raw, str):
            if raw in ("0", "+0", "-0"):
                return cls()
            if _GO_DURATION.match(raw):
                seconds = sum(float(count) * _SECONDS[unit] for count, unit in _GO_UNIT.findall(raw))
                return cls(seconds=-seconds if raw.startswith("-") else seconds)
        raise ValueError("a duration such as 5s, 1m30s or 500ms")

    def to_json(self) -> str:
        """Go's canonical form: hours, minutes and seconds; below one second the largest fitting unit."""
        micros = (self.days * 86400 + self.seconds) * 1_000_000 + self.microseconds
        sign, micros = ("-", -micros) if micros < 0 else ("", micros)
        if micros == 0:
            return "0s"
        if micros < 1000:
            return f"{sign}{micros}µs"
        if micros < 1_000_000:
            return f"{sign}{_decimal(micros, 1000)}ms"
        minutes, micros = divmod(micros, 60_000_000)
        hours, minutes = divmod(minutes, 60)
        text = f"{_decimal(micros, 1_000_000)}s"
        if hours or minutes:
            text = f"{minutes}m{text}"
        return f"{sign}{hours}h{text}" if hours else f"{sign}{text}"

    def __str__(self) -> str:
        return self.to_json()


def _decimal(count: int, unit: int) -> str:
    """`count`/`unit` without trailing zeros."""
    whole, rest = divmod(count, unit)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0") if rest else str(whole)


DSCP_NAMES: Final = {
    "DF": 0, "EF": 46, "AF11": 10, "AF12": 12, "AF13": 14, "AF21": 18, "AF22": 20, "AF23": 22,
    "AF31": 26, "AF32": 28, "AF33": 30, "AF41": 34, "AF42": 36, "AF43": 38, "CS0": 0, "CS1": 8, "CS2": 16,
    "CS3": 24, "CS4": 32, "CS5": 40, "CS6": 48,
}  # fmt: skip


class Dscp(_Scalar):
    """A DSCP mark, 0 to 63; `name` keeps the spelling where it was given by name (RFC 2474, 2597, 3246)."""

    __slots__ = ("name", "value")
    __match_args__ = ("value", "name")
    value: int
    name: str

    def __init__(self, value: int, name: str = "") -> None:
        if not 0 <= value <= 63:
            raise ValueError("a DSCP value from 0 to 63, or its name such as EF or AF11")
        self._set(value=value, name=name)

    @classmethod
    def parse(cls, raw: object) -> Dscp:
        if isinstance(raw, int) and not isinstance(raw, bool):
            return cls(raw)
        if isinstance(raw, str):
            if raw.isascii() and raw.isdigit():
                return cls(int(raw))
            if raw.strip().upper() in DSCP_NAMES:
                return cls(DSCP_NAMES[raw.strip().upper()], raw.strip().upper())
        raise ValueError("a DSCP value from 0 to 63, or its name such as EF or AF11")

    def to_json(self) -> int | str:
        return self.name or self.value
