"""Starting weights: every tensor from its own seed, so that no order of modules matters.

It does not load weights: that is `model.weights`'.
"""

import torch
from torch import Tensor

from penjing.model.language_model import LanguageModel
from penjing.seeds import seed_for

EMBEDDING_STD = 0.8
TIED_EMBEDDING_STD = 0.02  # a head of std 0.8 would start with logits of std 0.8 sqrt(d)
HEAD_STD = 0.001
GPT2_STD = 0.02
INPUT_STD = {
    "q_proj": 1.0,
    "k_proj": 1.0,
    "v_proj": 1.0,
    "gate_proj": 0.6,
    "up_proj": 0.6,
    "c_q": 1.0,
    "c_k": 1.0,
    "c_v": 1.0,
    "c_fc": 0.4,
    "value_embeds": 1.0,
}
"""In units of 1 / sqrt(hidden_size)."""
ZERO = ("o_proj", "down_proj", "c_proj")


@torch.no_grad()
def initialize(model: LanguageModel, seed: int) -> None:
    """Fill every parameter in place; draws are made on the CPU, equal on every device.

    Embedding normal 0.8 (0.02 if tied), head normal 0.001, q/k/v uniform with std 1/sqrt(d),
    gate/up 0.6 of it (ReLU squared: 0.4), output projections 0, norms 1; GPT-2: normal 0.02, output
    projections by 1/sqrt(2 L) less. Sources: nanochat's recipe, measured in performance.md §3; the
    GPT-2 report.
    """
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(seed_for(seed, "initialization", name))
        value = torch.empty(parameter.shape)
        if model.shape.architecture == "gpt2":
            _fill_gpt2(value, name, model, generator)
        else:
            _fill(value, name, model, generator)
        parameter.copy_(value)


def _fill(value: Tensor, name: str, model: LanguageModel, generator: torch.Generator) -> None:
    parts = name.split(".")
    kind = parts[0] if parts[0] == "value_embeds" or len(parts) == 1 else parts[-2]
    if kind in ("embed_tokens", "wte"):
        std = TIED_EMBEDDING_STD if model.shape.tie_word_embeddings else EMBEDDING_STD
        value.normal_(std=std, generator=generator)
    elif kind == "lm_head":
        value.normal_(std=HEAD_STD, generator=generator)
    elif kind in INPUT_STD:
        bound = INPUT_STD[kind] * (3 / model.shape.hidden_size) ** 0.5
        value.uniform_(-bound, bound, generator=generator)
    elif kind == "value_gate":
        value.uniform_(0.0, 0.02, generator=generator)
    elif kind in ZERO:
        value.zero_()
    elif kind in ("residual_scales", "embedding_scales"):
        # Early layers keep and take up more of the embedding. Source: nanochat.
        last, fall = (1.15, 0.10) if kind == "residual_scales" else (0.20, 0.15)
        depth = torch.linspace(0, 1, len(value)) if len(value) > 1 else torch.zeros(1)
        value.copy_(last - fall * depth)
    else:
        value.fill_(1.0)


def _fill_gpt2(value: Tensor, name: str, model: LanguageModel, generator: torch.Generator) -> None:
    kind = name.split(".")[-2]
    if name.endswith(".bias"):
        value.zero_()
    elif value.ndim == 1:
        value.fill_(1.0)
    else:
        few = (2 * model.shape.num_hidden_layers) ** -0.5 if kind == "c_proj" else 1.0
        value.normal_(std=GPT2_STD * few, generator=generator)
