"""Log-probabilities of given ids, without ever holding all logits of a large batch.

What is made of them is `train.objectives`' duty.

B rows, T tokens of a row, P = B x T positions, D hidden size, V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from penjing.model.kernels import weighted_loss
from penjing.model.language_model import LanguageModel

MAX_LOGITS = 2**24
"""Logits that exist at a time: 64 MiB of float32."""


def token_logprobs(
    model: LanguageModel,
    tokens_BT: Tensor,
    targets_BT: Tensor,
    document_ids_BT: Tensor | None = None,
    *,
    max_logits: int = MAX_LOGITS,
) -> Tensor:
    """Natural log p(target | its document up to the token), differentiable.

    Where one chunk is not enough, logits are made again in the backward pass.

    Returns:
        (B, T) float32.
    """
    hidden_PD = model.hidden(tokens_BT, document_ids_BT).flatten(0, 1)
    targets_P = targets_BT.flatten()
    size = max(1, max_logits // model.shape.vocab_size)
    if len(targets_P) <= size:
        return _logprobs(model, hidden_PD, targets_P).view_as(targets_BT)
    chunks = zip(torch.split(hidden_PD, size), torch.split(targets_P, size), strict=True)
    parts = [
        checkpoint(_logprobs, model, hidden, targets, use_reentrant=False, preserve_rng_state=False)
        for hidden, targets in chunks
    ]
    return torch.cat(parts).view_as(targets_BT)


def weighted_nll(
    model: LanguageModel,
    tokens_BT: Tensor,
    targets_BT: Tensor,
    weights_BT: Tensor,
    document_ids_BT: Tensor | None = None,
) -> Tensor:
    """The sum of weights x -ln p(target | its document up to the token), differentiable.

    As `token_logprobs`, but the weights are known beforehand, so that no logits are made twice.

    Returns:
        A float32 scalar.
    """
    hidden_PD = model.hidden(tokens_BT, document_ids_BT).flatten(0, 1)
    targets_P, weights_P = targets_BT.flatten(), weights_BT.flatten()
    head_VD, softcap = model.head_weight, model.softcap
    return weighted_loss(hidden_PD, head_VD, targets_P, weights_P, softcap, model.chunk_loss)


def _logprobs(model: LanguageModel, hidden_PD: Tensor, targets_P: Tensor) -> Tensor:
    return -functional.cross_entropy(model.logits(hidden_PD), targets_P, reduction="none")
