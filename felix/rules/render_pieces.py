"""Rules that more than one kind of chain is made of."""

from felix.rules import render_names as names
from felix.rules.values import Accept, ConntrackMark, ConntrackState, Drop, rule

WORKLOADS = "cali*"
DELETED = "weftdel*"

_OF_A_CONNECTION = ConntrackState(("established", "related"))
ESTABLISHED = (
    rule(_OF_A_CONNECTION, ConntrackMark(0, names.CUT_CONNECTION), Accept()),
    rule(ConntrackMark(names.CUT_CONNECTION, names.CUT_CONNECTION), Drop(), comment="connection cut by policy"),
)
"""What every base chain, and the chain of every host endpoint, begins with: a connection that was allowed goes on, in
both directions, unless the agent marked it because policy would refuse it now. One rule for the former; what is
untracked or invalid has no mark and matches neither."""
STILL_ESTABLISHED = rule(_OF_A_CONNECTION, Accept())
"""The same behind a base chain of the same hook that has ESTABLISHED: what is cut does not come here."""
DROP_INVALID = rule(ConntrackState(("invalid",)), Drop())
