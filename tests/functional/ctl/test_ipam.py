"""ipam commands on a real etcd, over blocks as Calico stores them."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.functional.ctl.conftest import Weftctl

BLOCK = "/calico/ipam/v2/assignment/ipv4/block/10.65.0.0-30"
POOL = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: small}
spec: {cidr: 10.65.0.0/24, blockSize: 30}
---
apiVersion: projectcalico.org/v3
kind: IPReservation
metadata: {name: r}
spec: {reservedCIDRs: [10.65.0.3]}
"""


def prepare(weftctl: Weftctl, put: Callable[[str, str], None]) -> None:
    assert weftctl("apply", "-f", "-", stdin=POOL).code == 0
    block = {
        "cidr": "10.65.0.0/30",
        "affinity": "host:n1",
        "allocations": [0, 1, None, None],
        "unallocated": [2, 3],
        "attributes": [
            {"handle_id": "net.c1", "secondary": {"node": "n1", "type": "container"}},
            {"handle_id": "k8s.c2", "secondary": {"node": "n2", "namespace": "web", "pod": "front"}},
        ],
        "sequenceNumber": 7,
        "sequenceNumberForAllocation": {"0": 5, "1": 6},
        "deleted": False,
    }
    put(BLOCK, json.dumps(block))
    put("/calico/ipam/v2/handle/net.c1", '{"block":{"10.65.0.0/30":1},"deleted":false}')


def test_utilization_counts_what_is_held_and_what_is_reserved(
    weftctl: Weftctl, put: Callable[[str, str], None]
) -> None:
    prepare(weftctl, put)
    assert weftctl("ipam", "show", "--show-blocks").out == (
        "+----------+--------------+-----------+------------+--------------+-----------+\n"
        "| GROUPING |     CIDR     | IPS TOTAL | IPS IN USE | IPS RESERVED |  IPS FREE |\n"
        "+----------+--------------+-----------+------------+--------------+-----------+\n"
        "| IP Pool  | 10.65.0.0/24 |       256 |     2 (1%) |       1 (0%) | 253 (99%) |\n"
        "| Block    | 10.65.0.0/30 |         4 |    2 (50%) |      1 (25%) |   1 (25%) |\n"
        "+----------+--------------+-----------+------------+--------------+-----------+\n"
    )
    assert json.loads(weftctl("ipam", "show", "-o", "json").out)["pools"][0]["inUse"] == 2


def test_the_holder_of_an_address_is_named_and_the_address_can_be_released(
    weftctl: Weftctl, put: Callable[[str, str], None], read: Callable[[str], str]
) -> None:
    prepare(weftctl, put)
    held = weftctl("ipam", "show", "--ip", "10.65.0.0")
    assert held.out == "IP 10.65.0.0 is in use\nHandle ID: net.c1\nAttributes:\n  node: n1\n  type: container\n"
    assert weftctl("ipam", "show", "--ip=10.65.0.2").out == "10.65.0.2 is not assigned\n"
    assert weftctl("ipam", "show", "--ip=10.65.0.3").out == "10.65.0.3 is not assigned (reserved)\n"
    assert weftctl("ipam", "show", "--ip=10.65.0.9").out == "10.65.0.9 is not assigned (in no block yet)\n"
    assert weftctl("ipam", "show", "--ip=192.0.2.1").out == "192.0.2.1 is not assigned (outside the pools)\n"
    assert weftctl("ipam", "release", "--ip=10.65.0.0").out == "Successfully released IP address 10.65.0.0\n"
    assert json.loads(read(BLOCK))["allocations"] == [None, 0, None, None]
    assert read("/calico/ipam/v2/handle/net.c1") == ""
    again = weftctl("ipam", "release", "--ip=10.65.0.0")
    assert (again.code, again.err) == (1, "IP address 10.65.0.0 is not assigned\n")


def test_borrowed_addresses_name_borrower_and_owner(weftctl: Weftctl, put: Callable[[str, str], None]) -> None:
    prepare(weftctl, put)
    rows = weftctl("ipam", "show", "--show-borrowed").out.splitlines()
    assert len(rows) == 5
    assert rows[3].split("|")[1:-1] == [
        " 10.65.0.1 ",
        " n2             ",
        " 10.65.0.0/30 ",
        " n1          ",
        " pod  ",
        " web/front    ",
    ]


def test_settings_are_changed_as_calico_stores_them(weftctl: Weftctl, read: Callable[[str], str]) -> None:
    assert weftctl("ipam", "configure", "--strictaffinity=true").out == "Successfully set StrictAffinity to: true\n"
    stored = json.loads(read("/calico/ipam/v2/config"))
    assert stored["strict_affinity"] is True
    assert stored["auto_allocate_blocks"] is True
    assert "| strictAffinity" in weftctl("ipam", "configure", "show").out.replace("StrictAffinity", "strictAffinity")
    assert weftctl("ipam", "configure", "--max-blocks-per-host=4").code == 0
    limited = weftctl("ipam", "configure", "--strictaffinity=false")
    assert limited.code == 1
    assert "maxBlocksPerHost: 4 is not valid: 0, because a limit of blocks requires strictAffinity" in limited.err
    assert "4" in weftctl("get", "ipamconfig", "default", "-o", "custom-columns=MAXBLOCKSPERHOST").out
