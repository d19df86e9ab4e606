"""The memory of training, from a model's shape: weights, gradients, optimizer, activations.

An estimate: `penjing plan` measures. What fits is decided with it before the first step, and by the
first step itself.
"""

from penjing.config.model import ModelShape
from penjing.model.size import parameters

ACTIVATION_BYTES = 4
STATE_BYTES = 4 + 4 + 8
"""Of each weight: master, gradient and, at most, two moments of the optimizer."""


def training_bytes(
    shape: ModelShape, rows: int, tokens: int, *, keeps_attention: bool, checkpoints_blocks: bool
) -> int:
    """Bytes of one forward and backward pass over `rows` x `tokens`, optimizer included.

    Kept for the backward pass of a layer are, in elements a token: 10 hidden sizes (norms, their
    outputs, the residual stream, projections), 5 inner widths of the MLP, 4 widths of all heads,
    and where attention keeps its weights (`model.causal`) half of a row a head. Checkpointed blocks
    keep their inputs, and one block all of that.
    """
    heads = shape.num_attention_heads * shape.head_dim
    layer = 10 * shape.hidden_size + 5 * shape.intermediate_size + 4 * heads
    if keeps_attention:
        layer += shape.num_attention_heads * (tokens + 64) // 2
    kept = shape.num_hidden_layers * layer
    if checkpoints_blocks:
        kept = layer + shape.num_hidden_layers * shape.hidden_size
    return STATE_BYTES * parameters(shape).total + ACTIVATION_BYTES * rows * tokens * kept
