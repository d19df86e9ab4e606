import pytest
import torch

from penjing.config.model import ModelShape
from penjing.model.initialization import initialize
from penjing.model.transformer import Transformer


def _state(seed: int, *, layers: int = 2, tied: bool = False) -> dict[str, torch.Tensor]:
    model = Transformer(ModelShape(300, layers, 64, 2, 2, 32, 160, 64, 10_000.0, 1e-6, tied))
    initialize(model, seed)
    return dict(model.state_dict())


def test_the_standard_deviations_are_the_recipe_s() -> None:
    state = _state(1)
    layer = "model.layers.1."
    wanted = {
        "model.embed_tokens.weight": 0.8,
        "lm_head.weight": 0.001,
        layer + "self_attn.q_proj.weight": 1 / 8,
        layer + "self_attn.v_proj.weight": 1 / 8,
        layer + "mlp.up_proj.weight": 0.6 / 8,
        layer + "mlp.down_proj.weight": 0.0,
        layer + "self_attn.o_proj.weight": 0.0,
    }
    for name, std in wanted.items():
        assert state[name].std().item() == pytest.approx(std, rel=0.05), name
    assert state["model.norm.weight"].eq(1).all()
    assert "lm_head.weight" not in _state(1, tied=True)


def test_a_tensor_depends_on_the_seed_and_its_name_alone() -> None:
    first, again, deeper, other = _state(1), _state(1), _state(1, layers=3), _state(2)
    name = "model.layers.1.self_attn.q_proj.weight"
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert torch.equal(first[name], deeper[name])
    assert not torch.equal(first[name], other[name])
    assert not torch.equal(first[name], first["model.layers.0.self_attn.q_proj.weight"])
