"""Generative tasks: the model answers, a grader scores.

Every completion is kept as a record, so that a score can be checked by reading.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from penjing.artifacts.records import ItemRecord
from penjing.generate.engine import Completion, Request, generate
from penjing.generate.sampling import Sampling
from penjing.generate.tools import calculator_turn, last_answer
from penjing.model.language_model import LanguageModel
from penjing.seeds import seed_for
from penjing.tasks.contract import Answer, Grader, Problem
from penjing.text.template import render_prompt
from penjing.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Answered:
    """A graded answer with the completion it came from."""

    record: ItemRecord
    completion: Completion


@dataclass(frozen=True)
class Questions:
    """Problems to be answered `samples` times each, and who grades the answers."""

    problems: Sequence[Problem]
    grade: Grader
    sampling: Sampling
    samples: int = 1


def answer_problems(
    model: LanguageModel,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    grade: Grader,
    *,
    sampling: Sampling,
    seed: int,
    samples: int = 1,
) -> list[Answered]:
    """`samples` answers to each problem, in order; the seed of each depends on its problem only."""
    (answered,) = answer_together(
        model, tokenizer, [Questions(problems, grade, sampling, samples)], seed
    )
    return answered


def answer_together(
    model: LanguageModel, tokenizer: Tokenizer, questions: Sequence[Questions], seed: int
) -> list[list[Answered]]:
    """As `answer_problems`, of several at once: a full batch costs little more than a small one."""
    requests = [
        Request(
            prompt=tuple(render_prompt(tokenizer, problem.prompt)),
            sampling=asked.sampling,
            seed=seed_for(seed, problem.id, sample),
        )
        for asked in questions
        for problem in asked.problems
        for sample in range(asked.samples)
    ]
    completions = iter(
        generate(
            model,
            requests,
            stop_ids=(tokenizer.im_end, tokenizer.end_of_text),
            answer_turn=calculator_turn(tokenizer),
        )
    )
    return [
        _graded(tokenizer, asked, islice(completions, len(asked.problems) * asked.samples))
        for asked in questions
    ]


def _graded(
    tokenizer: Tokenizer, asked: Questions, completions: Iterable[Completion]
) -> list[Answered]:
    answered = []
    for place, completion in enumerate(completions):
        problem = asked.problems[place // asked.samples]
        score = asked.grade(problem, answer_of(tokenizer, completion)).score
        record = ItemRecord(
            problem_id=problem.id,
            prompt=problem.prompt.messages[-1].text,
            wanted=problem.answer,
            answer=tokenizer.decode(list(completion.ids)),
            score=score,
            finish_reason=completion.finish_reason,
        )
        answered.append(Answered(record, completion))
    return answered


def answer_of(tokenizer: Tokenizer, completion: Completion) -> Answer:
    """What a grader sees of a completion."""
    return Answer(
        text=last_answer(tokenizer, completion),
        stopped=completion.finish_reason == "stop",
        tool_calls=completion.tool_calls,
    )
