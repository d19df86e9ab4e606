"""Groups of graded answers, as the batch that the policy gradient learns from.

It neither grades nor learns: rewards come from a callable, the loss is `train.objectives`'.

B rows (rollouts), T positions.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from penjing.artifacts.records import RolloutRecord
from penjing.data.batches import RolloutBatch, pad_rows
from penjing.generate.engine import AnswerTurn, Completion, Request, generate
from penjing.generate.sampling import Sampling
from penjing.model.language_model import LanguageModel
from penjing.seeds import seed_for


@dataclass(frozen=True)
class RolloutPrompt:
    """A problem's prompt. `id` seeds its samples: within a step it must be its own."""

    id: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """A completion's reward, with prompt and answer as a person reads them."""

    reward: float
    prompt: str
    text: str


Grade = Callable[[str, Completion], Score]
"""(prompt id, completion) -> its score."""


@dataclass(frozen=True)
class Rollouts:
    """One step's answers; `batch` is None where no group has answers of different reward."""

    batch: RolloutBatch | None
    records: tuple[RolloutRecord, ...]
    values: dict[str, float]


def sample_rollouts(
    model: LanguageModel,
    prompts: Sequence[RolloutPrompt],
    grade: Grade,
    *,
    num_generations: int,
    sampling: Sampling,
    seed: int,
    step: int,
    stop_ids: Collection[int],
    end_of_text: int,
    answer_turn: AnswerTurn | None = None,
) -> Rollouts:
    """`num_generations` answers a prompt; advantage = reward - mean of the group.

    Groups whose rewards are all equal have advantage 0: they are recorded, and left out of the
    batch. An answer that was cut off is trained as any other, with the reward that `grade` gave.
    Source: arXiv:2503.20783, equation 3 (no division by the group's deviation).
    """
    owners = [prompt for prompt in prompts for _ in range(num_generations)]
    requests = [
        Request(owner.ids, sampling, seed_for(seed, "rollout", step, owner.id, n % num_generations))
        for n, owner in enumerate(owners)
    ]
    completions = generate(model, requests, stop_ids=stop_ids, answer_turn=answer_turn)
    scores = [grade(owner.id, one) for owner, one in zip(owners, completions, strict=True)]
    rewards = np.array([score.reward for score in scores]).reshape(-1, num_generations)
    # A mean of equal rewards may differ from them in its last bit: such a group gets exact zeros.
    varied = np.ptp(rewards, 1, keepdims=True) > 0
    advantages = np.where(varied, rewards - rewards.mean(1, keepdims=True), 0.0).ravel()
    records = tuple(
        _record(
            score,
            completion,
            step=step,
            prompt_id=owner.id,
            sample=n % num_generations,
            advantage=float(advantages[n]),
        )
        for n, (owner, score, completion) in enumerate(
            zip(owners, scores, completions, strict=True)
        )
    )
    # Longest first: parts of the batch then hold rows of like length, and little padding.
    kept = sorted(
        np.flatnonzero(varied.repeat(num_generations)).tolist(),
        key=lambda n: -len(owners[n].ids) - len(completions[n].ids),
    )
    batch = None
    if kept:
        batch = rollout_batch(
            [owners[n].ids for n in kept],
            [completions[n] for n in kept],
            advantages[kept],
            end_of_text,
        )
    return Rollouts(batch, records, _values(records, rewards))


def rollout_batch(
    prompts: Sequence[tuple[int, ...]],
    completions: Sequence[Completion],
    advantages: npt.NDArray[np.float64],
    end_of_text: int,
) -> RolloutBatch:
    """One rollout a row, weight 1 on exactly the tokens that the model chose (its stop tokens
    too), 0 on the prompt and on what a tool forced.
    """
    rows = [
        (prompt + completion.ids, (0.0,) * len(prompt) + completion.sampled)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    batch = pad_rows(rows, end_of_text)
    logprobs_BT = torch.zeros(batch.tokens.shape)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        first = len(prompt) - 1  # the position whose target is the first new token
        logprobs_BT[row, first : first + len(completion.ids)] = torch.tensor(completion.logprobs)
    advantages_B = torch.from_numpy(advantages.astype(np.float32))
    return RolloutBatch(batch, advantages_B, logprobs_BT, retention=None)


def _record(
    score: Score,
    completion: Completion,
    *,
    step: int,
    prompt_id: str,
    sample: int,
    advantage: float,
) -> RolloutRecord:
    return RolloutRecord(
        step=step,
        prompt_id=prompt_id,
        sample=sample,
        prompt=score.prompt,
        text=score.text,
        reward=score.reward,
        advantage=advantage,
        tokens=len(completion.ids),
        sampled_tokens=sum(completion.sampled),
        tool_calls=completion.tool_calls,
        finish_reason=completion.finish_reason,
    )


def _values(records: Sequence[RolloutRecord], rewards: npt.NDArray[np.float64]) -> dict[str, float]:
    """A step's metrics; lengths and counts are means over rollouts, tool turns included."""
    count = len(records)
    return {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "frac_zero_variance": float((np.ptp(rewards, 1) == 0).mean()),
        "completion_length": sum(record.tokens for record in records) / count,
        "truncated_ratio": sum(record.finish_reason != "stop" for record in records) / count,
        "tool_calls": sum(record.tool_calls for record in records) / count,
        "generated_tokens": float(sum(record.sampled_tokens for record in records)),
    }
