"""The reflector's paths under BFD: its own weft-bfd is told which to watch, and a path that dies ends its session.

An adapter. The process is not the BGP agent's, which may be on the same host: each has sockets on its own addresses
alone (ADR 0164). One that an earlier reflector of the same name left is taken over with its sessions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from bird_agent.bfd.client import BfdClient, stop_bfd
from bird_agent.bfd.wire import Report
from bird_agent.pathwatch import PathWatch
from bird_agent.reflector.plan import ReflectorPlan
from bird_agent.session_config import Problem, SessionConfig
from weft.model.address import IPAddress

log = logging.getLogger("weft-reflector")


def process_name(reflector: str) -> str:
    """Of the lock, socket and log of a reflector's weft-bfd."""
    return f"reflector-{reflector}-bfd"


class Watching:
    """`on_dead` is told of each path that was seen up and is lost, and why."""

    def __init__(self, run_dir: Path, reflector: str, on_dead: Callable[[IPAddress, str], None]) -> None:
        self._run_dir = run_dir
        self._process = process_name(reflector)
        self._on_dead = on_dead
        self._paths = PathWatch()
        self._sessions: tuple[SessionConfig, ...] = ()
        self._client = BfdClient(run_dir, self._on_report, self._paths.on_lost, self._process)

    def follow(self, plan: ReflectorPlan) -> None:
        """The sessions there should be; a peer on a network of ours is one hop away."""
        self._sessions = tuple(one.config for one in plan.sessions.values())
        wanted = self._paths.wanted(self._sessions, lambda peer: any(peer in network for network in plan.networks))
        self._client.set_wanted(wanted)

    async def run(self) -> None:
        """For ever."""
        await self._client.run()

    def stop(self) -> None:
        """Close all BFD sessions by will. A reflector that another follows leaves them as they are: some peers end
        their BGP session whatever the reason is."""
        stop_bfd(self._run_dir, self._process)

    def state(self, peer: IPAddress) -> str:
        """Of the BFD session, in a word; empty: there is none."""
        if not any(one.peer == peer and one.bfd is not None for one in self._sessions):
            return ""
        state = self._paths.state(peer)
        return "unknown" if state is None else state.name.lower().replace("_", " ")

    def problems(self) -> list[Problem]:
        trouble = self._client.trouble
        own = [Problem("BFD", trouble)] if trouble else []
        return own + self._paths.problems(self._sessions)

    def _on_report(self, report: Report) -> None:
        why = self._paths.on_report(report)
        if why is not None:
            self._on_dead(report.peer, why)
