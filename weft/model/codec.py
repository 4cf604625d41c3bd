"""The edge where text becomes values: manifests strictly, stored values leniently."""

from __future__ import annotations

from weft.model.manifest import decode_manifests, to_manifest
from weft.model.stored import StoredValue, class_of, decode_stored, encode_stored

Value = StoredValue

__all__ = ["StoredValue", "Value", "class_of", "decode_manifests", "decode_stored", "encode_stored", "to_manifest"]
