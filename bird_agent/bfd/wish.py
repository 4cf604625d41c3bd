"""What an administrator asks of BFD in words, and what that means with the secrets at hand.

Pure. `100ms x 3 multihop with keyed-sha1 key 2 from bfd/new, key 1 from bfd/old`: interval, multiplier, several hops
also towards a neighbour, and how packets are authenticated. A path that was to be watched with authentication is not
watched without it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from bird_agent.bfd.auth import Authentication, AuthType, Key
from bird_agent.bfd.session import BfdSettings
from bird_agent.bfd.wire import Watch
from bird_agent.session_config import Password, SecretKey

_WISH: Final = re.compile(r"(\d+)(ms|s)(?:\s*x\s*(\d+))?(\s+multihop)?(?:\s+with\b(.*))?", re.ASCII)
_KEY: Final = re.compile(r"key\s+(\d+)\s+from\s+([^\s/]+)/([^\s/]+)", re.ASCII)
_TYPES: Final = {str(each): each for each in AuthType}


class AuthenticationWish(Struct, frozen=True):
    """Keys by number, as references to secrets; packets are sent with the first."""

    type: AuthType
    keys: tuple[tuple[int, SecretKey], ...]


class BfdWish(Struct, frozen=True):
    """What an administrator asks for."""

    settings: BfdSettings
    multihop: bool = False
    authentication: AuthenticationWish | None = None

    @property
    def secrets(self) -> frozenset[SecretKey]:
        return (
            frozenset() if self.authentication is None else frozenset(secret for _, secret in self.authentication.keys)
        )


def parse_wish(text: str) -> BfdWish:
    """`100ms x 3`, `1s`, `300ms x 3 multihop`, `1s with keyed-sha1 key 1 from bfd/tor`. Raises ValueError."""
    match = _WISH.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not an interval and a multiplier, such as 100ms x 3")
    interval_us = int(match[1]) * (1000 if match[2] == "ms" else 1_000_000)
    authentication = None if match[5] is None else _authentication(match[5])
    return BfdWish(BfdSettings(interval_us, int(match[3] or 3)), match[4] is not None, authentication)


def _authentication(text: str) -> AuthenticationWish:
    name, _, rest = text.strip().partition(" ")
    if name not in _TYPES:
        raise ValueError(f"{name!r} is no authentication: {', '.join(_TYPES)} are")
    keys: dict[int, SecretKey] = {}
    for part in rest.split(","):
        match = _KEY.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part.strip()!r} is not a key and its secret, such as key 1 from NAME/KEY")
        number = int(match[1])
        if number > 255:
            raise ValueError(f"{number} is not the number of a key: 0 to 255 are")
        if number in keys:
            raise ValueError(f"key {number} is there twice: each needs a number of its own")
        keys[number] = SecretKey(match[2], match[3])
    return AuthenticationWish(_TYPES[name], tuple(keys.items()))


def watch_of(wish: BfdWish, secrets: Mapping[SecretKey, Password]) -> tuple[Watch, list[str]]:
    """With what is left out for want of a secret. Raises ValueError where there is nothing to send with."""
    wanted = wish.authentication
    if wanted is None:
        return Watch(wish.settings, wish.multihop), []
    keys, left_out = [], []
    for number, reference in wanted.keys:
        secret = secrets.get(reference)
        if secret is not None:
            keys.append(_key(wanted.type, number, reference, secret))
        elif keys:
            left_out.append(f"the secret {reference} is not there: BFD goes on without key {number}")
        else:
            raise ValueError(f"the secret {reference} is not there: no BFD without key {number}")
    return Watch(wish.settings, wish.multihop, Authentication(wanted.type, tuple(keys))), left_out


def _key(kind: AuthType, number: int, reference: SecretKey, secret: Password) -> Key:
    content = secret.text.encode()
    if len(content) > kind.longest_key:
        raise ValueError(f"the secret {reference} has {len(content)} bytes, and {kind} takes 1 to {kind.longest_key}")
    return Key(number, content)


def watch_of_reflector(watch: Watch | None, own: bool) -> Watch | None:
    """As both ends of a session with an automatic reflector see it: its address is behind its node, however near that
    is, and no path leads to the `own` one."""
    return None if watch is None or own else replace(watch, multihop=True)
