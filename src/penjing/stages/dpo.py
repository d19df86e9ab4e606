"""The dpo stage: preference pairs, with the reference's log-probabilities computed once.

`dpo/pairs.jsonl` keeps each pair with its reference log-probabilities and the digest of the
checkpoint that gave them; another reference is refused.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from penjing.artifacts import disk
from penjing.artifacts.lines import write_atomic
from penjing.artifacts.records import to_json
from penjing.config.training import DpoConfig
from penjing.data.batches import Batch, PreferenceBatch, pad_rows
from penjing.data.order import permute
from penjing.errors import ArtifactError, DataError
from penjing.model.language_model import LanguageModel
from penjing.model.likelihood import token_logprobs
from penjing.runtime import Runtime
from penjing.seeds import seed_for
from penjing.sources.quarantine import Quarantine
from penjing.stages.context import StageContext
from penjing.stages.inputs import open_preferences
from penjing.stages.machine import checkpoint_digest, load_model, open_machine
from penjing.stages.training import training_job, training_summary
from penjing.text.conversation import Conversation, Message, Preference
from penjing.text.template import render, render_prompt
from penjing.text.tokenizer import Tokenizer
from penjing.train.fit import fit
from penjing.train.objectives import PreferenceObjective

SCORED_PAIRS = 32
"""Pairs of one reference forward pass: bounds its memory."""


@dataclass(frozen=True)
class Pair:
    """One pair as ids, with what the reference thinks of both answers (sums of nats)."""

    prompt_tokens: int
    chosen: list[int]
    rejected: list[int]
    reference_chosen: float
    reference_rejected: float
    reference: str


def run(context: StageContext) -> dict[str, Any]:
    """Trains `dpo/` from the last finished training stage, which is also its reference."""
    section, runtime = context.config.dpo, open_machine(context)
    assert section is not None
    start = context.previous_stage("dpo")
    tokenizer = context.tokenizer()
    model = load_model(context, start)
    pairs, dropped = _pairs(context, section, tokenizer, model, checkpoint_digest(context, start))
    job = training_job(
        context,
        "dpo",
        section,
        model,
        objective=PreferenceObjective(section.beta),
        open_batches=lambda step: _batches(context, section, pairs, tokenizer, runtime, step),
        steps=section.steps,
        rows_per_step=section.pairs_per_step,
    )
    epochs = section.steps * section.pairs_per_step / len(pairs)
    planned = round(epochs * sum(len(pair.chosen) + len(pair.rejected) - 2 for pair in pairs))
    counts = {"pairs": len(pairs), "epochs": epochs} | dropped
    return training_summary(fit(job), start, model, planned) | counts


def _pairs(
    context: StageContext,
    section: DpoConfig,
    tokenizer: Tokenizer,
    reference: LanguageModel,
    digest: str,
) -> tuple[list[Pair], dict[str, int]]:
    """The pairs, scored unless stored ones are there, and how many rows were left out and why.

    Raises:
        ArtifactError: the stored ones were scored by another reference.
        DataError: too many rows cannot be used, or no pair fits the context.
    """
    path, config = context.directory("dpo") / "pairs.jsonl", context.config
    listed = path.with_name("quarantine.jsonl")
    disk.remove(listed)  # of a session that was killed
    quarantine, source = Quarantine(listed), config.source(section.source)
    found = open_preferences(source, context.base, config.seed, quarantine, context.cache)
    limit = reference.shape.max_position_embeddings
    rendered = [_render(tokenizer, pair) for pair in found]
    quarantine.check(config.shards.max_bad_row_fraction)
    kept = [row for row in rendered if max(len(row[1]), len(row[2])) <= limit + 1]
    if not kept:
        raise DataError(f"sources.{source.name}: no preference pair fits the context of {limit}")
    dropped = {"overlong_pairs": len(rendered) - len(kept), "bad_rows": quarantine.bad}
    if path.exists():
        return read_pairs(path, digest), dropped
    pairs: list[Pair] = []
    for first in range(0, len(kept), SCORED_PAIRS):
        pairs += _score(kept[first : first + SCORED_PAIRS], tokenizer, reference, digest)
    write_atomic(path, "".join(to_json(pair) + "\n" for pair in pairs).encode())
    return pairs, dropped


def read_pairs(path: Path, digest: str) -> list[Pair]:
    """The pairs of `path`, if the reference with that digest scored them.

    Raises:
        ArtifactError: another checkpoint did.
    """
    pairs = [Pair(**json.loads(line)) for line in path.read_text().splitlines()]
    if any(pair.reference != digest for pair in pairs):
        raise ArtifactError(
            f"{path}: its log-probabilities are those of checkpoint {pairs[0].reference[:12]}, "
            f"this run's reference is {digest[:12]}; `--redo dpo` scores the pairs again"
        )
    return pairs


def _render(tokenizer: Tokenizer, pair: Preference) -> tuple[int, list[int], list[int]]:
    def whole(answer: Message) -> list[int]:
        rendered = render(tokenizer, Conversation((*pair.prompt.messages, answer)))
        end = max(place for place, trained in enumerate(rendered.trained) if trained)
        return list(rendered.ids[: end + 1])

    prompt_tokens = len(render_prompt(tokenizer, pair.prompt))
    return prompt_tokens, whole(pair.chosen), whole(pair.rejected)


def _answer_batch(rows: Sequence[tuple[int, list[int]]], end_of_text: int) -> Batch:
    """Rows of (prompt tokens, ids): weight 1 on the answer's ids."""
    weighted = [
        (ids, [float(place >= prompt) for place in range(len(ids))]) for prompt, ids in rows
    ]
    return pad_rows(weighted, end_of_text, None)


@torch.no_grad()
def _score(
    rows: Sequence[tuple[int, list[int], list[int]]],
    tokenizer: Tokenizer,
    reference: LanguageModel,
    digest: str,
) -> list[Pair]:
    device = next(reference.parameters()).device
    sums = []
    for answers in (
        [(prompt, chosen) for prompt, chosen, _ in rows],
        [(prompt, rejected) for prompt, _, rejected in rows],
    ):
        batch = _answer_batch(answers, tokenizer.end_of_text).to(device)
        logprobs = token_logprobs(reference, batch.tokens, batch.targets, batch.document_ids)
        sums.append((logprobs * batch.loss_weights).sum(1).tolist())
    return [
        Pair(prompt, chosen, rejected, of_chosen, of_rejected, digest)
        for (prompt, chosen, rejected), of_chosen, of_rejected in zip(rows, *sums, strict=True)
    ]


def _batches(
    context: StageContext,
    section: DpoConfig,
    pairs: Sequence[Pair],
    tokenizer: Tokenizer,
    runtime: Runtime,
    step: int,
) -> Iterator[PreferenceBatch]:
    """Pairs of each step from `step` on: shuffled anew each epoch, a pure function of the step."""
    while True:
        first = step * section.pairs_per_step
        chosen = []
        for place in range(
            first + runtime.rank, first + section.pairs_per_step, runtime.world_size
        ):
            epoch, index = divmod(place, len(pairs))
            key = seed_for(context.config.seed, "dpo", "order", epoch)
            chosen.append(pairs[permute(index, len(pairs), key)])
        yield PreferenceBatch(
            chosen=_answer_batch(
                [(pair.prompt_tokens, pair.chosen) for pair in chosen], tokenizer.end_of_text
            ),
            rejected=_answer_batch(
                [(pair.prompt_tokens, pair.rejected) for pair in chosen], tokenizer.end_of_text
            ),
            reference_chosen=torch.tensor([pair.reference_chosen for pair in chosen]),
            reference_rejected=torch.tensor([pair.reference_rejected for pair in chosen]),
        )
        step += 1
