"""Policy as nftables: the values, the renderers that build them and the writer that encodes them.

Nothing here reads a kernel or a datastore: everything is a function of frozen values."""
