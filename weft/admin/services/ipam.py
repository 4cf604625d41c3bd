"""IPAMService over gRPC; what a call means is decided by the IPAMAPI behind it."""

from __future__ import annotations

from ipaddress import ip_address

import grpc

from weft.admin import api
from weft.admin.v1 import ipam_pb2 as pb
from weft.admin.v1 import ipam_pb2_grpc as pb_grpc
from weft.model.address import IPAddress
from weft.model.errors import ValidationError

STATES = {
    api.AddressState.FREE: pb.LookUpResponse.FREE,
    api.AddressState.IN_USE: pb.LookUpResponse.IN_USE,
    api.AddressState.OUTSIDE_POOLS: pb.LookUpResponse.OUTSIDE_POOLS,
    api.AddressState.NOT_IN_A_BLOCK: pb.LookUpResponse.NOT_IN_A_BLOCK,
    api.AddressState.RESERVED: pb.LookUpResponse.RESERVED,
}


def block_message(block: api.BlockUsage) -> pb.BlockUsage:
    return pb.BlockUsage(
        cidr=str(block.cidr),
        affinity=block.affinity,
        total=block.total,
        used=block.used,
        reserved=block.reserved,
    )


def settings_message(settings: api.IPAMSettings) -> pb.IPAMSettings:
    return pb.IPAMSettings(
        strict_affinity=settings.strict_affinity,
        auto_allocate_blocks=settings.auto_allocate_blocks,
        max_blocks_per_host=settings.max_blocks_per_host,
    )


def parse_address(text: str) -> IPAddress:
    """Raises ValidationError for what is no address."""
    try:
        return ip_address(text)
    except ValueError as error:
        raise ValidationError(
            source="", document=0, field="address", value=text, expected="an IPv4 or IPv6 address"
        ) from error


class IPAMServer(pb_grpc.IPAMServiceServicer):
    """Serves `ipam` to everybody who may open the socket."""

    name = "weft.admin.v1.IPAMService"

    def __init__(self, ipam: api.IPAMAPI) -> None:
        self._ipam = ipam

    def register(self, server: grpc.aio.Server) -> None:
        pb_grpc.add_IPAMServiceServicer_to_server(self, server)

    async def GetUtilization(self, request: pb.GetUtilizationRequest, context: object) -> pb.GetUtilizationResponse:
        usage = await self._ipam.utilization()
        pools = [
            pb.PoolUsage(
                name=pool.name,
                cidr=str(pool.cidr),
                total=str(pool.total),
                used=str(pool.used),
                reserved=str(pool.reserved),
                blocks=map(block_message, pool.blocks),
            )
            for pool in usage.pools
        ]
        return pb.GetUtilizationResponse(pools=pools, orphans=map(block_message, usage.orphans))

    async def GetBorrowed(self, request: pb.GetBorrowedRequest, context: object) -> pb.GetBorrowedResponse:
        borrowed = await self._ipam.borrowed()
        return pb.GetBorrowedResponse(
            addresses=[
                pb.BorrowedAddress(
                    address=str(one.address),
                    borrower=one.borrower,
                    block=str(one.block),
                    owner=one.owner,
                    holder_type=one.holder_type,
                    holder=one.holder,
                )
                for one in borrowed
            ]
        )

    async def LookUp(self, request: pb.LookUpRequest, context: object) -> pb.LookUpResponse:
        info = await self._ipam.look_up(parse_address(request.address))
        return pb.LookUpResponse(
            state=STATES[info.state],
            block=info.block,
            affinity=info.affinity,
            handle_id=info.handle_id,
            attributes=dict(info.attributes),
            pool=info.pool,
        )

    async def GetConfiguration(self, request: pb.GetConfigurationRequest, context: object) -> pb.IPAMSettings:
        return settings_message(await self._ipam.settings())

    async def Configure(self, request: pb.ConfigureRequest, context: object) -> pb.IPAMSettings:
        settings = await self._ipam.configure(
            strict_affinity=request.strict_affinity if request.HasField("strict_affinity") else None,
            auto_allocate_blocks=request.auto_allocate_blocks if request.HasField("auto_allocate_blocks") else None,
            max_blocks_per_host=request.max_blocks_per_host if request.HasField("max_blocks_per_host") else None,
        )
        return settings_message(settings)

    async def Release(self, request: pb.ReleaseRequest, context: object) -> pb.ReleaseResponse:
        result = await self._ipam.release([parse_address(text) for text in request.addresses])
        return pb.ReleaseResponse(released=map(str, result.released), not_held=map(str, result.not_held))
