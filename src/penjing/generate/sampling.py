"""From logits to tokens: temperature, top-k, top-p and the inverse of the distribution function.

Every request has its own uniform numbers, one a completion position, so that what it samples does
not depend on the rows beside it. It runs no model and knows no stop token.

B rows, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from penjing.errors import ConfigError

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sampling:
    """How tokens are taken: temperature 0 is greedy; `top_k` 0 and `top_p` 1 filter nothing.

    `max_new_tokens` counts everything after the prompt, tool turns included.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 96

    def __post_init__(self) -> None:
        """Raises ConfigError for a value out of range."""
        for name, wanted, fits in (
            ("temperature", ">= 0", 0 <= self.temperature < float("inf")),
            ("top_k", ">= 0 (0: no limit)", self.top_k >= 0),
            ("top_p", "in (0, 1]", 0 < self.top_p <= 1),
            ("max_new_tokens", ">= 1", self.max_new_tokens >= 1),
        ):
            if not fits:
                raise ConfigError(f"{name} is {getattr(self, name)}: must be {wanted}")


def uniforms(seed: int, count: int) -> Floats:
    """(count,) in [0, 1): number i depends on the seed and i alone (Philox).

    Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
    """
    return np.random.Generator(np.random.Philox(key=seed)).random(count, dtype=np.float32)


def choose(
    logits_BV: Tensor, samplings: Sequence[Sampling], uniforms_B: Floats
) -> tuple[Integers, Floats]:
    """One token a row by inverse CDF, with its log-probability under what was sampled from.

    All of it is float32: tokens rarer than 2^-24 are out of reach, nothing else changes. Greedy
    is top-k 1, so a greedy token is certain: its log-probability is 0.
    """
    if all(sampling.temperature == 0 for sampling in samplings):
        return logits_BV.argmax(-1).cpu().numpy(), np.zeros(len(samplings), np.float32)
    device = logits_BV.device
    scales = [sampling.temperature or 1.0 for sampling in samplings]
    logprobs_BV = (logits_BV / torch.tensor(scales, device=device)[:, None]).log_softmax(-1)
    if any(s.top_k or s.top_p < 1 or s.temperature == 0 for s in samplings):
        logprobs_BV = _filtered(logprobs_BV, samplings)
    cdf_BV = logprobs_BV.exp().cumsum(-1)
    # u < 1 makes u x total < total in floating point too, so the index stays below V; the clamp
    # keeps the NaN of a broken model from indexing past the end.
    wanted_B1 = torch.from_numpy(uniforms_B).to(device)[:, None] * cdf_BV[:, -1:]
    token_B1 = torch.searchsorted(cdf_BV, wanted_B1, right=True).clamp_(max=cdf_BV.shape[1] - 1)
    logprob_B = logprobs_BV.gather(1, token_B1)[:, 0]
    return token_B1[:, 0].cpu().numpy(), logprob_B.cpu().numpy()


def _filtered(logprobs_BV: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """(B, V): -inf outside each row's top-k, then top-p; the rest normalized again.

    Exactly k tokens stay, the lower id first among equals; of these the fewest whose share
    reaches p. Source: arXiv:1904.09751, section 3.1.
    """
    device, vocabulary = logprobs_BV.device, logprobs_BV.shape[1]
    sorted_BV, order_BV = logprobs_BV.sort(stable=True, dim=-1, descending=True)
    limits = [1 if s.temperature == 0 else s.top_k or vocabulary for s in samplings]
    rank_V = torch.arange(vocabulary, device=device)
    outside_BV = rank_V >= torch.tensor(limits, device=device)[:, None]
    shares_BV = sorted_BV.masked_fill(outside_BV, float("-inf")).softmax(-1)
    top_p_B1 = torch.tensor([sampling.top_p for sampling in samplings], device=device)[:, None]
    reached_BV = shares_BV.cumsum(-1) - shares_BV >= top_p_B1
    outside_BV |= reached_BV & (top_p_B1 < 1)
    dropped_BV = torch.empty_like(outside_BV).scatter_(1, order_BV, outside_BV)
    return logprobs_BV.masked_fill(dropped_BV, float("-inf")).log_softmax(-1)
