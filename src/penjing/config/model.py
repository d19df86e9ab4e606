"""`[model]`: one dial, and the numbers of a model that follow from it.

Counting its weights and operations is `model.size`'s duty.
"""

from dataclasses import dataclass
from typing import Literal

from penjing.config.fields import Problems, setting

OWN_SETTINGS = {
    "rope_theta": ("qwen3", "racing"),
    "dropout": ("gpt2",),
    "logit_softcap": ("racing",),
    "value_embeddings": ("racing",),
    "residual_scalars": ("racing",),
}
"""Settings that only these architectures have."""


@dataclass(frozen=True)
class ModelConfig:
    """`[model]`: one dial, `depth`; every other value is derived from it unless given."""

    architecture: Literal["qwen3", "gpt2", "racing"] = setting(
        "qwen3",
        "qwen3: its folders load in any runtime; gpt2: as others published it; racing: nanochat's "
        "shape and more, not portable: only Penjing runs it",
        later=True,
    )
    depth: int = setting(4, "number of transformer blocks", at_least=1, at_most=200)
    num_hidden_layers: int | None = setting(None, "blocks; default: depth", at_least=1, at_most=200)
    hidden_size: int | None = setting(None, "model width; default 64 x depth", at_least=8)
    num_attention_heads: int | None = setting(
        None, "query heads; default hidden_size / head_dim", at_least=1
    )
    num_key_value_heads: int | None = setting(
        None,
        "key/value heads; default: as many as query heads below depth 8, else 2 (qwen3 only; the "
        "others: as many as query heads)",
        at_least=1,
    )
    head_dim: int = setting(
        64, "width of one head (gpt2, racing: or as near to it as divides the width)", at_least=2
    )
    intermediate_size: int | None = setting(
        None,
        "width inside the MLP; default: qwen3 8/3 x hidden_size, rounded up to 64, else 4 x",
        at_least=8,
    )
    max_position_embeddings: int = setting(256, "context length in tokens", at_least=16)
    rope_theta: float = setting(10_000.0, "base of the rotary frequencies", above=1)
    rms_norm_eps: float = setting(1e-6, "added to the mean square in every norm", above=0)
    tie_word_embeddings: bool = setting(False, "use the embedding table as the head")
    dropout: float = setting(
        0.0, "share of units dropped in training (gpt2)", at_least=0, at_most=0.9, later=True
    )
    logit_softcap: float | None = setting(None, "logits are bounded by it (racing)", above=0)
    value_embeddings: bool = setting(
        False, "a table of values in every second layer (racing)", later=True
    )
    residual_scalars: bool = setting(
        False, "learned weights of the residual stream (racing)", later=True
    )

    def problems(self) -> Problems:
        shape = self.shape(vocab_size=1)
        found: Problems = []
        if shape.num_attention_heads % shape.num_key_value_heads:
            found.append(
                (
                    "num_key_value_heads",
                    f"{shape.num_key_value_heads} does not divide the {shape.num_attention_heads} "
                    "query heads: choose a divisor",
                )
            )
        if shape.head_dim % 2:
            found.append(("head_dim", f"{shape.head_dim} is odd: rotary positions need pairs"))
        if self.architecture == "gpt2":
            if shape.num_attention_heads * shape.head_dim != shape.hidden_size:
                found.append(
                    (
                        "num_attention_heads",
                        f"{shape.num_attention_heads} does not divide the width of "
                        f"{shape.hidden_size}: choose a divisor",
                    )
                )
            if shape.num_key_value_heads != shape.num_attention_heads:
                found.append(("num_key_value_heads", "gpt2 has as many as query heads"))
        for name, owners in OWN_SETTINGS.items():
            default = type(self).__dataclass_fields__[name].default
            if self.architecture not in owners and getattr(self, name) != default:
                wanted = " and ".join(owners)
                found.append((name, f'means nothing to "{self.architecture}": for {wanted} only'))
        return found

    def shape(self, vocab_size: int) -> "ModelShape":
        """Every number of the model. Sources: width 64 x depth (nanochat), SwiGLU
        8/3 (arXiv:2002.05202), else 4 x (arXiv:1706.03762), few key/value heads (arXiv:2305.13245).
        """
        portable = self.architecture == "qwen3"
        hidden = self.hidden_size or 64 * self.depth
        heads, head_dim = self.num_attention_heads, self.head_dim
        if portable:
            heads = heads or max(1, hidden // head_dim)
        else:
            heads = heads or find_num_heads(hidden, head_dim)
            head_dim = max(1, hidden // heads)
        few = portable and self.depth >= 8
        intermediate = -(-hidden * 8 // (3 * 64)) * 64 if portable else 4 * hidden
        return ModelShape(
            vocab_size=vocab_size,
            num_hidden_layers=self.num_hidden_layers or self.depth,
            hidden_size=hidden,
            num_attention_heads=heads,
            num_key_value_heads=self.num_key_value_heads or (min(heads, 2) if few else heads),
            head_dim=head_dim,
            intermediate_size=self.intermediate_size or intermediate,
            max_position_embeddings=self.max_position_embeddings,
            rope_theta=self.rope_theta,
            rms_norm_eps=self.rms_norm_eps,
            tie_word_embeddings=self.tie_word_embeddings,
            architecture=self.architecture,
            dropout=self.dropout,
            logit_softcap=self.logit_softcap,
            value_embeddings=self.value_embeddings,
            residual_scalars=self.residual_scalars,
        )


def find_num_heads(hidden_size: int, head_dim: int) -> int:
    """The number of heads that divides the width and comes nearest to heads of `head_dim`.
    Source: nanochat's function of the same name.
    """
    ideal = max(1, round(hidden_size / head_dim))
    nearest = sorted(range(1, hidden_size + 1), key=lambda heads: (abs(heads - ideal), -heads))
    return next(heads for heads in nearest if hidden_size % heads == 0)


@dataclass(frozen=True)
class ModelShape:
    """The resolved shape of one model, as its checkpoint's `config.json` states it."""

    vocab_size: int
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    max_position_embeddings: int
    rope_theta: float
    rms_norm_eps: float
    tie_word_embeddings: bool
    architecture: str = "qwen3"
    dropout: float = 0.0
    logit_softcap: float | None = None
    value_embeddings: bool = False
    residual_scalars: bool = False
