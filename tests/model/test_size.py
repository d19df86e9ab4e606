import pytest

from penjing.config.model import ModelConfig
from penjing.model.size import flops_per_token, parameters
from penjing.model.transformer import Transformer


@pytest.mark.parametrize("tied", [False, True])
def test_the_counts_are_those_of_the_model(tied: bool) -> None:
    shape = ModelConfig(depth=2, num_key_value_heads=1, tie_word_embeddings=tied).shape(500)
    model = Transformer(shape)
    counts = parameters(shape)
    assert counts.total == sum(p.numel() for p in model.parameters())
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert counts.matmul == matrices - (0 if tied else counts.embedding)
    assert counts.embedding == 500 * 128


def test_flops_follow_convention_a() -> None:
    shape = ModelConfig(depth=12, num_key_value_heads=12, intermediate_size=2048).shape(32_768)
    matmul = 12 * (4 * 768**2 + 3 * 768 * 2048) + 32_768 * 768
    assert flops_per_token(shape, 2048) == 6 * matmul + 6 * 12 * 768 * 2048
