import pytest
import torch

from penjing.config.model import ModelShape
from penjing.model.initialization import initialize
from penjing.model.likelihood import token_logprobs
from penjing.model.transformer import Transformer


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("max_logits", [2**24, 37 * 7])
def test_logprobs_and_gradients_equal_the_naive_twin(tied: bool, max_logits: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Transformer(ModelShape(37, 2, 24, 2, 1, 8, 32, 64, 10_000.0, 1e-6, tied))
    initialize(model, 1)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    tokens, targets = torch.randint(37, (2, 3, 15))
    ids = torch.arange(15).expand(3, 15) // 6
    weights = torch.randn(3, 15, dtype=torch.float64)
    names, parameters = zip(*model.named_parameters(), strict=True)
    naive = model(tokens, ids).log_softmax(-1).gather(2, targets[..., None])[..., 0]
    wanted = torch.autograd.grad((naive * weights).sum(), parameters)
    found = token_logprobs(model, tokens, targets, ids, max_logits=max_logits)
    assert found.shape == (3, 15)
    torch.testing.assert_close(found, naive)
    grads = torch.autograd.grad((found * weights).sum(), parameters)
    for name, grad, want in zip(names, grads, wanted, strict=True):
        torch.testing.assert_close(grad, want, atol=1e-10, rtol=1e-7, msg=name)
