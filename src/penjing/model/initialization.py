"""Starting weights: every tensor from its own seed, so that no order of modules matters.

It does not load weights: that is `model.weights`'.
"""

import torch

from penjing.model.transformer import Transformer
from penjing.seeds import seed_for

EMBEDDING_STD = 0.8
TIED_EMBEDDING_STD = 0.02  # a head of std 0.8 would start with logits of std 0.8 sqrt(d)
HEAD_STD = 0.001
INPUT_STD = {"q_proj": 1.0, "k_proj": 1.0, "v_proj": 1.0, "gate_proj": 0.6, "up_proj": 0.6}
"""In units of 1 / sqrt(hidden_size)."""
ZERO = ("o_proj", "down_proj")


@torch.no_grad()
def initialize(model: Transformer, seed: int) -> None:
    """Fill every parameter in place; draws are made on the CPU, equal on every device.

    Embedding normal 0.8 (0.02 if tied), head normal 0.001, q/k/v uniform with std 1/sqrt(d),
    gate/up 0.6 of it, output projections 0, norms 1. Source: nanochat's recipe, measured in
    performance.md §3.
    """
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(seed_for(seed, "initialization", name))
        value = torch.empty(parameter.shape)
        kind = name.split(".")[-2]
        if kind == "embed_tokens":
            std = TIED_EMBEDDING_STD if model.shape.tie_word_embeddings else EMBEDDING_STD
            value.normal_(std=std, generator=generator)
        elif kind == "lm_head":
            value.normal_(std=HEAD_STD, generator=generator)
        elif kind in INPUT_STD:
            bound = INPUT_STD[kind] * (3 / model.shape.hidden_size) ** 0.5
            value.uniform_(-bound, bound, generator=generator)
        elif kind in ZERO:
            value.zero_()
        else:
            value.fill_(1.0)
        parameter.copy_(value)
