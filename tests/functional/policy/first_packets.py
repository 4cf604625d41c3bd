"""First packets of TCP, SCTP, ICMP and ICMPv6 flows, made by hand: connection tracking takes them for new connections.

Checksums are right (RFC 1071, 9260), because connection tracking looks."""

import struct

from weft.model.address import IPAddress
from weft.policy.matching import Flow

ICMP, TCP, ICMPV6, SCTP = 1, 6, 58, 132
ECHO_REQUESTS = {4: 8, 6: 128}


def first_packet(flow: Flow, mark: int) -> bytes:
    """What follows the IP header; `mark` (16 bits) tells it from others of the same flow."""
    match flow.protocol:
        case 6:
            start = struct.pack(
                "!HHIIBBHHH", _port(flow.source_port), _port(flow.destination_port), mark, 0, 80, 2, 0, 0, 0
            )
            checksum = _internet_checksum(_pseudo_header(flow.source, flow.destination, TCP, len(start)) + start)
            return start[:16] + struct.pack("!H", checksum) + start[18:]
        case 132:
            ports = struct.pack("!HHI", _port(flow.source_port), _port(flow.destination_port), 0)
            init = struct.pack("!BBHIIHHI", 1, 0, 20, mark, 65536, 1, 1, 1)
            return ports + struct.pack("<I", _crc32c(ports + bytes(4) + init)) + init
        case 1 | 58:
            message = struct.pack("!BBHHH", flow.icmp_type or 0, flow.icmp_code or 0, 0, mark, 1)
            pseudo = (
                b"" if flow.protocol == ICMP else _pseudo_header(flow.source, flow.destination, ICMPV6, len(message))
            )
            return message[:2] + struct.pack("!H", _internet_checksum(pseudo + message)) + message[4:]
        case other:
            raise ValueError(f"no first packet of protocol {other}")


def _port(port: int | None) -> int:
    assert port is not None
    return port


def _pseudo_header(source: IPAddress, destination: IPAddress, protocol: int, length: int) -> bytes:
    return source.packed + destination.packed + struct.pack("!II", length, protocol)


def _internet_checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
