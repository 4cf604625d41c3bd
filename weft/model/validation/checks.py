"""Checks that several kinds share: names, labels, selectors, interfaces, MAC addresses, communities.

The limits are Kubernetes' (RFC 1123 labels, qualified names) and the kernel's (interface names)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from weft.model.errors import FieldError
from weft.selector import SelectorError, parse

LABEL: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
SUBDOMAIN: Final = rf"{LABEL}(?:\.{LABEL})*"
SUBDOMAIN_WORDS: Final = (
    "at most 253 lower case letters, digits, '-' and '.', beginning and ending with a letter or digit"
)
MAX_ANNOTATIONS_BYTES: Final = 256 * 1024

_SUBDOMAIN: Final = re.compile(rf"{SUBDOMAIN}\Z")
_QUALIFIED: Final = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
_INTERFACE: Final = re.compile(r"[a-zA-Z0-9_.-]{1,15}\Z")
_MAC: Final = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}\Z")
_PORT_NAME: Final = re.compile(r"(?=.*[a-z])[a-z0-9]+(?:-[a-z0-9]+)*\Z")
_COMMUNITY: Final = re.compile(r"\d+:\d+(:\d+)?\Z")


def is_subdomain(name: str) -> bool:
    return len(name) <= 253 and _SUBDOMAIN.match(name) is not None


def name(field: str, value: str) -> Iterator[FieldError]:
    """A name of another object; empty means not given."""
    if value and not is_subdomain(value):
        yield FieldError(field, value, SUBDOMAIN_WORDS)


def names(field: str, values: Iterable[str]) -> Iterator[FieldError]:
    for index, value in enumerate(values):
        if not is_subdomain(value):
            yield FieldError(f"{field}[{index}]", value, SUBDOMAIN_WORDS)


def is_qualified_name(key: str) -> bool:
    """`name` or `prefix/name`, the prefix a subdomain."""
    prefix, slash, base = key.rpartition("/")
    return len(base) <= 63 and _QUALIFIED.match(base) is not None and (not slash or is_subdomain(prefix))


def is_label_value(value: str) -> bool:
    return len(value) <= 63 and (not value or _QUALIFIED.match(value) is not None)


LABEL_NAME_WORDS: Final = "a label name: at most 63 letters, digits, '-', '_' and '.', after an optional prefix/"
LABEL_VALUE_WORDS: Final = "at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends"


def label_map(field: str, found: Mapping[str, str]) -> Iterator[FieldError]:
    for key, value in found.items():
        if not is_qualified_name(key):
            yield FieldError(field, key, LABEL_NAME_WORDS)
        if not is_label_value(value):
            yield FieldError(f"{field}.{key}", value, LABEL_VALUE_WORDS)


def annotation_map(field: str, found: Mapping[str, str]) -> Iterator[FieldError]:
    for key in found:
        if not is_qualified_name(key.lower()):
            expected = "an annotation name: at most 63 letters, digits, '-', '_' and '.', after an optional prefix/"
            yield FieldError(field, key, expected)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in found.items())
    if size > MAX_ANNOTATIONS_BYTES:
        yield FieldError(field, f"{size} bytes", f"annotations of at most {MAX_ANNOTATIONS_BYTES} bytes in all")


PORT_NAME_WORDS: Final = "at most 15 lower case letters, digits and single '-', one of them a letter"


def is_port_name(name: str) -> bool:
    """A service name of RFC 6335, in lower case."""
    return len(name) <= 15 and _PORT_NAME.match(name) is not None


def selector(field: str, text: str, *, may_be_global: bool = False) -> Iterator[FieldError]:
    """A selector that parses; `global()` only where Calico gives it a meaning, and then alone."""
    try:
        parsed = parse(text)
    except SelectorError as error:
        yield FieldError(field, text, f"{error.expected} at position {error.position}")
        return
    if parsed.is_global and may_be_global:
        return
    if "global(" in text:
        expected = "global() on its own" if may_be_global else "all() here: global() is for a rule's namespaceSelector"
        yield FieldError(field, text, expected)


def interface(field: str, value: str, *, may_be_any: bool = False) -> Iterator[FieldError]:
    if not (_INTERFACE.match(value) or (may_be_any and value == "*")):
        yield FieldError(field, value, "an interface name: at most 15 letters, digits, '_', '.' and '-'")


def mac(field: str, value: str) -> Iterator[FieldError]:
    if value and not _MAC.match(value):
        yield FieldError(field, value, "a MAC address such as ee:ee:ee:ee:ee:ee")


def is_community(value: str) -> bool:
    """`64512:100` (16 bit each) or `64512:100:200` (32 bit each; RFC 8092)."""
    found = _COMMUNITY.match(value)
    if found is None:
        return False
    limit = 0xFFFFFFFF if found[1] else 0xFFFF
    return all(int(part) <= limit for part in value.split(":"))


COMMUNITY_WORDS: Final = "a community such as 64512:100, or a large one such as 64512:100:200"


def within(field: str, value: int | None, low: int, high: int) -> Iterator[FieldError]:
    if value is not None and not low <= value <= high:
        yield FieldError(field, value, f"a number from {low} to {high}")
