"""How automatic reflectors look to people. Pure."""

from __future__ import annotations

from weft.ctl.tables import columns
from weft.model.reflectors import ReflectorSettings
from weft.reflectors.progress import MESH_PATIENCE_S
from weft.reflectors.report import Effect, ReflectorReport

_HEADINGS = ("DOMAIN", "NODES", "REFLECTORS", "UP", "ATTACHED")
_REPLACED = ("REPLACED", "DOMAIN", "AT", "BY", "STANDING", "WHY")

_MOST_NAMES = 10
_UNDER_WAY = (
    "Sessions are given up only when those that replace them bring the same routes, so that none is lost\n"
    f"(mesh sessions that do not come up are waited for {MESH_PATIENCE_S:g} s). Awaited:\n"
)


def text(report: ReflectorReport) -> str:
    parts = [_settings(report.settings), f"Fabric: {report.nodes} nodes, {_mode(report.now)}\n"]
    if report.now.mode == "reflectors":
        parts += ["\n", _domains(report.now)]
    if report.awaited:
        parts += ["\n", _awaited(report)]
    if report.state.replaced:
        rows = [
            (
                one.node,
                one.domain,
                "" if one.at is None else one.at.isoformat(),
                one.by,
                "kept out" if one.returned is None else "a candidate behind the others",
                one.why,
            )
            for one in report.state.replaced
        ]
        parts += ["\n", columns(_REPLACED, rows)]
    if report.then is not None:
        then = report.then
        parts.append(f"\nWith these settings: {_mode(then)}\n")
        parts.append(f"Sessions that would begin: {report.begun}, end: {report.ended}\n")
        if then.mode == "reflectors":
            parts += ["\n", _domains(then)]
    return "".join(parts)


def _awaited(report: ReflectorReport) -> str:
    """What has yet to come, and why nothing is given up before it."""
    lines = []
    for one in report.awaited:
        shown = ", ".join(one.names[:_MOST_NAMES])
        more = f" and {len(one.names) - _MOST_NAMES} more" if len(one.names) > _MOST_NAMES else ""
        lines.append(f"  {one.what}{': ' if shown else ''}{shown}{more}\n")
    return _UNDER_WAY + "".join(lines)


def _settings(settings: ReflectorSettings) -> str:
    pools = ", ".join(settings.pools) or "any that allows Tunnel"
    return (
        f"Automatic reflectors: {'enabled' if settings.enabled else 'disabled'}; above {settings.above_nodes} nodes, "
        f"a mesh again below {settings.mesh_below}; {settings.per_domain} in each domain of {settings.domain_label}; "
        f"pools: {pools}; replaced after {settings.replace_after_seconds} s\n"
    )


def _mode(effect: Effect) -> str:
    name = "full mesh" if effect.mode == "mesh" else "reflectors"
    why = f" ({effect.why})" if effect.why else ""
    return f"{name}{why}; {effect.sessions} sessions, at most {effect.most_on_one_node} on one node"


def _domains(effect: Effect) -> str:
    rows = [
        (
            one.domain or "(none)",
            str(one.nodes),
            ", ".join(one.reflectors) or "those of the next domain",
            f"{len(one.up)} of {len(one.reflectors)}",
            f"{one.attached} of {one.nodes}",
        )
        for one in effect.domains
    ]
    return columns(_HEADINGS, rows)
