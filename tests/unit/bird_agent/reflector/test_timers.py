"""A peer is due at the earliest time it wanted, once, and not after it is forgotten."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from bird_agent.reflector.timers import FOREVER, Timers
from weft.model.address import IPAddress

PEERS = [ip_address("10.0.0.1"), ip_address("10.0.0.2"), ip_address("fd00::1")]
steps = st.lists(
    st.tuples(st.sampled_from(["want", "forget", "due"]), st.sampled_from(PEERS), st.integers(0, 20).map(float))
)


@given(steps)
def test_timers_do_as_a_dictionary_of_times(history: list[tuple[str, IPAddress, float]]) -> None:
    timers = Timers()
    model: dict[IPAddress, float] = {}
    for verb, peer, at in history:
        if verb == "want":
            timers.want(peer, at)
            model[peer] = min(at, model.get(peer, FOREVER))
        elif verb == "forget":
            timers.forget(peer)
            model.pop(peer, None)
        else:
            due = timers.due(at)
            assert len(due) == len(set(due))
            assert set(due) == {one for one, time in model.items() if time <= at}
            model = {one: time for one, time in model.items() if time > at}
        assert timers.next <= min(model.values(), default=FOREVER)
