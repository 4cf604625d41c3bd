"""Turn operations into nfnetlink messages: the only place where our values become bytes.

One operation becomes one message or several; `Written` says which operation a message came from, so that a refusal
can be traced. Ordering is the planner's work, sending the driver's."""

from collections.abc import Iterable
from typing import NamedTuple, assert_never

from felix.rules import operations as op
from felix.rules.compiler import (
    INTERFACE_NAME_BYTES,
    LAYOUTS,
    MAP_LAYOUT,
    AnonymousSet,
    CompiledRule,
    interface_key,
    interval_elements,
    verdict_code,
)
from felix.rules.members import is_interval
from felix.rules.values import Hook, KeyType
from weft.netlink import nftables as nft
from weft.netlink.nftables_expressions import lookup

TABLE = "weft"
_ANONYMOUS = "__set%d"  # the kernel fills the number in
_DIGEST = ord("w")  # a record type of our own; libnftables skips what it does not know


class Written(NamedTuple):
    """A whole batch with its frame. `origins[i]` is the operation of message i, None for the frame."""

    messages: list[bytes]
    origins: list[op.Operation | None]


def write(operations: Iterable[op.Operation], table: str = TABLE) -> Written:
    writer = _Writer(table)
    written = Written([nft.BATCH_BEGIN], [None])
    for operation in operations:
        messages = writer.write(operation)
        written.messages.extend(messages)
        written.origins.extend([operation] * len(messages))
    written.messages.append(nft.BATCH_END)
    written.origins.append(None)
    return written


def rule_digest(data: bytes) -> bytes:
    """The digest that our rule carries in its user data; empty if somebody else wrote the rule."""
    return nft.read_userdata(data).get(_DIGEST, b"")


def base_chain(hook: Hook | None) -> nft.BaseChain | None:
    if hook is None:
        return None
    return nft.BaseChain(hook.type, hook.hook, hook.priority, hook.policy == "drop")


class _Writer:
    def __init__(self, table: str) -> None:
        self._table = nft.TableMessages(table)
        self._sets = 0

    def write(self, operation: op.Operation) -> list[bytes]:
        table = self._table
        match operation:
            case op.AddRule(chain, compiled):
                return self._rule(chain, compiled)
            case op.FlushChain(name):
                return [table.flush_chain(name)]
            case op.CreateChain(name, hook):
                return [table.new_chain(name, base_chain(hook))]
            case op.DeleteChain(name):
                return [table.delete_chain(name)]
            case op.CreateSet(name, key):
                return [table.new_set(name, LAYOUTS[key], self._number())]
            case op.CreateMap(name):
                return [table.new_set(name, MAP_LAYOUT, self._number())]
            case op.DeleteSet(name):
                return [table.delete_set(name)]
            case op.AddElements(name, key, keys):
                return table.add_elements(name, _elements(key, list(keys)))
            case op.RemoveElements(name, key, keys):
                return table.delete_elements(name, _elements(key, list(keys)))
            case op.AddEntries(name, entries):
                found = [
                    nft.element(interface_key(interface), data=nft.verdict(*verdict_code(verdict)))
                    for interface, verdict in entries.items()
                ]
                return table.add_elements(name, found)
            case op.RemoveEntries(name, interfaces):
                names = [interface_key(interface) for interface in interfaces]
                return table.delete_elements(name, nft.plain_elements(names, INTERFACE_NAME_BYTES))
            case op.CreateCounter(name, start):
                return [table.new_counter(name, start.packets, start.bytes)]
            case op.DeleteCounter(name):
                return [table.delete_counter(name)]
            case op.CreateTable():
                return [table.new_table()]
            case op.DeleteTable():
                return [table.delete_table()]
            case _:
                assert_never(operation)

    def _number(self) -> int:
        self._sets += 1
        return self._sets

    def _rule(self, chain: str, compiled: CompiledRule) -> list[bytes]:
        messages: list[bytes] = []
        expressions: list[bytes] = []
        for part in compiled.parts:
            if isinstance(part, AnonymousSet):
                number = self._number()
                messages.append(self._table.new_set(_ANONYMOUS, part.layout, number, len(part.elements)))
                messages += self._table.add_elements(_ANONYMOUS, part.elements, number)
                expressions.append(lookup(_ANONYMOUS, inverted=part.negated, number=number))
            else:
                expressions.append(part)
        records = [(_DIGEST, compiled.digest)]
        if compiled.rule.comment:
            records.insert(0, (nft.USERDATA_COMMENT, compiled.rule.comment.encode() + b"\0"))
        return [*messages, self._table.add_rule(chain, b"".join(expressions), nft.userdata(*records))]


def _elements(key: KeyType, keys: list[bytes]) -> list[bytes]:
    size = LAYOUTS[key].key_length
    return interval_elements(keys, size) if is_interval(key) else nft.plain_elements(keys, size)
