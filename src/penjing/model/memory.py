"""The memory of training, from a model's shape: weights, gradients, optimizer, activations.

An estimate: `penjing plan` measures. What fits is decided with it before the first step, and by the
first step itself.
"""

from penjing.model.language_model import LanguageModel

ACTIVATION_BYTES = 4
STATE_BYTES = 4 + 4 + 8
"""Of each weight: master, gradient and, at most, two moments of the optimizer."""


def training_bytes(model: LanguageModel, rows: int, tokens: int) -> int:
    """Bytes of one forward and backward pass over `rows` x `tokens`, optimizer included.

    Kept for the backward pass of a layer are, in elements a token: 10 hidden sizes (norms, their
    outputs, the residual stream, projections), 5 inner widths of the MLP, 4 widths of all heads,
    and on a CPU the attention weights, half of a row a head. Checkpointed blocks keep their inputs,
    and one block all of that.
    """
    shape = model.shape
    heads = shape.num_attention_heads * shape.head_dim
    layer = 10 * shape.hidden_size + 5 * shape.intermediate_size + 4 * heads
    if model.head_weight.device.type == "cpu":
        layer += shape.num_attention_heads * (tokens + 64) // 2
    kept = shape.num_hidden_layers * layer
    if model.checkpoints_blocks:
        kept = layer + shape.num_hidden_layers * shape.hidden_size
    weights = sum(parameter.numel() for parameter in model.parameters())
    return STATE_BYTES * weights + ACTIVATION_BYTES * rows * tokens * kept
