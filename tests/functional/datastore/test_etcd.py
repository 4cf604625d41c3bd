"""The etcd adapter against a real etcd."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import EtcdServer
from tests.fakes.datastore_contract import TransactionalContract
from weft.config import EtcdConfig
from weft.datastore.etcd import EtcdDatastore


class TestEtcd(TransactionalContract):
    @pytest.fixture
    async def store(self, etcd: EtcdServer) -> AsyncIterator[EtcdDatastore]:
        store = EtcdDatastore(EtcdConfig((etcd.endpoint,)))
        yield store
        await store.close()
