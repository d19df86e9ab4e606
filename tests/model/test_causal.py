import pytest
import torch
from torch import Tensor
from torch.nn import functional

from penjing.model.attention import additive_mask, document_starts
from penjing.model.causal import causal_attention, causal_blocks

Tensors = tuple[Tensor, ...]
Inputs = tuple[Tensor, Tensor, Tensor]


def _random(*size: int, seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, dtype=dtype, generator=generator).requires_grad_()


def _inputs(
    tokens: int, kv_heads: int, width: int = 8, dtype: torch.dtype = torch.float64
) -> tuple[Inputs, Tensor]:
    """Two rows of four heads: one of documents of 40 tokens, one of a single document."""
    heads = (4, kv_heads, kv_heads)
    q, k, v = (_random(2, tokens, h, width, seed=n, dtype=dtype) for n, h in enumerate(heads))
    return (q, k, v), document_starts(torch.arange(tokens)[None] // torch.tensor([[40], [10**6]]))


def _twin(q: Tensor, k: Tensor, v: Tensor, starts: Tensor) -> Tensor:
    index = torch.arange(q.shape[1]).expand(2, -1)
    mask = additive_mask(starts, index, q.shape[1], q.dtype)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True).transpose(1, 2)


def _out_and_gradients(out: Tensor, inputs: Tensors) -> Tensors:
    grad = _random(*out.shape, seed=9, dtype=torch.float64).detach().to(out.dtype)
    return out, *torch.autograd.grad(out, inputs, grad)


@pytest.mark.parametrize("tokens", [1, 63, 64, 150, 600])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_block_causal_attention_and_its_gradients_equal_the_plain_twin(
    tokens: int, kv_heads: int
) -> None:
    inputs, starts = _inputs(tokens, kv_heads)
    wanted = _out_and_gradients(_twin(*inputs, starts), inputs)
    found = _out_and_gradients(causal_attention(*inputs, starts), inputs)
    for have, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(have, want, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("tokens", [1, 63, 64, 150, 600])
@pytest.mark.parametrize(("kv_heads", "width"), [(4, 64), (2, 48), (1, 20), (2, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_compiled_attention_and_its_gradients_equal_the_twin_in_double_precision(
    tokens: int, kv_heads: int, width: int, dtype: torch.dtype, tolerance: float
) -> None:
    inputs, starts = _inputs(tokens, kv_heads, width, dtype)
    q, k, v = (x.detach().double().requires_grad_() for x in inputs)
    wanted = _out_and_gradients(_twin(q, k, v, starts), (q, k, v))
    found = _out_and_gradients(causal_attention(*inputs, starts), inputs)
    for have, want in zip(found, wanted, strict=True):
        largest = max(1.0, float(want.detach().abs().max()))
        torch.testing.assert_close(have.double(), want, atol=tolerance * largest, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_attention_has_the_same_bits_with_any_number_of_threads(
    dtype: torch.dtype,
) -> None:
    inputs, starts = _inputs(150, 2, 16, dtype)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(_out_and_gradients(causal_attention(*inputs, starts), inputs))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_nan_reaches_all_that_see_it_and_nobody_else() -> None:
    (q, k, v), starts = _inputs(150, 4, 16, torch.float32)
    with torch.no_grad():
        k[0, 85] = torch.nan  # in the document from 80 to 119
    out = causal_attention(q, k, v, starts)
    spoiled = out.isnan().any(-1).any(-1)
    assert spoiled[0].nonzero().flatten().tolist() == list(range(85, 120))
    assert not spoiled[1].any()


def test_scores_of_a_hundred_overflow_nothing() -> None:
    (q, k, v), starts = _inputs(100, 4, 16, torch.float32)
    out = causal_attention(q * 30, k * 30, v, starts)
    wanted = _twin(q.double() * 30, k.double() * 30, v.double(), starts)
    torch.testing.assert_close(out.double(), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_flex_attention_with_its_blocks_equals_the_twin(kv_heads: int) -> None:
    # Forward and eager, which is all that torch has of it on a CPU.
    (q, k, v), starts = _inputs(300, kv_heads, 16, torch.float32)
    q, k, v = q.detach(), k.detach(), v.detach()
    out = causal_attention(q, k, v, starts, causal_blocks(starts))
    torch.testing.assert_close(out, _twin(q, k, v, starts), atol=1e-5, rtol=1e-5)


def test_attention_on_another_device_has_the_same_shape() -> None:
    (q, k, v), starts = _inputs(70, 2, 16, torch.float32)
    out = causal_attention(q.to("meta"), k.to("meta"), v.to("meta"), starts.to("meta"))
    assert out.shape == q.shape


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [20, 150])
def test_a_key_that_is_not_a_number_spoils_every_query_that_sees_it_and_no_other(
    tokens: int, dtype: torch.dtype
) -> None:
    (q, k, v), starts = _inputs(tokens, 2, 32, dtype)
    k.detach()[1, 7, :, 3] = float("nan")
    out = causal_attention(q, k, v, starts)
    spoiled = out.isnan().flatten(2).any(-1)
    assert not spoiled[0].any()
    assert spoiled[1].tolist() == [token >= 7 for token in range(tokens)]
