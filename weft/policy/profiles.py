"""The profiles of an endpoint: which of them are asked, and what stands for those that nobody stored."""

from weft.model.errors import FieldError
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Policy, Rule


def profile_key(name: str) -> ResourceKey:
    return ResourceKey("Profile", name)


def usable_profiles(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names up to the first that no profile can have. Such a profile is missing, and a missing one denies:
    nothing behind it would be asked."""
    for position, name in enumerate(names):
        try:
            profile_key(name)
        except FieldError:
            return names[:position]
    return names


DEFAULT_ALLOW = profile_key("projectcalico-default-allow")
"""A profile that exists in every cluster without being stored."""

_ALLOW_ALL = (Rule(action=Action.ALLOW),)
_BUILT_IN = {DEFAULT_ALLOW: Policy(key=DEFAULT_ALLOW, ingress=_ALLOW_ALL, egress=_ALLOW_ALL)}


def profile_not_stored(key: ResourceKey) -> Policy:
    """The built-in one, or what denies: an endpoint that names a profile which does not exist is denied where it would
    have been asked."""
    built_in = _BUILT_IN.get(key)
    if built_in is not None:
        return built_in
    deny = (Rule(action=Action.DENY, unenforced=(f"profile {key.name} does not exist: denies everything",)),)
    return Policy(key=key, ingress=deny, egress=deny)
