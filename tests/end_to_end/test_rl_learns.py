"""Policy gradient lifts what is rewarded, and a random reward lifts nothing."""

from collections.abc import Callable, Iterator
from random import Random

import pytest
import torch

from penjing.config.model import ModelConfig
from penjing.config.training import OptimizerConfig
from penjing.data.batches import Batch, RolloutBatch
from penjing.generate.engine import Completion, Request, generate
from penjing.generate.rollouts import RolloutPrompt, Score, sample_rollouts
from penjing.generate.sampling import Sampling
from penjing.model.initialization import initialize
from penjing.model.transformer import Transformer
from penjing.runtime import Runtime
from penjing.train.loop import train_steps
from penjing.train.objectives import PolicyGradient
from penjing.train.optimizer import build_optimizer

STOP, SIZE, STEPS = 0, 16, 40
PROMPTS = [RolloutPrompt(str(ask), (ask,)) for ask in range(1, 7)]
Reward = Callable[[int, int], float]


def is_right(ask: int, answer: int) -> float:
    """The right answer to `ask` is eight more."""
    return float(answer == ask + 8)


def after_training(reward: Reward) -> Transformer:
    shape = ModelConfig(depth=1, hidden_size=32, head_dim=16, max_position_embeddings=16)
    model = Transformer(shape.shape(SIZE))
    initialize(model, 3)
    optimizer = build_optimizer(model, OptimizerConfig(kind="adamw", learning_rate=0.02))

    def grade(prompt_id: str, completion: Completion) -> Score:
        return Score(reward(int(prompt_id), completion.ids[0]), prompt_id, "")

    def batches() -> Iterator[RolloutBatch]:
        for step in range(1, STEPS + 1):
            rollouts = sample_rollouts(
                model,
                PROMPTS,
                grade,
                num_generations=16,
                sampling=Sampling(max_new_tokens=1),
                seed=1,
                step=step,
                stop_ids=(STOP,),
                end_of_text=STOP,
            )
            none = torch.zeros((0, 1), dtype=torch.int64)
            yield rollouts.batch or RolloutBatch(
                Batch(none, none, none.float(), none), torch.zeros(0), none.float(), retention=None
            )

    runtime = Runtime(torch.device("cpu"), torch.float32)
    results = train_steps(
        model,
        optimizer,
        PolicyGradient(),
        batches(),
        runtime,
        steps=range(1, STEPS + 1),
        microbatch_rows=128,
        schedule=lambda step: min(1.0, step / 10),
        max_grad_norm=1.0,
    )
    assert sum(not result.skipped for result in list(results)) > STEPS // 2
    return model


def accuracy(model: Transformer) -> float:
    """How often a sampled answer is right."""
    sampling = Sampling(max_new_tokens=1)
    requests = [Request(p.ids, sampling, seed) for p in PROMPTS for seed in range(50)]
    answers = generate(model, requests, stop_ids=(STOP,))
    pairs = zip(requests, answers, strict=True)
    return sum(is_right(one.prompt[0], got.ids[0]) for one, got in pairs) / len(requests)


def test_the_rewarded_answer_is_learnt() -> None:
    assert accuracy(after_training(is_right)) > 0.9


@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_reward_lifts_nothing(seed: int) -> None:
    rng = Random(seed)

    assert accuracy(after_training(lambda _ask, _answer: float(rng.random() < 0.5))) < 0.3
