"""What follows the matches of a policy rule, of the end of a tier and of the end of everything.

`Endings` are lists of statements: a rule's matches are written once before each of them. What Allow and Pass become
depends on where the rule stands, so the caller says it."""

from msgspec import Struct

from felix.rules import values as nft
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction, Rule, is_staged

Ending = tuple[nft.Statement, ...]
Endings = tuple[Ending, ...]


class Place(Struct, frozen=True):
    """Whose rules they are, in which direction, and what two of the actions are there.

    on_allow, on_pass: statements that end in a verdict."""

    direction: Direction
    key: ResourceKey
    on_allow: Ending = (nft.Accept(),)
    on_pass: Ending = (nft.Return(),)


class ActionSettings(Struct, frozen=True):
    """What of the settings decides what an action becomes."""

    log_prefix: str = "calico-packet: "
    reject: bool = False


def rule_endings(rule: Rule, place: Place, settings: ActionSettings) -> Endings:
    """None of them for a rule without effect. A staged policy's rule that matches ends the policy, and nothing else."""
    effect = rule.effect
    if effect is None:
        return ()
    if is_staged(place.key):
        return () if effect is Action.LOG else ((nft.Return(),),)
    return (_action(effect, place, settings),)


def deny(settings: ActionSettings) -> Ending:
    """What ends a packet that is denied."""
    return (nft.Reject() if settings.reject else nft.Drop(),)


def _action(effect: Action, place: Place, settings: ActionSettings) -> Ending:
    match effect:
        case Action.ALLOW:
            return place.on_allow
        case Action.DENY:
            return deny(settings)
        case Action.PASS:
            return place.on_pass
        case Action.LOG:
            return (nft.Log(settings.log_prefix),)
