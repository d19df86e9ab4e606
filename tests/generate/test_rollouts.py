"""Groups, advantages and masks, on answers written by hand and on a tiny model."""

import numpy as np
import pytest
import torch

from penjing.config.model import ModelConfig
from penjing.generate.engine import Completion
from penjing.generate.rollouts import (
    RolloutPrompt,
    Rollouts,
    Score,
    rollout_batch,
    sample_rollouts,
)
from penjing.generate.sampling import Sampling
from penjing.model.likelihood import token_logprobs
from penjing.model.transformer import Transformer

PROMPTS = [RolloutPrompt("a", (1, 2, 3)), RolloutPrompt("b", (4,)), RolloutPrompt("c", (5, 6))]


@pytest.fixture(scope="module")
def model() -> Transformer:
    config = ModelConfig(depth=1, hidden_size=16, head_dim=8, max_position_embeddings=32)
    made = Transformer(config.shape(vocab_size=32))
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim == 2:
                weight.normal_(std=0.3, generator=torch.Generator().manual_seed(weight.numel()))
    return made


def by_first_token(prompt_id: str, completion: Completion) -> Score:
    """Problem b is always right; the others are right when the first token is even."""
    reward = 1.0 if prompt_id == "b" else float(completion.ids[0] % 2 == 0)
    return Score(reward, prompt=f"<{prompt_id}>", text=str(completion.ids))


def sample(model: Transformer, *, step: int = 1, prompts: list[RolloutPrompt]) -> Rollouts:
    return sample_rollouts(
        model,
        prompts,
        by_first_token,
        num_generations=6,
        sampling=Sampling(max_new_tokens=8),
        seed=3,
        step=step,
        stop_ids=(30, 31),
        end_of_text=29,
    )


def test_weight_and_logprob_stand_where_a_sampled_token_is_the_target() -> None:
    tool = Completion(
        ids=(10, 11, 20, 21, 12),
        sampled=(True, True, False, False, True),
        logprobs=(-0.1, -0.2, 0.0, 0.0, -0.3),
        finish_reason="stop",
        tool_calls=1,
    )
    short = Completion((13,), (True,), (-0.4,), "length", 0)
    made = rollout_batch([(1, 2), (3,)], [tool, short], np.array([0.5, -0.5]), end_of_text=0)
    assert made.batch.tokens.tolist() == [[1, 2, 10, 11, 20, 21], [3, 0, 0, 0, 0, 0]]
    assert made.batch.targets.tolist() == [[2, 10, 11, 20, 21, 12], [13, 0, 0, 0, 0, 0]]
    assert made.batch.loss_weights.tolist() == [[0, 1, 1, 0, 0, 1], [1, 0, 0, 0, 0, 0]]
    assert made.sampled_logprobs.numpy() == pytest.approx(
        np.array([[0, -0.1, -0.2, 0, 0, -0.3], [-0.4, 0, 0, 0, 0, 0]])
    )
    assert made.advantages.tolist() == [0.5, -0.5]
    assert made.retention is None


def test_an_advantage_is_the_reward_minus_the_mean_of_its_group(model: Transformer) -> None:
    rollouts = sample(model, prompts=PROMPTS)
    assert [(one.prompt_id, one.sample) for one in rollouts.records] == [
        (name, number) for name in "abc" for number in range(6)
    ]
    for start in (0, 6, 12):
        group = rollouts.records[start : start + 6]
        mean = sum(one.reward for one in group) / 6
        assert [one.advantage for one in group] == pytest.approx([r.reward - mean for r in group])


def test_groups_of_one_reward_are_recorded_but_not_trained(model: Transformer) -> None:
    rollouts = sample(model, prompts=PROMPTS)
    assert rollouts.batch is not None
    assert rollouts.batch.rows == 12
    assert 4 not in rollouts.batch.batch.tokens[:, 0]
    assert rollouts.values["frac_zero_variance"] == pytest.approx(1 / 3)
    trained = [one.advantage for one in rollouts.records if one.prompt_id != "b"]
    assert sorted(rollouts.batch.advantages.tolist()) == pytest.approx(sorted(trained))


def test_longer_rollouts_come_first_each_with_its_own_advantage(model: Transformer) -> None:
    rollouts = sample(model, prompts=PROMPTS)
    assert rollouts.batch is not None
    lengths = (rollouts.batch.batch.document_ids >= 0).sum(1).tolist()
    assert lengths == sorted(lengths, reverse=True)
    prompts = {prompt.id: len(prompt.ids) for prompt in PROMPTS}
    recorded = [
        (prompts[one.prompt_id] + one.tokens - 1, one.advantage)
        for one in rollouts.records
        if one.prompt_id != "b"
    ]
    made = zip(lengths, rollouts.batch.advantages.tolist(), strict=True)
    assert np.array(sorted(made)) == pytest.approx(np.array(sorted(recorded)))


def test_without_any_variance_there_is_no_batch(model: Transformer) -> None:
    rollouts = sample(model, prompts=[PROMPTS[1]])
    assert rollouts.batch is None
    assert len(rollouts.records) == 6
    assert rollouts.values["reward"] == 1
    assert rollouts.values["reward_std"] == 0


def test_the_values_are_those_of_the_records(model: Transformer) -> None:
    rollouts = sample(model, prompts=PROMPTS)
    records = rollouts.records
    assert rollouts.values == pytest.approx({
        "reward": np.mean([one.reward for one in records]),
        "reward_std": np.std([one.reward for one in records]),
        "frac_zero_variance": 1 / 3,
        "completion_length": np.mean([one.tokens for one in records]),
        "truncated_ratio": np.mean([one.finish_reason == "length" for one in records]),
        "tool_calls": 0,
        "generated_tokens": sum(one.sampled_tokens for one in records),
    })  # fmt: skip
    assert {one.prompt for one in records} == {"<a>", "<b>", "<c>"}


def test_a_prompt_is_answered_alike_in_other_company_and_anew_in_another_step(
    model: Transformer,
) -> None:
    together = [one.text for one in sample(model, prompts=PROMPTS).records[12:]]
    alone = [one.text for one in sample(model, prompts=[PROMPTS[2]]).records]
    later = [one.text for one in sample(model, prompts=[PROMPTS[2]], step=2).records]
    assert alone == together
    assert later != together


def test_the_trainer_recomputes_the_sampled_logprobs(model: Transformer) -> None:
    made = sample(model, prompts=PROMPTS).batch
    assert made is not None
    batch = made.batch
    with torch.no_grad():
        again = token_logprobs(model, batch.tokens, batch.targets, batch.document_ids)
    assert ((again - made.sampled_logprobs) * batch.loss_weights).abs().max() <= 1e-4
