"""The edge where text becomes values: manifests strictly, stored values leniently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weft.model.stored import StoredValue, class_of, decode_stored, encode_stored

if TYPE_CHECKING:
    from weft.model.manifest import decode_manifests, to_manifest

Value = StoredValue

__all__ = ["StoredValue", "Value", "class_of", "decode_manifests", "decode_stored", "encode_stored", "to_manifest"]


def __getattr__(name: str) -> Any:
    """Manifests are read by those whom people give them to; every agent would load YAML for it: 3 MB."""
    if name not in ("decode_manifests", "to_manifest"):
        raise AttributeError(name)
    from weft.model import manifest

    return getattr(manifest, name)
