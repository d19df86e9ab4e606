"""Generated exercises as the problems of tasks: the seam between `synthetic` and `tasks`."""

from penjing.synthetic import generators
from penjing.synthetic.splits import Split
from penjing.tasks.contract import Problem


def problems(task: str, split: Split, seed: int, count: int) -> list[Problem]:
    """Distinct problems of that task and split (train, validation or test)."""
    return [
        Problem(
            id=exercise.id,
            prompt=exercise.prompt,
            answer=exercise.answer,
            choices=exercise.choices,
        )
        for exercise in generators.exercises(task, split, seed, count)
    ]
