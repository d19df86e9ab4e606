import pytest
import torch
from torch import Tensor

from penjing.config.model import ModelShape
from penjing.model.attention import KeyValueCache
from penjing.model.initialization import initialize
from penjing.model.transformer import Transformer

VOCAB = 61


def _model(*, heads: int = 4, kv_heads: int = 2, dtype: torch.dtype = torch.float32) -> Transformer:
    torch.set_num_threads(1)
    shape = ModelShape(VOCAB, 2, 32, heads, kv_heads, 16, 48, 256, 10_000.0, 1e-6, False)
    model = Transformer(shape, dtype=dtype)
    initialize(model, 3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def _tokens(rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def _documents(*lengths: int) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]


@torch.no_grad()
def test_another_first_document_of_equal_length_leaves_the_second_bit_identical() -> None:
    model = _model()
    tokens, ids = _tokens(1, 150), _documents(90, 60)
    changed = tokens.clone()
    changed[:, :90] = _tokens(1, 90, seed=9)
    first, second = model(tokens, ids), model(changed, ids)
    assert torch.equal(first[:, 90:], second[:, 90:])
    assert not torch.allclose(first[:, :90], second[:, :90])


@torch.no_grad()
@pytest.mark.parametrize("before", [1, 63, 64, 65, 130])
def test_a_document_alone_has_the_logits_that_it_has_behind_another(before: int) -> None:
    model = _model()
    tokens = _tokens(1, before + 70)
    together = model(tokens, _documents(before, 70))[:, before:]
    torch.testing.assert_close(together, model(tokens[:, before:]), atol=1e-5, rtol=0)


@torch.no_grad()
def test_padding_is_finite_and_changes_nothing() -> None:
    model = _model()
    tokens, ids = _tokens(1, 100), _documents(50, 50)
    ids[:, 70:] = -1
    logits = model(tokens, ids)
    torch.testing.assert_close(logits[:, :50], model(tokens[:, :50]), atol=1e-5, rtol=0)
    assert logits.isfinite().all()


@torch.no_grad()
def test_later_tokens_do_not_change_earlier_logits() -> None:
    model = _model()
    tokens = _tokens(1, 90)
    changed = tokens.clone()
    changed[:, 70:] = _tokens(1, 20, seed=8)
    assert torch.equal(model(tokens)[:, :70], model(changed)[:, :70])


@pytest.mark.parametrize("chunks", [(24,), (1,) * 24, (7, 1, 9, 7)])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_any_chunking_through_the_cache_equals_the_full_forward(
    chunks: tuple[int, ...], kv_heads: int
) -> None:
    model = _model(kv_heads=kv_heads)
    tokens = _tokens(3, 24)
    full = model(tokens).detach()
    cache = KeyValueCache.empty(model.shape, 3, 32, "cpu", torch.float32)
    done = 0
    for size in chunks:
        part = tokens[:, done : done + size]
        logits = model.extend(cache, torch.arange(3), part, torch.full((3,), size))
        done += size
        torch.testing.assert_close(logits, full[:, done - 1], atol=1e-4, rtol=0)
    assert cache.lengths.tolist() == [24, 24, 24]


def test_cache_rows_of_any_order_and_length_do_not_feel_each_other() -> None:
    model = _model()
    tokens = _tokens(3, 20)
    counts, rows = torch.tensor([20, 5, 11]), torch.tensor([4, 0, 2])
    cache = KeyValueCache.empty(model.shape, 6, 24, "cpu", torch.float32)
    together = [model.extend(cache, rows, tokens, counts)]
    following, more = _tokens(2, 3, seed=5), torch.tensor([3, 1])
    together.append(model.extend(cache, rows[1:], following, more))
    assert cache.lengths.tolist() == [8, 0, 12, 0, 20, 0]
    alone = KeyValueCache.empty(model.shape, 3, 24, "cpu", torch.float32)
    for i, count in enumerate(counts.tolist()):
        row, part = torch.tensor([i]), tokens[i : i + 1, :count]
        logits = model.extend(alone, row, part, counts[i : i + 1])
        torch.testing.assert_close(logits[0], together[0][i], atol=1e-5, rtol=0)
    for i, count in enumerate(more.tolist()):
        row, part = torch.tensor([i + 1]), following[i : i + 1, :count]
        logits = model.extend(alone, row, part, more[i : i + 1])
        torch.testing.assert_close(logits[0], together[1][i], atol=1e-5, rtol=0)


def test_a_row_that_outgrows_its_cache_is_refused() -> None:
    model = _model()
    cache = KeyValueCache.empty(model.shape, 1, 4, "cpu", torch.float32)
    with pytest.raises(ValueError, match="5 positions do not fit a cache of 4"):
        model.extend(cache, torch.tensor([0]), _tokens(1, 5), torch.tensor([5]))


def test_bfloat16_keeps_float32_masters_and_stays_near_float32() -> None:
    model, narrow = _model(), _model(dtype=torch.bfloat16)
    tokens = _tokens(2, 20)
    logits = narrow(tokens)
    logits.sum().backward()
    assert logits.dtype == torch.float32
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in narrow.parameters())
    assert (logits - model(tokens)).abs().max() < 0.05 * model(tokens).abs().max()
    cache = KeyValueCache.empty(narrow.shape, 2, 20, "cpu", torch.bfloat16)
    last = narrow.extend(cache, torch.arange(2), tokens, torch.tensor([20, 20]))
    assert (last - logits[:, -1]).abs().max() < 0.05 * logits.abs().max()
