"""weft-node: the node's entry point. It registers the node, prepares the datastore and starts the agents."""
