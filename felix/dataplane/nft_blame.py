"""Which parts of the table a refusal is about, and which parts an interface's packets go through.

Pure. A part is called as reports call it: a chain by its name, `set NAME`, `counter NAME`, `entry INTERFACE of MAP`."""

from collections.abc import Mapping

from felix.rules import operations as op
from felix.rules import values as v

Chains = Mapping[str, v.Chain]
Maps = Mapping[str, Mapping[str, v.Verdict]]


def culprits(operation: op.Operation | None, chains: Chains, maps: Maps) -> list[str]:
    """What to put aside when the kernel refuses an operation; nothing where that would not help."""
    match operation:
        case op.AddRule(chain) | op.CreateChain(chain):
            return [chain]
        case op.CreateCounter(name):
            return [f"counter {name}"]
        case op.CreateSet(name) | op.AddElements(name) | op.RemoveElements(name):
            return [f"set {name}"]
        case op.DeleteSet(name):
            return [chain.name for chain in chains.values() if name in chain.lookups()]
        case op.DeleteChain(name):
            return [chain.name for chain in chains.values() if name in chain.jumps()] + _entries_to(name, chains, maps)
        case op.AddEntries():
            return _entries_to(None, chains, maps)
        case _:
            return []


def parts_behind(interface: str, chains: Chains, maps: Maps) -> list[str]:
    """The interface's entries, and every chain and set that they lead to."""
    parts = [f"entry {interface} of {name}" for name in maps]
    verdicts = [entries[interface] for entries in maps.values() if interface in entries]
    waiting = [verdict.chain for verdict in verdicts if isinstance(verdict, (v.Jump, v.Goto))]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        parts.append(name)
        chain = chains.get(name)
        if chain is not None:
            parts += [f"set {looked_up}" for looked_up in chain.lookups()]
            waiting += chain.jumps()
    return parts


def _entries_to(chain: str | None, chains: Chains, maps: Maps) -> list[str]:
    """Entries that go to this chain, or with None to any that should not be there."""
    return [
        f"entry {interface} of {name}"
        for name, entries in maps.items()
        for interface, verdict in entries.items()
        if isinstance(verdict, (v.Jump, v.Goto)) and (verdict.chain == chain if chain else verdict.chain not in chains)
    ]
