"""Generative tasks: the model answers, a grader scores.

Every completion is kept as a record, so that a score can be checked by reading.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from penjing.artifacts.records import ItemRecord
from penjing.generate.engine import Completion, Request, generate
from penjing.generate.sampling import Sampling
from penjing.generate.tools import calculator_turn, last_answer
from penjing.model.transformer import Transformer
from penjing.seeds import seed_for
from penjing.tasks.contract import Answer, Grader, Problem
from penjing.text.template import render_prompt
from penjing.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Answered:
    """A graded answer with the completion it came from."""

    record: ItemRecord
    completion: Completion


def answer_problems(
    model: Transformer,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    grade: Grader,
    *,
    sampling: Sampling,
    seed: int,
    samples: int = 1,
) -> list[Answered]:
    """`samples` answers to each problem, in order; the seed of each depends on its problem only."""
    requests = [
        Request(
            prompt=tuple(render_prompt(tokenizer, problem.prompt)),
            sampling=sampling,
            seed=seed_for(seed, problem.id, sample),
        )
        for problem in problems
        for sample in range(samples)
    ]
    completions = generate(
        model,
        requests,
        stop_ids=(tokenizer.im_end, tokenizer.end_of_text),
        answer_turn=calculator_turn(tokenizer),
    )
    answered = []
    for place, completion in enumerate(completions):
        problem = problems[place // samples]
        score = grade(problem, answer_of(tokenizer, completion)).score
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
