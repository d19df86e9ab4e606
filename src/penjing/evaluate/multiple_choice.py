"""Multiple choice by likelihood: the choice whose tokens the model finds least surprising wins.

Nothing is generated here. Source: the mean-loss rule of the CORE metric (arXiv:2406.11794).
"""

from collections.abc import Sequence

import torch

from penjing.artifacts.records import ItemRecord
from penjing.data.batches import pad_rows
from penjing.model.language_model import LanguageModel
from penjing.model.likelihood import token_logprobs
from penjing.tasks.contract import Problem
from penjing.text.conversation import Conversation, text_message
from penjing.text.template import render, render_prompt
from penjing.text.tokenizer import Tokenizer


@torch.no_grad()
def choose(
    model: LanguageModel,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    rows: int = 64,
) -> list[ItemRecord]:
    """One record a problem; `score` is 1 where the likeliest choice is the answer."""
    device = model.head_weight.device
    candidates: list[tuple[list[int], list[float]]] = []
    for problem in problems:
        start = len(render_prompt(tokenizer, problem.prompt))
        for choice in problem.choices:
            messages = (*problem.prompt.messages, text_message("assistant", choice))
            rendered = render(tokenizer, Conversation(messages))
            scored = [
                float(trained and place >= start) for place, trained in enumerate(rendered.trained)
            ]
            candidates.append((list(rendered.ids), scored))
    scores: list[float] = []
    for first in range(0, len(candidates), rows):
        batch = pad_rows(candidates[first : first + rows], tokenizer.end_of_text, None).to(device)
        logprobs = token_logprobs(model, batch.tokens, batch.targets, batch.document_ids)
        sums = (logprobs * batch.loss_weights).sum(1) / batch.loss_weights.sum(1)
        scores.extend(sums.tolist())
    return _records(problems, scores)


def _records(problems: Sequence[Problem], scores: Sequence[float]) -> list[ItemRecord]:
    records, first = [], 0
    for problem in problems:
        own = scores[first : first + len(problem.choices)]
        first += len(problem.choices)
        chosen = problem.choices[max(range(len(own)), key=own.__getitem__)]
        records.append(
            ItemRecord(
                problem_id=problem.id,
                prompt=problem.prompt.messages[-1].text,
                wanted=problem.answer,
                answer=chosen,
                score=float(chosen == problem.answer),
                finish_reason="choice",
            )
        )
    return records
