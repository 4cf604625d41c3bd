"""The values everything else talks about: resources of the v3 API, keys, names and errors.

Pure: nothing here reads a clock, opens a file or knows a datastore. `codec` is the edge where text
becomes values; behind it no string stands for an address, a prefix, a port or a duration."""
