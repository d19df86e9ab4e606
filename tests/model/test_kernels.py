from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from penjing.model import kernels
from penjing.model.attention import document_starts
from penjing.model.kernels import chunk_loss, rms_norm, swiglu, weighted_loss


def _random(*size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, dtype=torch.float64, generator=generator).requires_grad_()


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


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_the_head_s_loss_and_its_gradients_do_not_depend_on_chunks(
    softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, head = _random(50, 6, seed=6), _random(11, 6, seed=7)
    targets = torch.arange(50) % 11
    weights = torch.linspace(0, 1, 50, dtype=torch.float64)
    logits = hidden @ head.T
    bounded = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    twin = (functional.cross_entropy(bounded, targets, reduction="none") * weights).sum()
    wanted = torch.autograd.grad(twin, (hidden, head))
    for logits_at_a_time in (11, 7 * 11, 10**6):
        monkeypatch.setattr("penjing.model.kernels.CHUNK_LOGITS", logits_at_a_time)
        loss = weighted_loss(hidden, head, targets, weights, softcap)
        torch.testing.assert_close(loss, twin)
        for found, want in zip(torch.autograd.grad(loss, (hidden, head)), wanted, strict=True):
            torch.testing.assert_close(found, want)


def test_the_head_s_gradient_is_summed_in_float32_where_the_model_computes_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden, head = (_random(n, 33, seed=n).detach() for n in (50, 11))
    narrow = hidden.bfloat16().requires_grad_(), head.float().requires_grad_()
    wide = narrow[0].detach().double().requires_grad_(), head.requires_grad_()
    targets, weights = torch.arange(50) % 11, torch.linspace(0, 1, 50)
    monkeypatch.setattr("penjing.model.kernels.CHUNK_LOGITS", 7 * 11)
    found = torch.autograd.grad(weighted_loss(*narrow, targets, weights), narrow)
    losses = functional.cross_entropy(wide[0] @ wide[1].T, targets, reduction="none")
    wanted = torch.autograd.grad((losses * weights).sum(), wide)
    assert found[1].dtype == torch.float32
    for have, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(have.double(), want, atol=3e-2, rtol=3e-2)


def _chunk(rows: int, columns: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    logits = (_random(rows, columns, seed=8).detach() * 4).to(dtype)
    targets = torch.arange(rows)[:, None] * 7 % columns
    return logits, targets, torch.linspace(0, 2, rows)[:, None]


@pytest.mark.parametrize("columns", [1, 15, 16, 17, 100, 1000])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_loss_of_a_chunk_equals_its_twin_in_double_precision(
    columns: int, dtype: torch.dtype, tolerance: float
) -> None:
    logits, targets, weights = _chunk(37, columns, dtype)
    wanted = chunk_loss(logits.double(), targets, weights.double(), None)
    loss, grad = chunk_loss(logits, targets, weights, None)
    assert grad.dtype == dtype and loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), wanted[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad.double(), wanted[1], rtol=tolerance, atol=tolerance * 1e-3)


def _assert_same_bits_with_any_number_of_threads(compute: Callable[[], tuple[Tensor, ...]]) -> None:
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(compute())
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_of_a_chunk_has_the_same_bits_with_any_number_of_threads(
    dtype: torch.dtype,
) -> None:
    _assert_same_bits_with_any_number_of_threads(lambda: chunk_loss(*_chunk(37, 100, dtype), None))


@pytest.mark.parametrize("spoiled", [torch.nan, torch.inf])
def test_a_spoiled_logit_spoils_its_row_s_gradient_and_the_loss(spoiled: float) -> None:
    logits, targets, weights = _chunk(5, 40, torch.float32)
    logits[2, 33] = spoiled
    loss, grad = chunk_loss(logits, targets, weights, None)
    assert not loss.isfinite()
    assert grad.isfinite().all(1).tolist() == [True, True, False, True, True]


@pytest.mark.skipif(not kernels.HAS_COMPILED, reason="torch has an error of its own")
@pytest.mark.parametrize("target", [-1, 40])
def test_a_target_outside_the_vocabulary_is_refused(target: int) -> None:
    logits, targets, weights = _chunk(5, 40, torch.float32)
    targets[3] = target
    with pytest.raises(ValueError, match="outside the vocabulary"):
        chunk_loss(logits, targets, weights, None)


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (2, 48), (130, 257)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_gate_and_its_gradients_equal_torch_s_in_double_precision(
    size: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    gate, up = (_random(*size, seed=n).detach().mul(4).to(dtype).requires_grad_() for n in (1, 2))
    grad = _random(*size, seed=3).detach().to(dtype)
    wide = [x.detach().double().requires_grad_() for x in (gate, up)]
    twin = functional.silu(wide[0]) * wide[1]
    wanted = (twin, *torch.autograd.grad(twin, wide, grad.double()))
    out = swiglu(gate, up)
    found = (out, *torch.autograd.grad(out, (gate, up), grad))
    for have, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(have.double(), want, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("extreme", [-1e30, -200.0, 200.0, 1e30])
def test_a_gate_far_from_zero_is_shut_or_open(extreme: float) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        gate = torch.full((33,), extreme, dtype=dtype, requires_grad=True)
        out = swiglu(gate, torch.ones(33, dtype=dtype))
        (grad,) = torch.autograd.grad(out.sum(), gate)
        torch.testing.assert_close(out.detach(), gate.detach().clamp(min=0), atol=1e-6, rtol=1e-2)
        torch.testing.assert_close(grad, (gate.detach() > 0).to(dtype), atol=1e-6, rtol=1e-2)


def test_a_gate_without_a_graph_leaves_the_other_side_its_gradient() -> None:
    gate, up = torch.tensor([2.0, -1.0]), torch.ones(2, requires_grad=True)
    (grad,) = torch.autograd.grad(swiglu(gate, up).sum(), up)
    torch.testing.assert_close(grad, torch.nn.functional.silu(gate))


def test_a_gate_that_is_not_a_number_stays_visible() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        gate = torch.tensor([float("nan"), float("inf"), 1.0], dtype=dtype, requires_grad=True)
        out = swiglu(gate, torch.ones(3, dtype=dtype))
        assert out.isfinite().tolist() == [False, False, True], dtype
        (grad,) = torch.autograd.grad(out.float().nan_to_num().sum(), gate)
        assert not grad[:2].isfinite().any(), dtype


@pytest.mark.skipif(not kernels.HAS_COMPILED, reason="no compiled kernels")
def test_a_kernel_refuses_what_it_would_have_to_convert() -> None:
    from penjing.model import _kernels

    half, wide, weight = torch.ones(2, 4).half(), torch.ones(2, 4), torch.ones(4)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _kernels.normalize(wide, weight, 1e-6, half, torch.empty(2), 1)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _kernels.normalize(wide, weight.double(), 1e-6, wide, torch.empty(2), 1)


@pytest.mark.parametrize("size", [(1, 1), (5, 8), (7, 33), (3, 700, 64)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
def test_the_compiled_norm_and_its_gradients_equal_torch_s_in_double_precision(
    size: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    x = _random(*size, seed=1).detach().to(dtype).requires_grad_()
    weight = _random(size[-1], seed=2).detach().float().requires_grad_()
    grad = _random(*size, seed=3).detach().to(dtype)
    wide = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    twin = functional.rms_norm(wide[0], wide[1].shape, wide[1], 1e-6)
    wanted = (twin, *torch.autograd.grad(twin, wide, grad.double()))
    out = rms_norm(x, weight, 1e-6)
    found = (out, *torch.autograd.grad(out, (x, weight), grad))
    for have, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(have.double(), want, atol=tolerance, rtol=tolerance)


def test_the_norm_s_gradient_has_the_same_bits_with_any_number_of_threads() -> None:
    x, weight = torch.randn(3000, 64).requires_grad_(), torch.randn(64).requires_grad_()
    _assert_same_bits_with_any_number_of_threads(
        lambda: torch.autograd.grad(rms_norm(x, weight, 1e-6).square().sum(), (x, weight))
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_and_gate_have_the_same_bits_with_and_without_a_graph(dtype: torch.dtype) -> None:
    """Else a model would differ from itself as its own reference."""
    x, up = (torch.randn(40, 33, dtype=dtype).requires_grad_() for _ in range(2))
    weight = torch.randn(33).requires_grad_()
    found = rms_norm(x * 1, weight, 1e-6), swiglu(x * 1, up * 1)
    with torch.no_grad():
        alone = rms_norm(x * 1, weight, 1e-6), swiglu(x * 1, up * 1)
    assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))
