"""The gRPC services that every agent with a datastore serves."""

from __future__ import annotations

from weft.admin.assembly import datastore_api
from weft.admin.server import AdminService
from weft.admin.services.ipam import IPAMServer
from weft.admin.services.questions import QuestionServer
from weft.admin.services.reflectors import ReflectorServer
from weft.admin.services.resources import ResourceServer
from weft.datastore.base import Datastore


def datastore_services(store: Datastore) -> list[AdminService]:
    """ResourceService, IPAMService, ReflectorService and QuestionService on `store`."""
    offered = datastore_api(store)
    return [
        ResourceServer(offered.resources),
        IPAMServer(offered.ipam),
        ReflectorServer(offered.reflectors),
        QuestionServer(offered.questions),
    ]
