"""What a training stage minimizes: each objective gives a sum over targets and their count.

Dividing is `train.loop`'s duty, once a step, over all microbatches and ranks.

B rows, T positions.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from penjing.data.batches import Batch, PreferenceBatch, RolloutBatch
from penjing.model.language_model import LanguageModel
from penjing.model.likelihood import token_logprobs, weighted_nll
from penjing.runtime import Runtime


@dataclass(frozen=True)
class Loss:
    """The loss of some rows, not yet divided by anything.

    `metrics` are (sum, count) pairs, added up and divided like the loss, each by its own count;
    of `maxima` the largest value of the step is kept.
    """

    total: Tensor
    """() sum over targets, differentiable."""
    terms: Tensor
    """() number of targets, or the sum of their weights."""
    tokens: Tensor
    """() positions that were computed, padding left out."""
    metrics: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    maxima: Mapping[str, Tensor] = field(default_factory=dict)


def _logprobs(model: LanguageModel, batch: Batch) -> Tensor:
    """(B, T) float32; of no rows without asking the model."""
    if not batch.rows:
        return batch.loss_weights.new_zeros(batch.targets.shape)
    return token_logprobs(model, batch.tokens, batch.targets, batch.document_ids)


def _tokens(batch: Batch) -> Tensor:
    return (batch.document_ids >= 0).sum()


def next_token(model: LanguageModel, batch: Batch) -> Loss:
    """Cross-entropy of the targets, in nats, times their weights."""
    weights_BT = batch.loss_weights
    total = weights_BT.new_zeros(())
    if batch.rows:
        total = weighted_nll(model, batch.tokens, batch.targets, weights_BT, batch.document_ids)
    tokens, positions = _tokens(batch), weights_BT.new_full((), weights_BT.numel())
    return Loss(total, weights_BT.sum(), tokens, {"utilization": (tokens, positions)})


@dataclass(frozen=True)
class PreferenceObjective:
    """Direct preference optimization, averaged over pairs. Source: arXiv:2305.18290, equation 7."""

    beta: float

    def __call__(self, model: LanguageModel, batch: PreferenceBatch) -> Loss:
        chosen_B = self._answers(model, batch.chosen)
        rejected_B = self._answers(model, batch.rejected)
        margins_B = self.beta * (
            (chosen_B - batch.reference_chosen) - (rejected_B - batch.reference_rejected)
        )
        pairs = margins_B.new_full((), batch.rows)
        sums = {
            "margin": margins_B,
            "margin_accuracy": (margins_B > 0).to(margins_B.dtype),
            "chosen_logprob": chosen_B,
            "rejected_logprob": rejected_B,
        }
        return Loss(
            -logsigmoid(margins_B).sum(),
            pairs,
            _tokens(batch.chosen) + _tokens(batch.rejected),
            {name: (value.detach().sum(), pairs) for name, value in sums.items()},
        )

    @staticmethod
    def _answers(model: LanguageModel, batch: Batch) -> Tensor:
        """(B,) log-probability of each whole answer."""
        return (_logprobs(model, batch) * batch.loss_weights).sum(1)


@dataclass(frozen=True)
class PolicyGradient:
    """Advantage times log-probability of sampled tokens, each token of the step weighing the same.

    There is no importance ratio: every batch is sampled from the weights that it updates. The
    optional penalty is the k3 estimate of KL(policy | reference) at the sampled tokens.
    Source: arXiv:2503.20783, equation 1 without its ratio; arXiv:2503.14476, section 3.3 (tokens of
    the whole batch weigh the same); arXiv:2402.03300, equation 4 (k3).

    Retention rows add `retention_weight` times their next-token loss. It is divided by the rollout
    targets like everything else, so `balance_retention` first makes the retention weights sum to
    that number: then it is `retention_weight` times the mean loss of the retention targets.
    """

    kl_beta: float = 0.0
    reference: LanguageModel | None = None
    retention_weight: float = 1.0

    def __call__(self, model: LanguageModel, batch: RolloutBatch) -> Loss:
        weights_BT = batch.batch.loss_weights
        logprobs_BT = _logprobs(model, batch.batch)
        total = -(batch.advantages[:, None] * logprobs_BT * weights_BT).sum()
        terms, tokens = weights_BT.sum(), _tokens(batch.batch)
        # What was not sampled has no log-probability to compare with, whatever stands there.
        apart_BT = torch.where(
            weights_BT > 0, logprobs_BT.detach() - batch.sampled_logprobs, weights_BT.new_zeros(())
        )
        metrics = {
            "entropy": (-(logprobs_BT.detach() * weights_BT).sum(), terms),
            "sampler_kl": (_k3(apart_BT).sum(), terms),
        }
        if self.reference is not None and self.kl_beta:
            with torch.no_grad():
                reference_BT = _logprobs(self.reference, batch.batch)
            kl = (_k3((reference_BT - logprobs_BT) * (weights_BT > 0)) * weights_BT).sum()
            total = total + self.kl_beta * kl
            metrics["kl"] = (kl.detach(), terms)
        if batch.retention is not None:
            kept = next_token(model, batch.retention)
            total = total + self.retention_weight * kept.total
            tokens = tokens + kept.tokens
            metrics["retention_loss"] = (kept.total.detach(), kept.terms)
        maxima = {"max_logprob_difference": apart_BT.abs().max()} if apart_BT.numel() else {}
        return Loss(total, terms, tokens, metrics, maxima)


def _k3(log_ratio: Tensor) -> Tensor:
    """exp(x) - x - 1: never negative, and an unbiased KL(p | q) for x = ln(q/p), p sampled."""
    return torch.expm1(log_ratio) - log_ratio


def balance_retention(batch: RolloutBatch, runtime: Runtime) -> RolloutBatch:
    """The batch with retention weights that sum, over all ranks, to its rollout targets.

    All ranks must call it, each with its part of the same step.
    """
    kept = float(batch.retention.loss_weights.sum()) if batch.retention else 0.0
    counts = runtime.gather([float(batch.batch.loss_weights.sum()), kept])
    rollout_targets, kept_targets = (sum(column) for column in zip(*counts, strict=True))
    if batch.retention is None or not kept_targets:
        return batch
    weights = batch.retention.loss_weights * (rollout_targets / kept_targets)
    return dataclasses.replace(
        batch, retention=dataclasses.replace(batch.retention, loss_weights=weights)
    )
