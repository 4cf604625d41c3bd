"""What stands in for a chain while the kernel refuses it, or a counter of it. Pure."""

from collections.abc import Mapping

from felix.rules import values as v


def fail_closed(chain: v.Chain) -> v.Chain:
    """What stands in for a chain that the kernel refuses: nothing passes to or from a workload, the host is left
    alone."""
    if chain.hook is None:
        return v.Chain(chain.name, (v.rule(v.Drop()),))
    ways = {"forward": v.Way, "output": (v.Way.OUT,), "input": (v.Way.IN,), "prerouting": (v.Way.IN,)}
    found = [
        v.rule(v.Interface(way, name), v.Drop())
        for way in ways.get(chain.hook.hook, ())
        for name in ("cali*", "weftdel*")
    ]
    return v.Chain(chain.name, tuple(found), v.Hook(chain.hook.type, chain.hook.hook, chain.hook.priority))


def without_counters(chain: v.Chain, blocked: Mapping[str, str]) -> v.Chain:
    """Where the kernel refuses a counter, the rules hold and do not count."""
    if not any(f"counter {name}" in blocked for name in chain.counters()):
        return chain
    rules = []
    for one in chain.rules:
        left = tuple(s for s in one.statements if not isinstance(s, v.CountIn) or f"counter {s.counter}" not in blocked)
        rules += [v.Rule(left, one.comment)] if left else []
    return v.Chain(chain.name, tuple(rules), chain.hook)
