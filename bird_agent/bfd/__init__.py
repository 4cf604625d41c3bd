"""Bidirectional Forwarding Detection: a path's failure in milliseconds (docs/design/bfd.md)."""
