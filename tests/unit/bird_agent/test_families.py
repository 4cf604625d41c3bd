"""A family is one object, equal to any other of it (correction B12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from exabgp.protocol.family import AFI, SAFI, Family

from bird_agent.exabgp import families

ALL = [(afi, safi) for afi in (AFI.ipv4, AFI.ipv6, AFI.l2vpn) for safi in (SAFI.unicast, SAFI.multicast, SAFI.evpn)]


@pytest.mark.parametrize(
    "family",
    [families.family, pytest.param(Family.family, marks=pytest.mark.xfail(raises=AssertionError, strict=True))],
    ids=["corrected", "uncorrected"],
)
def test_asking_for_a_family_again_makes_nothing(family: Callable[[Any], Any]) -> None:
    for afi, safi in ALL:
        assert family(Family(afi, safi)) is family(Family(afi, safi))


@pytest.mark.parametrize(("afi", "safi"), ALL)
def test_it_is_what_it_was(afi: int, safi: int) -> None:
    one = Family(afi, safi)
    assert families.family(one) == Family.family(one)
    assert families.family(one).afi_safi() == Family.family(one).afi_safi()
    assert families.index(one) == families._original_index(one)
