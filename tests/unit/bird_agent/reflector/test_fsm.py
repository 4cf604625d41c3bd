"""RFC 4271 8.2.2, written down a second time: what follows each event in each state, and what the peer is told."""

from __future__ import annotations

import pytest

from bird_agent.reflector.fsm import TABLE, Action, Event, State

IDLE, CONNECT, ACTIVE = State.IDLE, State.CONNECT, State.ACTIVE
SENT, CONFIRM, UP = State.OPEN_SENT, State.OPEN_CONFIRM, State.ESTABLISHED
STATES = (IDLE, CONNECT, ACTIVE, SENT, CONFIRM, UP)

# What follows, by state in the order of STATES: "=" stays; a letter is the state gone to. Behind it what is sent:
# n the event's own NOTIFICATION, f a finite state machine error, o OPEN, k KEEPALIVE.
FOLLOWS = {
    Event.MANUAL_START: "C = = = = =",
    Event.MANUAL_STOP: "= I I In In In",
    Event.MANUAL_START_PASSIVE: "A = = = = =",
    Event.DAMPED_START: "C = = = = =",
    Event.DAMPED_START_PASSIVE: "A = = = = =",
    Event.AUTOMATIC_STOP: "= I I In In In",
    Event.CONNECT_RETRY_EXPIRES: "= = C If If If",
    Event.HOLD_TIMER_EXPIRES: "= I I In In In",
    Event.KEEPALIVE_TIMER_EXPIRES: "= I I If =k =k",
    Event.CONNECTED: "= So So = = =",
    Event.ACCEPTED: "= So So = = =",
    Event.CONNECTION_FAILS: "= A I A I I",
    Event.OPEN: "= I I Kk If If",
    Event.HEADER_ERROR: "= I I In In In",
    Event.OPEN_ERROR: "= I I In In If",
    Event.COLLISION_DUMP: "= I I In In In",
    Event.NOTIFICATION_VERSION: "= I I I I I",
    Event.NOTIFICATION: "= I I I I I",
    Event.KEEPALIVE: "= I I If E =",
    Event.UPDATE: "= I I If If =",
    Event.UPDATE_ERROR: "= I I If If In",
    Event.REFRESH: "= I I If If =",
    Event.REPLACED: "= I I In In I",
}
LETTERS = {"I": IDLE, "C": CONNECT, "A": ACTIVE, "S": SENT, "K": CONFIRM, "E": UP}
SENDS = {"n": Action.NOTIFY, "f": Action.NOTIFY_STATE, "o": Action.SEND_OPEN, "k": Action.SEND_KEEPALIVE}

CASES = [
    (state, event, text) for event, row in FOLLOWS.items() for state, text in zip(STATES, row.split(), strict=True)
]


def test_every_event_has_a_row_here_and_an_entry_for_every_state_there() -> None:
    assert set(FOLLOWS) == set(Event)
    assert set(TABLE) == {(state, event) for state in State for event in Event}


@pytest.mark.parametrize(("state", "event", "text"), CASES, ids=[f"{s.value}-{e.name}" for s, e, _ in CASES])
def test_what_follows(state: State, event: Event, text: str) -> None:
    transition = TABLE[state, event]
    assert transition.state is (state if text[0] == "=" else LETTERS[text[0]])
    assert {each for each in transition.actions if each in SENDS.values()} == {SENDS[each] for each in text[1:]}


@pytest.mark.parametrize(("state", "event"), TABLE, ids=str)
def test_the_actions_of_a_transition_belong_together(state: State, event: Event) -> None:
    transition = TABLE[state, event]
    actions = transition.actions
    had_connection, has_connection = state in (SENT, CONFIRM, UP), transition.state in (SENT, CONFIRM, UP)
    if had_connection and not has_connection:
        assert Action.DROP in actions
        assert Action.TELL_DOWN in actions or event in (Event.COLLISION_DUMP, Event.REPLACED)
    if state is UP and transition.state is not UP:
        assert Action.TELL_DOWN in actions
    if transition.state is IDLE and state is not IDLE:
        assert (Action.DAMP in actions) is (event is not Event.MANUAL_STOP), "only who stops by hand is not damped"
    if transition.state is UP and state is not UP:
        assert Action.TELL_UP in actions
    for notify in (Action.NOTIFY, Action.NOTIFY_STATE):
        if notify in actions:
            assert actions.index(notify) < actions.index(Action.DROP)
