"""What follows the matches of a policy rule, of the end of a tier and of the end of everything.

`Endings` are lists of statements: a rule's matches are written once before each of them. Every ending counts in the
counter of its rule. What Allow and Pass become depends on where the rule stands, so the caller says it.

A denied packet is dropped anyway, so its mark is free to say which rule it was: one chain logs and drops for all of
them, and a rule costs no more than a mark and a goto. An allowed packet keeps its mark, which other tools may use; that
is why logging what is allowed takes a rule of its own beside each that allows
(docs/adr/0131-a-denied-packets-mark-names-its-rule.md)."""

from functools import lru_cache
from hashlib import blake2b

from msgspec import Struct
from msgspec.structs import replace

from felix.calc.delta import FlowLogs
from felix.rules import render_names as names
from felix.rules import values as nft
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction, Rule, is_staged

Ending = tuple[nft.Statement, ...]
Endings = tuple[Ending, ...]

FLOW_LOG_GROUP = 4517
"""The nflog group of ours; Calico's own agent listens to 1 and 2, ulogd by default to 0."""
ALLOWED_PREFIX = "weft allow "
DENIED_PREFIX = "weft deny"
_SNAP_BYTES = 128
_DENIED_LIMIT = nft.Limit(packets=200, burst=400)
_ALLOWED_LIMIT = nft.Limit(packets=20, burst=40)


class Place(Struct, frozen=True):
    """Whose rules they are, in which direction, and what two of the actions are there.

    on_allow, on_pass: statements that end in a verdict."""

    direction: Direction
    key: ResourceKey
    on_allow: Ending = (nft.Accept(),)
    on_pass: Ending = (nft.Return(),)

    def counter(self, rule: Rule) -> str:
        return names.rule_counter(self.direction, self.key, rule)


class ActionSettings(Struct, frozen=True):
    """What of the settings decides what an action becomes. `denied`: the chain where denied packets end."""

    log_prefix: str = "calico-packet: "
    reject: bool = False
    flow_logs: FlowLogs = "Denied"
    log_limit: nft.Limit | None = None
    denied: str = names.DENIED


def drops_only(settings: ActionSettings) -> ActionSettings:
    """For where the kernel cannot reject: before connection tracking and after routing."""
    return replace(settings, reject=False, denied=names.DROPPED) if settings.reject else settings


def rule_endings(rule: Rule, place: Place, settings: ActionSettings) -> Endings:
    """None of them for a rule without effect. A staged policy's rule that matches ends the policy, and nothing else."""
    effect = rule.effect
    if effect is None:
        return ()
    counter = place.counter(rule)
    count = nft.CountIn(counter)
    if is_staged(place.key):
        return ((count,),) if effect is Action.LOG else ((count, nft.Return()),)
    match effect:
        case Action.ALLOW if settings.flow_logs == "All":
            return (_log_allowed(counter), (count, *place.on_allow))
        case Action.ALLOW:
            return ((count, *place.on_allow),)
        case Action.DENY:
            return (deny(counter, settings),)
        case Action.PASS:
            return ((count, *place.on_pass),)
        case Action.LOG:
            limit = (settings.log_limit,) if settings.log_limit is not None else ()
            return ((count, *limit, nft.Log(settings.log_prefix)),)


def deny(counter: str, settings: ActionSettings) -> Ending:
    """What ends a packet that is denied."""
    if settings.flow_logs == "Disabled":
        return nft.CountIn(counter), refuse(settings)
    return nft.CountIn(counter), nft.SetMark(flow_id(counter)), nft.Goto(settings.denied)


def denied_chain(settings: ActionSettings) -> nft.Chain | None:
    """Where every denied packet ends, with the mark of its rule; None where they end in their own rules."""
    if settings.flow_logs == "Disabled":
        return None
    log = nft.Log(DENIED_PREFIX, FLOW_LOG_GROUP, _SNAP_BYTES)
    return nft.Chain(settings.denied, (nft.rule(_DENIED_LIMIT, log), nft.rule(refuse(settings))))


def dropped_chain(settings: ActionSettings) -> nft.Chain | None:
    """Where packets end that are denied where the kernel cannot reject; None where the chain for all does."""
    return denied_chain(drops_only(settings)) if settings.reject else None


@lru_cache(maxsize=1024)
def flow_id(counter: str) -> int:
    """What names a counter, and so its rule, in 32 bits: in a mark or a prefix. Never 0, which is no mark."""
    return int.from_bytes(blake2b(counter.encode(), digest_size=4).digest(), "big") or 1


def _log_allowed(counter: str) -> Ending:
    return _ALLOWED_LIMIT, nft.Log(f"{ALLOWED_PREFIX}{flow_id(counter):08x}", FLOW_LOG_GROUP, _SNAP_BYTES)


def refuse(settings: ActionSettings) -> nft.Statement:
    return nft.Reject() if settings.reject else nft.Drop()
