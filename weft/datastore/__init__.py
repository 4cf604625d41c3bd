"""The datastore: the port, its etcd adapter and the syncer that turns it into ordered events."""
