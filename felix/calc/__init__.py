"""From what the datastore says to what this node must have. Pure: no IO, no clock, no logging."""
