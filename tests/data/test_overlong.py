"""Of a conversation that is too long the latest turns stay, and whole ones."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penjing.data.overlong import TurnMarks, recent_turns

START, END, TOOL, HEAD = 1, 2, 3, 4
MARKS = TurnMarks(START, (START, HEAD), TOOL)


def turn(role: str, length: int, number: int) -> list[int]:
    """A rendered turn whose content names it."""
    head = {"assistant": [START, HEAD], "tool": [START, 5, TOOL]}.get(role, [START])
    return [*head, *[100 + number] * length, END]


def conversation(*turns: tuple[str, int]) -> list[int]:
    return [
        one for number, (role, length) in enumerate(turns) for one in turn(role, length, number)
    ]


def kept(ids: list[int], row_tokens: int) -> list[int]:
    whole = np.array(ids)
    return [int(one) for one in whole[recent_turns(whole, row_tokens, MARKS)]]


def test_the_oldest_exchanges_go_and_the_system_stays() -> None:
    turns = [("system", 2), *[("user", 3), ("assistant", 4)] * 3]
    ids = conversation(*turns)

    assert kept(ids, len(ids)) == ids
    assert kept(ids, len(ids) - 1) == conversation(turns[0]) + ids[16:]
    assert kept(ids, 20) == [*ids[:4], *ids[28:]]


def test_what_stays_does_not_begin_with_a_tools_answer() -> None:
    turns = [("user", 9), ("assistant", 4), ("tool", 2), ("assistant", 2), ("user", 1)]
    turns.append(("assistant", 1))
    ids = conversation(*turns)
    last = len(conversation(*turns[:4]))

    assert kept(ids, len(ids) - last + 8) == ids[last:]


def test_the_beginning_of_a_last_exchange_that_is_too_long_stays() -> None:
    ids = conversation(("user", 3), ("assistant", 4), ("user", 3), ("assistant", 50))

    assert kept(ids, 20) == ids[12:32]
    assert kept([7] * 30, 20) == [7] * 20


@given(
    st.lists(
        st.tuples(st.sampled_from(["user", "assistant", "tool"]), st.integers(0, 9)), min_size=1
    ),
    st.integers(1, 60),
)
def test_what_stays_fits_and_is_in_order(turns: list[tuple[str, int]], row_tokens: int) -> None:
    ids = np.array(conversation(*turns))
    places = recent_turns(ids, row_tokens, MARKS)

    assert 0 < len(places) <= row_tokens
    assert (np.diff(places) > 0).all()
    if len(ids) <= row_tokens and turns[0][0] == "user":
        assert len(places) == len(ids)
