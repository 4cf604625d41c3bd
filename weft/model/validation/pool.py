"""IP pools."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from weft.model.errors import FieldError
from weft.model.pool import IPPool
from weft.model.validation import checks

_LINK_LOCAL: Final = (IPv4Network("169.254.0.0/16"), IPv6Network("fe80::/10"))


def ip_pool(pool: IPPool) -> Iterator[FieldError]:
    spec = pool.spec
    yield from checks.selector("spec.nodeSelector", spec.node_selector)
    yield from checks.selector("spec.namespaceSelector", spec.namespace_selector)
    for link_local in _LINK_LOCAL:
        if spec.cidr.version == link_local.version and spec.cidr.overlaps(link_local):
            yield FieldError("spec.cidr", str(spec.cidr), f"a prefix outside link local {link_local}")
    encapsulated = spec.vxlan_mode != "Never" or spec.ipip_mode != "Never"
    if spec.vxlan_mode != "Never" and spec.ipip_mode != "Never":
        yield FieldError("spec.ipipMode", spec.ipip_mode, "Never, because vxlanMode is on")
    if spec.cidr.version == 6 and spec.ipip_mode != "Never":
        yield FieldError("spec.ipipMode", spec.ipip_mode, "Never for an IPv6 pool")
    if "Tunnel" in spec.allowed_uses and spec.namespace_selector:
        expected = "no selector for a pool with allowed use Tunnel: tunnels are in no namespace"
        yield FieldError("spec.namespaceSelector", spec.namespace_selector, expected)
    if "LoadBalancer" not in spec.allowed_uses:
        return
    if len(set(spec.allowed_uses)) > 1:
        yield FieldError("spec.allowedUses", list(spec.allowed_uses), "LoadBalancer alone")
    if encapsulated:
        yield FieldError("spec.vxlanMode", spec.vxlan_mode, "no encapsulation for a LoadBalancer pool")
    if spec.disable_bgp_export:
        yield FieldError("spec.disableBGPExport", True, "false for a LoadBalancer pool")
    if spec.node_selector != "all()":
        yield FieldError("spec.nodeSelector", spec.node_selector, "all() for a LoadBalancer pool")
