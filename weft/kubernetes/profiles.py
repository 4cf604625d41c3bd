"""Namespaces and ServiceAccounts to the Profiles that their pods inherit labels from.

A Namespace's profile allows everything in both directions: that is Kubernetes' default for pods that no policy selects.
A ServiceAccount's has no rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from weft.model import names
from weft.model.base import Metadata, Resource
from weft.model.endpoint import WorkloadEndpoint
from weft.model.policy import NetworkSet, Profile, ProfileSpec, Rule

NAMESPACE_PREFIX = "pcns."
SERVICE_ACCOUNT_PREFIX = "pcsa."
NAME_LABEL = "projectcalico.org/name"
METADATA_NAME_LABEL = "kubernetes.io/metadata.name"
"""Kubernetes' API server puts it on every Namespace, whatever its author wrote."""

_ALLOW = (Rule(action="Allow"),)


def namespace_profile(name: str, labels: Mapping[str, str]) -> Profile:
    """`kns.<name>`."""
    inherited = {**labels, METADATA_NAME_LABEL: name, NAME_LABEL: name}
    return Profile(
        metadata=Metadata(name=names.namespace_profile(name)),
        spec=ProfileSpec(ingress=_ALLOW, egress=_ALLOW, labels_to_apply=_prefixed(NAMESPACE_PREFIX, inherited)),
    )


def service_account_profile(namespace: str, name: str, labels: Mapping[str, str]) -> Profile:
    """`ksa.<namespace>.<name>`."""
    inherited = {**labels, NAME_LABEL: name}
    return Profile(
        metadata=Metadata(name=names.service_account_profile(namespace, name)),
        spec=ProfileSpec(labels_to_apply=_prefixed(SERVICE_ACCOUNT_PREFIX, inherited)),
    )


def implicit_profiles(resources: Collection[Resource]) -> list[Profile]:
    """The profiles of Namespaces and ServiceAccounts that endpoints and network sets inherit from and nobody gave.

    In Kubernetes a pod's Namespace and ServiceAccount always exist; with no document to say which labels they have,
    they have those that every Namespace and ServiceAccount has."""
    given = {resource.name for resource in resources if isinstance(resource, Profile)}
    found: dict[str, Profile] = {}
    for resource in resources:
        for name in _inherited_by(resource):
            profile = None if name in given or name in found else _of_name(name)
            if profile is not None:
                found[name] = profile
    return list(found.values())


def _inherited_by(resource: Resource) -> tuple[str, ...]:
    match resource:
        case WorkloadEndpoint(spec=spec):
            return spec.profiles
        case NetworkSet():
            return (names.namespace_profile(resource.namespace),)
        case _:
            return ()


def _of_name(profile: str) -> Profile | None:
    """The profile that Kubernetes' own labels make; None for a name that stands for no Kubernetes object."""
    prefix, _, rest = profile.partition(".")
    namespace, _, account = rest.partition(".")
    if prefix == "kns" and rest:
        return namespace_profile(rest, {})
    if prefix == "ksa" and namespace and account:
        return service_account_profile(namespace, account, {})
    return None


def _prefixed(prefix: str, labels: Mapping[str, str]) -> dict[str, str]:
    return {prefix + key: value for key, value in sorted(labels.items())}
