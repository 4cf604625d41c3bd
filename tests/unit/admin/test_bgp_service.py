"""Peers, paths and traces travel as they are."""

import asyncio
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.admin.bgp import ConfigReport, PathReport, PathView, PeerReport, TraceReport
from weft.admin.services.bgp import VIEWS, BgpServer, to_message, to_value, trace_value
from weft.admin.v1 import bgp_pb2 as pb
from weft.model.address import IPAddress, IPNetwork
from weft.model.errors import ValidationError

TEXTS = st.sampled_from(["", "a", "BGPPeer/tor"])
NUMBERS = st.integers(0, (1 << 32) - 1)
ADDRESSES = st.sampled_from([ip_address("10.0.0.1"), ip_address("fd00::1")])
ROUTER_IDS = st.none() | st.just(IPv4Address("1.2.3.4"))
PREFIXES = st.sampled_from([ip_network("10.65.0.0/26"), ip_network("::/0")])
PATHS = st.builds(
    PathReport,
    prefix=PREFIXES,
    peer=ADDRESSES,
    next_hop=st.none() | ADDRESSES,
    standing=TEXTS,
    reason=TEXTS,
    as_path=TEXTS,
    origin=TEXTS,
    local_preference=st.none() | NUMBERS,
    med=st.none() | NUMBERS,
    communities=st.lists(st.just("1:2"), max_size=2).map(tuple),
    originator_id=ROUTER_IDS,
    cluster_list=st.lists(st.just(IPv4Address("9.9.9.9")), max_size=2).map(tuple),
    stale=st.booleans(),
)
PEERS = st.builds(
    PeerReport,
    address=ADDRESSES,
    asn=NUMBERS,
    local_as=NUMBERS,
    local_address=ADDRESSES,
    resource=TEXTS,
    state=TEXTS,
    since_s=st.floats(0, 2e9),
    router_id=ROUTER_IDS,
    filters=st.lists(TEXTS, max_size=2).map(tuple),
    restarting=st.booleans(),
    max_prefixes=NUMBERS,
)
CONFIGS = st.builds(
    ConfigReport, NUMBERS, ROUTER_IDS, NUMBERS, st.lists(ADDRESSES, max_size=2).map(tuple), ROUTER_IDS, TEXTS
)


class Known:
    """A provider that answers with what it was given."""

    def __init__(self, paths: list[PathReport], trace: TraceReport) -> None:
        self._paths = paths
        self._trace = trace
        self.asked: list[object] = []

    def peers(self) -> list[PeerReport]:
        return []

    def not_enforced(self) -> list[str]:
        return ["BGPPeer/tor: no AS number"]

    def paths(self, view: PathView, peer: IPAddress | None) -> Iterator[list[PathReport]]:
        self.asked.append((view, peer))
        return ([path] for path in self._paths)

    def trace(self, destination: IPNetwork) -> TraceReport:
        self.asked.append(destination)
        return self._trace

    def config(self) -> ConfigReport:
        return ConfigReport(0, None, 0, (), None, "")


@given(PEERS, CONFIGS)
def test_peers_and_configurations_travel_as_they_are(peer: PeerReport, config: ConfigReport) -> None:
    assert to_value(PeerReport, to_message(pb.BgpPeer, peer)) == peer
    assert to_value(ConfigReport, to_message(pb.BgpConfig, config)) == config


@given(st.lists(PATHS, max_size=3), st.builds(TraceReport, st.none() | PREFIXES, st.lists(PATHS).map(tuple)))
def test_paths_and_traces_travel_as_they_are(paths: list[PathReport], trace: TraceReport) -> None:
    provider = Known(paths, trace)
    server = BgpServer(provider)
    request = pb.ListBgpPathsRequest(view=VIEWS[PathView.RECEIVED], peer="10.0.0.2")
    answer = asyncio.run(server.ListBgpPaths(request, None))
    assert [to_value(PathReport, one) for one in answer.paths] == paths
    assert trace_value(asyncio.run(server.TraceBgp(pb.TraceBgpRequest(destination="10.65.0.1"), None))) == trace
    assert provider.asked == [(PathView.RECEIVED, ip_address("10.0.0.2")), ip_network("10.65.0.1/32")]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        pytest.param(pb.ListBgpPathsRequest(view=VIEWS[PathView.ADVERTISED], peer="tor"), "peer", id="no address"),
        pytest.param(pb.TraceBgpRequest(destination="10.0.0.1/24"), "destination", id="host bits"),
    ],
)
def test_what_is_no_address_is_refused_with_what_would_be_right(request_: object, field: str) -> None:
    server = BgpServer(Known([], TraceReport(None)))
    call = server.TraceBgp if isinstance(request_, pb.TraceBgpRequest) else server.ListBgpPaths
    with pytest.raises(ValidationError) as refused:
        asyncio.run(call(request_, None))
    assert refused.value.field == field


async def test_a_large_table_leaves_time_for_other_work_and_a_view_that_nobody_knows_is_refused() -> None:
    path = PathReport(
        prefix=ip_network("10.65.0.0/26"), peer=ip_address("10.0.0.1"), next_hop=None, standing="", reason=""
    )
    server = BgpServer(Known([path] * 10_000, TraceReport(None)))
    turns = 0

    async def other_work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(other_work())
    found = await server.methods()[f"{server.name}/ListBgpPaths"](b"")
    other.cancel()
    assert len(pb.BgpPaths.FromString(found).paths) == 10_000
    assert turns >= 100
    unknown = pb.ListBgpPathsRequest()
    unknown.view = 77  # type: ignore[assignment]  # as from a newer weftctl
    with pytest.raises(ValidationError):
        await server.ListBgpPaths(unknown, None)
