"""The etcd adapter against a real etcd."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import EtcdServer
from tests.fakes.datastore_contract import TransactionalContract
from weft.config import EtcdConfig
from weft.datastore import etcd as adapter
from weft.datastore.etcd import EtcdDatastore


class TestEtcd(TransactionalContract):
    @pytest.fixture
    async def store(self, etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EtcdDatastore]:
        monkeypatch.setattr(adapter, "KEYS_IN_A_PIECE", 3)
        store = EtcdDatastore(EtcdConfig((etcd.endpoint,)))
        yield store
        await store.close()
