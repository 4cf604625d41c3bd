"""The route-reflector role: a BGP speaker of its own on ExaBGP's codecs (RFC 4271, RFC 4456)."""
