"""Automatic route reflectors as one node takes part in them: as a client, and as a reflector when it is chosen."""
