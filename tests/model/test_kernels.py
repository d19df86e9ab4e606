import pytest
import torch
from torch import Tensor
from torch.nn import functional

from penjing.model.attention import additive_mask, document_starts
from penjing.model.kernels import causal_attention, rms_norm


def _random(*size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, dtype=torch.float64, generator=generator).requires_grad_()


@pytest.mark.parametrize("tokens", [1, 63, 64, 150, 600])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_block_causal_attention_and_its_gradients_equal_the_plain_twin(
    tokens: int, kv_heads: int
) -> None:
    q = _random(2, 4, tokens, 8, seed=1)
    k, v = _random(2, kv_heads, tokens, 8, seed=2), _random(2, kv_heads, tokens, 8, seed=3)
    ids = torch.arange(tokens)[None] // torch.tensor([[40], [1000]])
    index = torch.arange(tokens).expand(2, tokens)
    starts = document_starts(ids)
    mask = additive_mask(starts, index, tokens, torch.float64)
    twin = functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    grad = torch.randn_like(twin)
    wanted = torch.autograd.grad(twin, (q, k, v), grad)
    out = causal_attention(q, k, v, starts)
    torch.testing.assert_close(out, twin, atol=1e-12, rtol=1e-9)
    for found, want in zip(torch.autograd.grad(out, (q, k, v), grad), wanted, strict=True):
        torch.testing.assert_close(found, want, atol=1e-12, rtol=1e-9)


def test_rms_norm_and_its_gradients_equal_torch() -> None:
    x, weight = _random(2, 3, 7, seed=4), _random(7, seed=5)
    twin = functional.rms_norm(x, (7,), weight, 1e-3)
    grad = torch.randn_like(twin)
    out = rms_norm(x, weight, 1e-3)
    torch.testing.assert_close(out, twin)
    wanted = torch.autograd.grad(twin, (x, weight), grad)
    for found, want in zip(torch.autograd.grad(out, (x, weight), grad), wanted, strict=True):
        torch.testing.assert_close(found, want)


def test_equal_ids_apart_from_each_other_are_two_documents() -> None:
    assert document_starts(torch.tensor([[0, 0, 1, 0, -1, -1]])).tolist() == [[0, 0, 2, 3, 4, 4]]
