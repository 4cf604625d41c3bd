"""The shared core of weft."""
