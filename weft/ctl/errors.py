"""What weftctl can only tell its user.

Exit codes: 0 done, 1 refused or failed, 2 the command line itself is wrong (argparse's own)."""

from __future__ import annotations


class UsageError(Exception):
    """The command line contradicts itself."""


class CommandError(Exception):
    """The command failed; the text is all the user needs."""
