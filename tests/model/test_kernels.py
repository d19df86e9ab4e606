import pytest
import torch
from torch import Tensor
from torch.nn import functional

from penjing.model.attention import document_starts
from penjing.model.kernels import rms_norm, weighted_loss


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
