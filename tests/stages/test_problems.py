"""Exercises and graders fit together: whoever answers as training shows scores in every task."""

from random import Random

import pytest

from penjing.seeds import seed_for
from penjing.stages.problems import problems
from penjing.synthetic.exchanges import EXCHANGES
from penjing.synthetic.stories import make_story
from penjing.tasks.contract import Answer
from penjing.tasks.suite import TASKS, Task

KINDS = {"facts_open": "facts", "story_heroes": "story_requests"}
SEED = 3


def trained_reply(task: str, problem_id: str, rng: Random) -> str:
    """The last words of an exchange with this key, as a training conversation would hold it."""
    if task == "stop":
        return "Yes."
    kind = KINDS.get(task, task)
    while True:
        exchange = EXCHANGES[kind](rng)
        if f"{task}:{exchange.key}" == problem_id:
            break
    if not exchange.reply:
        return make_story(rng, hero=exchange.answer, kind=exchange.group).text
    return exchange.reply[-1].text


@pytest.mark.parametrize("task", [t for t in TASKS if t.generative], ids=lambda task: task.name)
def test_the_trained_reply_is_right_and_silence_is_wrong(task: Task) -> None:
    rng = Random(seed_for(SEED, "exercises", task.name, "test"))  # draws what `exercises` drew

    for problem in problems(task.name, "test", SEED, 12):
        reply = trained_reply(task.name, problem.id, rng)
        assert task.grade(problem, Answer(reply)).score == 1.0, (problem, reply)
        assert task.grade(problem, Answer("")).score == 0.0
