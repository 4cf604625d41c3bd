"""Real routers for the BGP tests: BIRD 2, FRR, GoBGP and OpenBGPD behind one interface (base.py)."""

from __future__ import annotations

from tests.functional.bgp.routers.base import Announced, Learnt, Neighbour, Router, Setup
from tests.functional.bgp.routers.bird import BirdRouter
from tests.functional.bgp.routers.frr import FrrRouter
from tests.functional.bgp.routers.gobgp import GobgpRouter
from tests.functional.bgp.routers.openbgpd import OpenbgpdRouter

ROUTERS: dict[str, type[Router]] = {kind.name: kind for kind in (BirdRouter, FrrRouter, GobgpRouter, OpenbgpdRouter)}

__all__ = ["ROUTERS", "Announced", "Learnt", "Neighbour", "Router", "Setup"]
