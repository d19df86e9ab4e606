"""How large a model is and what a token costs, from its shape alone; nothing is built."""

from dataclasses import dataclass

from penjing.config.model import ModelShape


@dataclass(frozen=True)
class ParameterCounts:
    """`matmul` are the weights that every token is multiplied by; a tied table counts once."""

    total: int
    embedding: int
    matmul: int


def parameters(shape: ModelShape) -> ParameterCounts:
    hidden, layers = shape.hidden_size, shape.num_hidden_layers
    heads = 2 * shape.num_attention_heads + 2 * shape.num_key_value_heads
    attention = hidden * shape.head_dim * heads
    embedding = shape.vocab_size * hidden
    tables = embedding if shape.tie_word_embeddings else 2 * embedding
    if shape.architecture == "gpt2":
        mlp, more = 2 * hidden * shape.intermediate_size, shape.max_position_embeddings * hidden
        biases = 5 * hidden + shape.intermediate_size
        more += layers * (biases + 4 * hidden) + 2 * hidden
    elif shape.architecture == "racing":
        mlp = 2 * hidden * shape.intermediate_size
        valued = sum(has_value_embedding(shape, layer) for layer in range(layers))
        gate = gate_inputs(shape) * shape.num_key_value_heads
        attention_values = shape.vocab_size * shape.num_key_value_heads * shape.head_dim
        more = valued * attention_values + (2 * layers if shape.residual_scalars else 0)
        matmul = layers * (attention + mlp) + valued * gate + embedding
        return ParameterCounts(matmul - embedding + tables + more, embedding, matmul)
    else:
        mlp = 3 * hidden * shape.intermediate_size
        more = layers * 2 * (hidden + shape.head_dim) + hidden
    matmul = layers * (attention + mlp) + embedding
    return ParameterCounts(matmul - embedding + tables + more, embedding, matmul)


def has_value_embedding(shape: ModelShape, layer: int) -> bool:
    """Every second layer, the last included. Source: nanochat."""
    return shape.value_embeddings and layer % 2 == (shape.num_hidden_layers - 1) % 2


def gate_inputs(shape: ModelShape) -> int:
    """Channels that decide how much of a value embedding a head takes. Source: nanochat."""
    return min(12, shape.hidden_size)


def flops_per_token(shape: ModelShape, context: int) -> int:
    """Floating-point operations of forward and backward, causal attention at `context` tokens.

    Source: performance.md §5, convention A: 6 x matmul parameters + 6 L H hd T.
    """
    return 6 * parameters(shape).matmul + _attention(shape) * 6 * context


def published_flops_per_token(shape: ModelShape, context: int) -> int:
    """The same as nanochat counts them: attention as if it were not causal.

    Source: performance.md §5, convention B: 6 x matmul parameters + 12 L H hd T.
    """
    return 6 * parameters(shape).matmul + _attention(shape) * 12 * context


def _attention(shape: ModelShape) -> int:
    return shape.num_hidden_layers * shape.num_attention_heads * shape.head_dim
