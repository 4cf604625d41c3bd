"""Which paths BFD watches, and what its reports mean for BGP sessions (RFC 5882 4).

Pure. Only a path that was seen up and then went down is lost: one that never came up, one whose other end closed the
BFD session by will, and the end of our own BFD process say nothing about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bird_agent.bfd.packet import Diagnostic, State
from bird_agent.bfd.wire import Report, Wanted
from bird_agent.session_config import Problem, SessionConfig
from weft.model.address import IPAddress


class PathWatch:
    """The last report of each path."""

    def __init__(self) -> None:
        self._reports: dict[IPAddress, Report] = {}

    @staticmethod
    def wanted(sessions: Iterable[SessionConfig], is_adjacent: Callable[[IPAddress], bool]) -> list[Wanted]:
        """The BFD sessions there should be: over one hop where the peer is on a network of ours."""
        return [
            Wanted(
                one.peer,
                one.local,
                one.bfd.multihop or not is_adjacent(one.peer),
                one.bfd.settings,
                one.bfd.authentication,
            )
            for one in sessions
            if one.bfd is not None
        ]

    def state(self, peer: IPAddress) -> State | None:
        """None: nothing is known."""
        report = self._reports.get(peer)
        return None if report is None else report.state

    def refusal(self, peer: IPAddress) -> str:
        """Why the packets that come from there are not accepted; empty: they are, or there are none."""
        report = self._reports.get(peer)
        return "" if report is None else report.refused

    def problems(self, sessions: Iterable[SessionConfig]) -> list[Problem]:
        """Paths that are not watched because of what comes from the other end."""
        refused = [(one, self.refusal(one.peer)) for one in sessions if one.bfd is not None]
        return [Problem(one.resource, f"BFD refuses what comes from {one.peer}: {why}") for one, why in refused if why]

    def on_report(self, report: Report) -> str | None:
        """Why the path is lost, if this says that it is."""
        before = self.state(report.peer)
        self._reports[report.peer] = report
        if before is not State.UP or report.state is State.UP or report.by_will:
            return None
        if report.refused:
            return f"BFD refuses the peer's packets: {report.refused}"
        if report.diagnostic is Diagnostic.NEIGHBOR_SIGNALED_DOWN:
            return "BFD: the peer no longer hears us"
        return "BFD: the path is dead"

    def on_lost(self) -> None:
        """Nothing is known of any path for now."""
        self._reports.clear()
