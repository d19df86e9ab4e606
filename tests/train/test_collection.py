import gc
import weakref

from penjing.train.collection import EVERY_STEPS, collections_between_steps


class Cycle:
    """Lives until somebody collects."""

    def __init__(self) -> None:
        self.itself = self


def _left_alone() -> "weakref.ref[Cycle]":
    return weakref.ref(Cycle())


def test_cycles_are_collected_between_steps_and_not_before() -> None:
    assert gc.isenabled()
    with collections_between_steps() as after_step:
        after_step()
        seen = _left_alone()
        for _ in range(EVERY_STEPS - 1):
            list[object]([[] for _ in range(1000)])
            after_step()
            assert seen() is not None
        after_step()
        assert seen() is None
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_what_lived_after_the_first_step_is_set_aside() -> None:
    before = _left_alone()
    with collections_between_steps() as after_step:
        after_step()
        assert before() is None
        assert gc.get_freeze_count() > 0
