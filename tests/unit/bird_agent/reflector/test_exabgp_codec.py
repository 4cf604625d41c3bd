"""ExaBGP is a guest in the reflector's process: what it changes for everybody, and what it remembers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from msgspec.structs import replace

from bird_agent.reflector import exabgp_codec
from bird_agent.reflector.errors import OpenError
from bird_agent.reflector.framing import HEADER_SIZE
from tests.unit.bird_agent.reflector.test_any_bytes import PEER_OPEN
from tests.unit.bird_agent.reflector.test_session import HEAD

WATCH = """
import gc, json, logging, os, signal, sys, threading, warnings
def process():
    return [dict(os.environ), [str(each) for each in logging.root.handlers], logging.root.level,
            [str(signal.getsignal(each)) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGINT)],
            str(sys.excepthook), sys.getrecursionlimit(), threading.active_count(), gc.isenabled(), gc.get_threshold()]
before = process()
from bird_agent.reflector import exabgp_codec as codec
from bird_agent.reflector.negotiation import OpenMessage
from tests.unit.bird_agent.reflector.test_any_bytes import PEER_OPEN, accepted
from bird_agent.reflector.framing import Message, framed
from exabgp.bgp.message.update.attribute.attribute import Attribute
from exabgp.protocol.resource import Resource
def remembered():
    return (sum(map(len, Resource.cache.values())), sum(len(each) for each in Attribute.cache.values()))
session, _ = accepted()
def turn(number):
    path = bytes((0x40, 1, 1, 0, 0x40, 2, 6, 2, 1)) + (70000 + number).to_bytes(4) + bytes((0x40, 3, 4, 10, 0, 0, 1))
    session.on_data(1, framed(Message.UPDATE, b"\\0\\0" + len(path).to_bytes(2) + path + b"\\x08\\x0a"), 1.0)
    session.on_data(1, codec.write_refresh("ipv4 unicast"), 1.0)
turn(0)
first = remembered()
for number in range(500):
    turn(number)
for _ in range(10):
    accepted()
json.dump({"process": before == process(), "first": first, "last": remembered(), "caching": Attribute.caching,
           "updates": len(session.take())}, sys.stdout)
"""


def test_exabgp_changes_nothing_of_the_process_and_remembers_nothing_of_the_peers() -> None:
    done = subprocess.run([sys.executable, "-c", WATCH], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert done.stderr == ""
    assert found["updates"] == 1002
    assert found["process"] is True
    assert found["caching"] is False
    assert found["last"] == found["first"]


def test_a_capability_that_we_do_not_use_may_say_anything() -> None:
    hostname = b"\x49\x04\xff\xff\xff\xff"
    unknown = b"\xc8\x02hi"
    read = exabgp_codec.read_open(HEAD + b"\x0c\x02\x0a" + hostname + unknown)
    assert read.families is None


def test_one_that_we_use_must_be_right() -> None:
    with pytest.raises(OpenError, match="capability 65"):
        exabgp_codec.read_open(HEAD + b"\x06\x02\x04\x41\x02\xfc\x00")


@pytest.mark.parametrize("asn", [1, 64512, 65536, 4200000000])
def test_an_open_comes_back_with_its_true_as_number(asn: int) -> None:
    message = replace(PEER_OPEN, asn=asn)
    read = exabgp_codec.read_open(exabgp_codec.write_open(message)[HEADER_SIZE:])
    assert replace(read, two_byte_asn=None) == message
    assert read.two_byte_asn == (None if asn < 65536 else 23456)
