"""felix: the node agent."""
