"""How BFD is asked for with authentication: the annotation and the keys that it names."""

from __future__ import annotations

import pytest

from bird_agent.bfd.auth import Authentication, AuthType, Key
from bird_agent.bfd.session import BfdSettings
from bird_agent.bfd.wire import Watch
from bird_agent.bfd.wish import AuthenticationWish, BfdWish, parse_wish, watch_of
from bird_agent.session_config import Password, SecretKey

FAST = BfdSettings(100_000, 3)
BFD, OLD = SecretKey("bfd", "tor"), SecretKey("bfd", "old")


SHA1 = AuthenticationWish(AuthType.KEYED_SHA1, ((1, BFD),))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("100ms x 3", BfdWish(FAST), id="interval and multiplier"),
        pytest.param("1s", BfdWish(BfdSettings(1_000_000, 3)), id="interval alone"),
        pytest.param(" 50msx5 multihop ", BfdWish(BfdSettings(50_000, 5), True), id="multihop"),
        pytest.param("100ms x 3 with keyed-sha1 key 1 from bfd/tor", BfdWish(FAST, False, SHA1), id="a key"),
        pytest.param(
            "100ms x 3 multihop with simple-password key 7 from bfd/tor, key 0 from bfd/old",
            BfdWish(FAST, True, AuthenticationWish(AuthType.SIMPLE_PASSWORD, ((7, BFD), (0, OLD)))),
            id="keys",
        ),
    ],
)
def test_what_an_administrator_may_ask_for(text: str, expected: BfdWish) -> None:
    assert parse_wish(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *(
            pytest.param(text, "interval", id=text)
            for text in ("", "fast", "100", "1ms x 3", "100ms x 0", "100ms x 3 twice", "-1s")
        ),
        pytest.param("1s with md4 key 1 from a/b", "'md4' is no authentication: simple-password, keyed-md5", id="type"),
        pytest.param("1s with", "'' is no authentication: simple-password", id="no type"),
        pytest.param("1s with keyed-md5", "'' is not a key and its secret, such as key 1 from NAME/KEY", id="no key"),
        pytest.param("1s with keyed-md5 key 1 from b", "'key 1 from b' is not a key and its secret", id="no secret"),
        pytest.param("1s with keyed-md5 key 256 from a/b", "256 is not the number of a key: 0 to 255", id="number"),
        pytest.param("1s with keyed-md5 key 1 from a/b, key 1 from a/c", "key 1 is there twice", id="twice"),
    ],
)
def test_what_makes_no_sense(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_wish(text)


ROLLOVER = parse_wish("100ms x 3 with keyed-md5 key 2 from bfd/tor, key 1 from bfd/old")


def test_the_first_key_is_needed_and_others_may_be_missing() -> None:
    new, old = Password("new"), Password("old")
    both, left_out = watch_of(ROLLOVER, {BFD: new, OLD: old})
    assert both == Watch(FAST, False, Authentication(AuthType.KEYED_MD5, (Key(2, b"new"), Key(1, b"old"))))
    assert left_out == []
    one, left_out = watch_of(ROLLOVER, {BFD: new})
    assert one.authentication == Authentication(AuthType.KEYED_MD5, (Key(2, b"new"),))
    assert left_out == ["the secret bfd/old is not there: BFD goes on without key 1"]
    with pytest.raises(ValueError, match="the secret bfd/tor is not there: no BFD without key 2"):
        watch_of(ROLLOVER, {OLD: old})


def test_a_key_that_is_too_long_is_named_and_not_told() -> None:
    with pytest.raises(ValueError, match="the secret bfd/tor has 17 bytes, and keyed-md5 takes 1 to 16") as caught:
        watch_of(ROLLOVER, {BFD: Password("0123456789abcdefg"), OLD: Password("old")})
    assert "abcdefg" not in str(caught.value)
