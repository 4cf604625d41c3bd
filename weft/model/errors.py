"""The errors of weft's core.

The type of an error tells the caller what to do next, and every error carries the data it is about.
Nothing here formats for a terminal: `str()` is one plain sentence, the front ends choose their own words."""

from __future__ import annotations

from collections.abc import Sequence


class WeftError(Exception):
    """Base of every error weft raises on purpose."""


class ValidationError(WeftError):
    """A value is wrong: the person who wrote it must change it, trying again is useless.

    `source` is a file name or a datastore key, `document` the index of the YAML document in it (0 first),
    `field` the path of the field (`spec.ingress[0].action`), `value` what was found and `expected` what
    would be right."""

    def __init__(self, source: str, document: int, field: str, value: object, expected: str) -> None:
        self.source = source
        self.document = document
        self.field = field
        self.value = value
        self.expected = expected
        where = f"{source}, document {document}" if source else f"document {document}"
        super().__init__(f"{where}: {field}: {value!r} is not valid: {expected}")


class FieldError(ValueError):
    """One field of a value under construction is wrong; the codec adds where the value came from.

    A ValueError, because that is what msgspec lets through a constructor with the path attached."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        self.field = field
        self.value = value
        self.expected = expected
        super().__init__(f"{field}: {value!r} is not valid: {expected}")


class KeyedError(WeftError):
    """An error about one datastore key (the full path)."""

    sentence = "{key}"

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(self.sentence.format(key=key))


class NotFoundError(KeyedError):
    """There is nothing at the key: create it, or treat it as already gone."""

    sentence = "{key} does not exist"


class AlreadyExistsError(KeyedError):
    """There is something at the key already: read it and decide."""

    sentence = "{key} already exists"


class ConflictError(KeyedError):
    """Somebody else wrote the key since it was read: read again, decide again."""

    sentence = "{key} was changed by somebody else"


class DatastoreUnavailableError(WeftError):
    """The datastore does not answer: nothing is known about what was asked; try later."""

    def __init__(self, reason: str, endpoints: Sequence[str] = ()) -> None:
        self.reason = reason
        self.endpoints = tuple(endpoints)
        super().__init__(f"datastore unavailable: {reason}")


class CompactedError(WeftError):
    """The revision to watch from is gone: take a fresh snapshot and watch from there."""

    def __init__(self, requested: int, compacted: int) -> None:
        self.requested = requested
        self.compacted = compacted
        super().__init__(f"revision {requested} was compacted (oldest is {compacted})")


class LeaseGoneError(WeftError):
    """The lease has ended, and what was bound to it is gone: whoever made it no longer wants it."""

    def __init__(self, lease: int) -> None:
        self.lease = lease
        super().__init__(f"lease {lease:x} has ended")


class NoFreeAddressError(WeftError):
    """No pool that may be used has a free address: only an administrator can help."""

    def __init__(self, version: int, pools: Sequence[object] = (), reason: str = "") -> None:
        self.version = version
        self.pools = tuple(pools)
        self.reason = reason
        where = ", ".join(str(pool) for pool in self.pools) or "no usable pool"
        super().__init__(f"no free IPv{version} address in {where}{': ' + reason if reason else ''}")


class BlockFullError(WeftError):
    """No free address in this block: try the next block, not this one again."""

    def __init__(self, cidr: object) -> None:
        self.cidr = cidr
        super().__init__(f"block {cidr} has no free address")


class AddressInUseError(WeftError):
    """The address that was asked for is held by somebody else: ask for another."""

    def __init__(self, address: object, handle_id: str | None = None) -> None:
        self.address = address
        self.handle_id = handle_id
        super().__init__(f"address {address} is already in use")
