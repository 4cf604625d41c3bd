"""What nft and the kernel ask of names, texts and marks, for the values of `matches`, `actions` and `values`."""

import re

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9/\-_.]{0,199}\Z")
_INTERFACE = re.compile(r"[^\s/*\"]{1,15}\Z")
PRINTABLE = re.compile(r"[^\"\\\x00-\x1f]*\Z")


class InvalidValueError(ValueError):
    """The kernel or nft would refuse this: the renderer that built it has a defect."""


def require(condition: bool, problem: str) -> None:
    if not condition:
        raise InvalidValueError(problem)


def require_name(name: str) -> None:
    require(_NAME.match(name) is not None, f"not a name nft accepts: {name!r}")


def require_interface(name: str, wildcard: bool) -> None:
    plain = name[:-1] if wildcard and name.endswith("*") else name
    require(_INTERFACE.match(plain) is not None, f"not an interface name: {name!r}")


def require_masked(value: int, mask: int) -> None:
    require(0 < mask <= 0xFFFFFFFF, f"not a mark's mask: {mask:#x}")
    require(value & ~mask == 0 and value >= 0, f"mark {value:#x} has bits outside its mask {mask:#x}")
