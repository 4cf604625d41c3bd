"""Kubernetes' own objects as Calico's resources: policies, Namespaces, ServiceAccounts, Pods and EndpointSlices.

Pure conversions, with the names, orders, tiers and labels that Calico 3.32 gives them. `decode_manifests` is the edge:
it reads what `weft.model.codec` reads, and these."""

from __future__ import annotations

from weft.kubernetes.manifest import decode_manifests, decode_with_origin
from weft.kubernetes.network_policy import staged_policy
from weft.kubernetes.profiles import implicit_profiles

__all__ = ["decode_manifests", "decode_with_origin", "implicit_profiles", "staged_policy"]
