"""How large a model is and what a token costs, from its shape alone; nothing is built."""

from dataclasses import dataclass

from penjing.config.schema import ModelShape


@dataclass(frozen=True)
class ParameterCounts:
    """`matmul` are the weights that every token is multiplied by; a tied table counts once."""

    total: int
    embedding: int
    matmul: int


def parameters(shape: ModelShape) -> ParameterCounts:
    hidden, width = shape.hidden_size, shape.head_dim
    heads = 2 * shape.num_attention_heads + 2 * shape.num_key_value_heads
    layer = hidden * width * heads + 3 * hidden * shape.intermediate_size
    norms = shape.num_hidden_layers * 2 * (hidden + width) + hidden
    embedding = shape.vocab_size * hidden
    matmul = shape.num_hidden_layers * layer + embedding
    untied = 0 if shape.tie_word_embeddings else embedding
    return ParameterCounts(matmul + norms + untied, embedding, matmul)


def flops_per_token(shape: ModelShape, context: int) -> int:
    """Floating-point operations of forward and backward, causal attention at `context` tokens.

    Source: performance.md §5, convention A: 6 x matmul parameters + 6 L H hd T.
    """
    attention = shape.num_hidden_layers * shape.num_attention_heads * shape.head_dim * context
    return 6 * parameters(shape).matmul + 6 * attention
