"""Many flows as JSON, one object a line, in and out. Pure.

Everything is read and checked before anything is answered: a wrong line leaves no half of an output behind."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from weft.ctl.errors import CommandError
from weft.model.errors import FieldError
from weft.model.values import Protocol
from weft.model.wire import NO_JSON
from weft.policy.ends import Parties, Party, UnknownEndError
from weft.policy.explainer import Answer, Explainer, NoCommonFamilyError, Packet, Side

ICMP, ICMPV6 = 1, 58
ECHO_REQUEST = {ICMP: 8, ICMPV6: 128}
VERSIONS = {ICMP: 4, ICMPV6: 6}
"""Protocols of one IP version."""
FIELDS = ("from", "to", "protocol", "port", "source_port", "icmp_type", "icmp_code", "expect", "id")
VERDICTS = {True: "allow", False: "deny"}
MOST_COMPLAINTS = 20
PORT = "a port from 1 to 65535"


class MalformedFlowsError(CommandError):
    """Lines that are no flows; nothing was answered."""


class Line(NamedTuple):
    """`fields` as they were written; `expect` None: nothing is expected."""

    fields: dict[str, Any]
    answer: Answer
    expect: bool | None


def read(text: bytes, source: str, parties: Parties, explainer: Explainer) -> list[Line]:
    """Every flow with what becomes of it; empty lines are passed over.

    Raises MalformedFlowsError that names each wrong line with its field, of many the first ones."""
    lines: list[Line] = []
    complaints: list[str] = []
    wrong = 0
    for number, raw in enumerate(text.removeprefix(BOM_UTF8).split(b"\n"), 1):
        if not raw or raw.isspace():
            continue
        try:
            lines.append(_line(raw, parties, explainer))
        except FieldError as error:
            wrong += 1
            if wrong <= MOST_COMPLAINTS:
                found = "" if error.value is None else f"{error.value!r} is not valid: "
                complaints.append(f"{source}, line {number}: {error.field}: {found}{error.expected}")
    if wrong > MOST_COMPLAINTS:
        complaints.append(f"{source}: {wrong - MOST_COMPLAINTS} more wrong lines")
    if wrong:
        raise MalformedFlowsError("\n".join(complaints))
    return lines


def _line(raw: bytes, parties: Parties, explainer: Explainer) -> Line:
    try:
        fields = msgspec.json.decode(raw)
    except NO_JSON as error:
        raise FieldError("$", None, f"a JSON object ({error})") from None
    if not isinstance(fields, dict):
        raise FieldError("$", fields, "a JSON object with from, to, protocol and port")
    _refuse_misspelt(fields)
    packet = packet_of(fields)
    version = VERSIONS.get(packet.protocol)
    source, destination = (_party(fields, end, parties, version) for end in ("from", "to"))
    try:
        answer = explainer.explain(source, destination, packet)
    except NoCommonFamilyError as error:
        raise FieldError("to", None, str(error)) from None
    return Line(fields, answer, _expectation(fields))


def _refuse_misspelt(fields: Mapping[str, object]) -> None:
    """Fields of the user's own are passed through; what looks like one of ours and is not would be a trap. What was
    answered before may be asked again."""
    known = _KNOWN | _SAID if "verdict" in fields else _KNOWN
    for name in fields.keys() - known:
        close = _meant(name)
        if close:
            raise FieldError(name, None, f"unknown field, did you mean {close}?")


_KNOWN = frozenset(FIELDS)
_SAID = frozenset({"expected", "matched"})


@lru_cache(maxsize=1024)
def _meant(name: str) -> str:
    return next(iter(get_close_matches(name.lower(), FIELDS, n=1, cutoff=0.8)), "")


def _party(fields: Mapping[str, object], end: str, parties: Parties, version: int | None) -> Party:
    text = fields.get(end)
    if not isinstance(text, str) or not text:
        raise FieldError(end, text, "NAMESPACE/NAME of an endpoint, or an address")
    try:
        return parties.find(text, version)
    except UnknownEndError as error:
        raise FieldError(end, text, error.reason) from None


def packet_of(fields: Mapping[str, object]) -> Packet:
    """What the first packet of such a flow is. A port counts only where the protocol has ports; ICMP without a type is
    an echo request. Raises FieldError."""
    given = fields.get("protocol")
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise FieldError("protocol", given, "a protocol such as TCP, UDP, SCTP, ICMP, or its number")
    port, source_port = _number(fields, "port", PORT, 1, 65535), _number(fields, "source_port", PORT, 1, 65535)
    icmp_type = _number(fields, "icmp_type", "an ICMP type from 0 to 255", 0, 255)
    icmp_code = _number(fields, "icmp_code", "an ICMP code from 0 to 255", 0, 255)
    protocol = _protocol(given)
    if protocol.has_ports:
        if port is None:
            raise FieldError("port", None, f"missing: {protocol} has ports, give one from 1 to 65535")
        return Packet(protocol.number, source_port, port)
    if protocol.number in ECHO_REQUEST:
        if icmp_type is None:
            if icmp_code is not None:
                raise FieldError("icmp_code", icmp_code, "a code only together with icmp_type")
            icmp_type = ECHO_REQUEST[protocol.number]
        return Packet(protocol.number, icmp_type=icmp_type, icmp_code=icmp_code or 0)
    return Packet(protocol.number)


@lru_cache(maxsize=1024)
def _protocol(given: int | str) -> Protocol:
    try:
        return Protocol.parse(given)
    except ValueError as error:
        raise FieldError("protocol", given, str(error)) from None


def _number(fields: Mapping[str, object], name: str, expected: str, first: int, last: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not first <= value <= last:
        raise FieldError(name, value, expected)
    return value


def _expectation(fields: Mapping[str, object]) -> bool | None:
    expect = fields.get("expect")
    if expect is None:
        return None
    if expect not in ("allow", "deny"):
        raise FieldError("expect", expect, "allow or deny")
    return expect == "allow"


def differs(line: Line) -> bool:
    return line.expect is not None and line.expect != line.answer.allowed


def write(lines: Sequence[Line], rule_of: Callable[[Side], Mapping[str, object]]) -> Iterator[bytes]:
    """One JSON object for each flow, in order: its own fields, the verdict, and what decided it at both ends."""
    encoder = msgspec.json.Encoder()
    rules: dict[int, msgspec.Raw] = {}

    def rule(side: Side) -> msgspec.Raw:
        found = rules.get(id(side))
        if found is None:
            found = rules[id(side)] = msgspec.Raw(encoder.encode(rule_of(side)))
        return found

    for line in lines:
        answer = line.answer
        said: dict[str, Any] = {
            **line.fields,
            "verdict": VERDICTS[answer.allowed],
            "egress": VERDICTS[answer.egress.allowed],
            "ingress": VERDICTS[answer.ingress.allowed],
            "egress_rule": rule(answer.egress),
            "ingress_rule": rule(answer.ingress),
        }
        if line.expect is not None:
            said["expected"] = VERDICTS[line.expect]
            said["matched"] = line.expect == answer.allowed
        yield encoder.encode(said) + b"\n"
