"""The expressions of an nf_tables rule, encoded: each function returns one, and a rule is their concatenation.

Named as `nft --debug=netlink` prints them, and by linux/netfilter/nf_tables.h. Everything loads into register 1
unless told otherwise. What the bytes in a register mean (byte order, length) is the caller's knowledge."""

from weft.netlink.message import attribute, be16, be32, be64, nested, string
from weft.netlink.nftables import verdict

REGISTER_VERDICT, REGISTER_1 = 0, 1
REGISTER_4_BYTES = 8  # the first of the registers of four bytes, over the same memory as REGISTER_1

META_MARK, META_IIFNAME, META_OIFNAME, META_NFPROTO, META_L4PROTO = 3, 6, 7, 15, 16
CT_STATE, CT_STATUS, CT_MARK = 0, 2, 3
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
EQUAL, NOT_EQUAL, LESS_OR_EQUAL, GREATER_OR_EQUAL = 0, 1, 3, 5
FIB_OIF, FIB_ADDRESS_TYPE = 1, 3
FIB_SADDR, FIB_DADDR, FIB_IIF, FIB_PRESENT = 1, 2, 8, 32
REJECT_TCP_RESET, REJECT_ICMPX = 1, 2
NAT_FULLY_RANDOM = 16
_LOOKUP_INVERT = 1


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(1, string(1, name), nested(2, *parts))


def _value(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(1, data))


def meta(key: int, register: int = REGISTER_1) -> bytes:
    return _expression("meta", be32(1, register), be32(2, key))


def meta_set(key: int) -> bytes:
    return _expression("meta", be32(2, key), be32(3, REGISTER_1))


def ct(key: int) -> bytes:
    return _expression("ct", be32(1, REGISTER_1), be32(2, key))


def ct_set(key: int) -> bytes:
    return _expression("ct", be32(2, key), be32(4, REGISTER_1))


def payload(base: int, offset: int, length: int, register: int = REGISTER_1) -> bytes:
    return _expression("payload", be32(1, register), be32(2, base), be32(3, offset), be32(4, length))


def compare(operator: int, data: bytes) -> bytes:
    return _expression("cmp", be32(1, REGISTER_1), be32(2, operator), _value(3, data))


def outside_range(first: bytes, last: bytes) -> bytes:
    return _expression("range", be32(1, REGISTER_1), be32(2, NOT_EQUAL), _value(3, first), _value(4, last))


def bitwise(mask: bytes, xor: bytes) -> bytes:
    """Register 1 becomes (register 1 and mask) xor xor."""
    register = be32(1, REGISTER_1) + be32(2, REGISTER_1)
    return _expression("bitwise", register, be32(3, len(mask)), _value(4, mask), _value(5, xor))


def lookup(name: str, *, inverted: bool = False, number: int | None = None) -> bytes:
    """In a set; `number` is the one that its NEWSET in this batch carries, as anonymous sets need it."""
    parts = string(1, name) + be32(2, REGISTER_1)
    if number is not None:
        parts += be32(4, number)
    if inverted:
        parts += be32(5, _LOOKUP_INVERT)
    return _expression("lookup", parts)


def lookup_verdict(name: str) -> bytes:
    return _expression("lookup", string(1, name), be32(2, REGISTER_1), be32(3, REGISTER_VERDICT))


def immediate(data: bytes) -> bytes:
    return _expression("immediate", be32(1, REGISTER_1), _value(2, data))


def immediate_verdict(code: int, chain: str | None = None) -> bytes:
    return _expression("immediate", be32(1, REGISTER_VERDICT), nested(2, verdict(code, chain)))


def fib(result: int, flags: int) -> bytes:
    return _expression("fib", be32(1, REGISTER_1), be32(2, result), be32(3, flags))


def counter() -> bytes:
    return _expression("counter")


def object_reference(kind: int, name: str) -> bytes:
    """To an object that `TableMessages` made, such as a counter."""
    return _expression("objref", be32(1, kind), string(2, name))


def limit_packets(packets: int, burst: int, seconds: int = 1) -> bytes:
    return _expression("limit", be64(1, packets), be64(2, seconds), be32(3, burst), be32(4, 0), be32(5, 0))


def log(prefix: str, group: int | None, snap_bytes: int | None = None) -> bytes:
    parts = (string(2, prefix) if prefix else b"") + (be16(1, group) if group is not None else b"")
    return _expression("log", parts + (be32(3, snap_bytes) if snap_bytes is not None else b""))


def masquerade(flags: int) -> bytes:
    return _expression("masq", be32(1, flags) if flags else b"")


def source_nat(family: int) -> bytes:
    """To the address in register 1."""
    return _expression("nat", be32(1, 0), be32(2, family), be32(3, REGISTER_1))


def notrack() -> bytes:
    return _expression("notrack")


def reject(kind: int, code: int) -> bytes:
    return _expression("reject", be32(1, kind), attribute(2, bytes((code,))))
