import math
from collections.abc import Callable
from dataclasses import replace
from itertools import chain

import pytest
import torch

from penjing.data.batches import Batch, PreferenceBatch, RolloutBatch
from penjing.model.likelihood import token_logprobs
from penjing.model.transformer import Transformer
from penjing.runtime import Runtime
from penjing.train.objectives import (
    PolicyGradient,
    PreferenceObjective,
    balance_retention,
    next_token,
)

MakeModel = Callable[..., Transformer]
MakeBatch = Callable[..., Batch]

RUNTIME = Runtime(torch.device("cpu"), torch.float32)


def logprobs(model: Transformer, batch: Batch) -> list[list[float]]:
    """By whole logits, and only where a target is trained (else 0)."""
    with torch.no_grad():
        rows = model(batch.tokens, batch.document_ids).log_softmax(-1)
        picked = rows.gather(-1, batch.targets[..., None])[..., 0] * batch.loss_weights
    found: list[list[float]] = picked.tolist()
    return found


def rollouts(make_batch: MakeBatch, retention: Batch | None = None) -> RolloutBatch:
    batch = make_batch(rows=3)
    advantages = torch.tensor([0.75, -0.25, -0.5])
    return RolloutBatch(batch, advantages, torch.full((3, 8), -2.0), retention)


def test_next_token_is_the_sum_of_the_trained_targets(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    model, batch = make_model(), make_batch()
    loss = next_token(model, batch)
    assert loss.total.item() == pytest.approx(-sum(map(sum, logprobs(model, batch))), rel=1e-5)
    assert loss.terms.item() == batch.loss_weights.sum().item()


def test_preferences_follow_the_formula(make_model: MakeModel, make_batch: MakeBatch) -> None:
    model, chosen, rejected = make_model(), make_batch(1, rows=2), make_batch(2, rows=2, tokens=6)
    pairs = PreferenceBatch(
        chosen, rejected, torch.tensor([-3.0, -20.0]), torch.tensor([-1.0, -9.0])
    )
    loss = PreferenceObjective(beta=0.3)(model, pairs)
    wins = [sum(row) for row in logprobs(model, chosen)]
    losses = [sum(row) for row in logprobs(model, rejected)]
    margins = [
        0.3 * ((wins[0] + 3.0) - (losses[0] + 1.0)),
        0.3 * ((wins[1] + 20.0) - (losses[1] + 9.0)),
    ]
    wanted = sum(math.log1p(math.exp(-margin)) for margin in margins)
    assert loss.total.item() == pytest.approx(wanted, rel=1e-5)
    assert loss.terms.item() == 2
    found = {name: (total.item(), count.item()) for name, (total, count) in loss.metrics.items()}
    assert found["margin"] == pytest.approx((sum(margins), 2), rel=1e-4)
    assert found["margin_accuracy"] == (sum(margin > 0 for margin in margins), 2)
    assert found["chosen_logprob"][0] == pytest.approx(sum(wins), rel=1e-5)
    assert found["rejected_logprob"][0] == pytest.approx(sum(losses), rel=1e-5)


def test_the_policy_gradient_weighs_every_sampled_token_alike(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    model, batch = make_model(), rollouts(make_batch)
    loss = PolicyGradient()(model, batch)
    rows = logprobs(model, batch.batch)
    wanted = -(0.75 * sum(rows[0]) - 0.25 * sum(rows[1]) - 0.5 * sum(rows[2]))
    assert loss.total.item() == pytest.approx(wanted, rel=1e-5)
    assert loss.terms.item() == batch.batch.loss_weights.sum().item()
    total, count = loss.metrics["entropy"]
    assert (total / count).item() == pytest.approx(
        -sum(map(sum, rows)) / loss.terms.item(), rel=1e-5
    )


def test_what_the_sampler_said_is_compared_at_sampled_tokens_only(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    model, batch = make_model(), rollouts(make_batch)
    exact = torch.tensor(logprobs(model, batch.batch))
    sampled = torch.where(batch.batch.loss_weights > 0, exact, torch.nan)
    same = PolicyGradient()(model, replace(batch, sampled_logprobs=sampled))
    assert same.maxima["max_logprob_difference"].item() < 1e-5
    sampled[1, 0] -= 0.5
    other = PolicyGradient()(model, replace(batch, sampled_logprobs=sampled))
    assert other.maxima["max_logprob_difference"].item() == pytest.approx(0.5, abs=1e-5)
    assert other.metrics["sampler_kl"][0].item() == pytest.approx(math.exp(0.5) - 1.5, abs=1e-4)


def test_the_kl_penalty_is_k3_and_pulls_towards_the_reference(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    model, reference, batch = make_model(), make_model(1), rollouts(make_batch)
    plain = PolicyGradient()(model, batch)
    loss = PolicyGradient(kl_beta=0.2, reference=reference)(model, batch)
    own, others = logprobs(model, batch.batch), logprobs(reference, batch.batch)
    pairs = zip(chain(*own), chain(*others), strict=True)
    kl = sum(math.exp(b - a) - (b - a) - 1 for a, b in pairs)
    assert (loss.total - plain.total).item() == pytest.approx(0.2 * kl, rel=1e-3)
    assert loss.metrics["kl"][0].item() == pytest.approx(kl, rel=1e-4)
    assert all(parameter.grad is None for parameter in reference.parameters())


def test_balanced_retention_adds_its_weight_times_its_own_mean(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    model, kept = make_model(), make_batch(5, rows=4)
    batch = balance_retention(rollouts(make_batch, kept), RUNTIME)
    plain = PolicyGradient()(model, rollouts(make_batch))
    mean = next_token(model, kept).total / kept.loss_weights.sum()
    total = terms = 0.0
    for part in batch.split(2):
        loss = PolicyGradient(retention_weight=0.5)(model, part)
        total, terms = total + loss.total.item(), terms + loss.terms.item()
    wanted = plain.total / plain.terms + 0.5 * mean
    assert total / terms == pytest.approx(wanted.item(), rel=1e-5)


def test_a_part_without_rollouts_still_trains_its_retention_rows(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    nothing = make_batch(rows=0)
    batch = RolloutBatch(nothing, torch.zeros(0), torch.zeros(0, 8), make_batch())
    loss = PolicyGradient()(make_model(), batch)
    assert loss.terms.item() == 0
    assert loss.total.requires_grad
    assert not loss.maxima


def test_untrained_targets_get_exactly_no_gradient(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    model, batch = make_model(), make_batch()
    picked = token_logprobs(model, batch.tokens, batch.targets, batch.document_ids)
    picked.retain_grad()
    (-(picked * batch.loss_weights).sum()).backward()  # type: ignore[no-untyped-call]
    assert picked.grad is not None
    assert not picked.grad[batch.loss_weights == 0].any()
