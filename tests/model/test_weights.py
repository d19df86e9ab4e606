import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from penjing.config.model import ModelShape
from penjing.errors import ArtifactError
from penjing.model.initialization import initialize
from penjing.model.transformer import Transformer
from penjing.model.weights import load_weights, read_shape, save_weights


def _saved(directory: Path, *, kv_heads: int = 2, tied: bool = False) -> Transformer:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Transformer(ModelShape(53, 2, 32, 4, kv_heads, 16, 48, 64, 5_000.0, 1e-5, tied))
    initialize(model, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    save_weights(model, directory, bos_token_id=50, eos_token_ids=(52, 50), pad_token_id=50)
    return model


@pytest.mark.parametrize("kv_heads", [4, 1])
@pytest.mark.parametrize("tied", [False, True])
def test_transformers_computes_the_same_logits(tmp_path: Path, kv_heads: int, tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    model = _saved(tmp_path, kv_heads=kv_heads, tied=tied)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = torch.randint(50, (2, 40))
    assert type(theirs).__name__ == "Qwen3ForCausalLM"
    assert theirs.generation_config.eos_token_id == [52, 50]
    torch.testing.assert_close(model(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, tied: bool) -> None:
    model = _saved(tmp_path, tied=tied)
    loaded = load_weights(tmp_path, torch.bfloat16)
    assert loaded.shape == model.shape == read_shape(tmp_path)
    assert loaded.dtype == torch.bfloat16
    state = loaded.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_every_tensor_that_differs_is_named(tmp_path: Path) -> None:
    _saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["lm_head.weight"]
    tensors["model.norm.weight"] = torch.ones(31)
    tensors["extra"] = torch.ones(1)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ArtifactError) as caught:
        load_weights(tmp_path)
    message = str(caught.value)
    assert "lm_head.weight: found nothing, wanted (53, 32)" in message
    assert "model.norm.weight: found (31,), wanted (32,)" in message
    assert "extra: found (1,), wanted nothing" in message


def test_a_truncated_weights_file_is_an_artifact_error(tmp_path: Path) -> None:
    _saved(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match="cannot be read as safetensors"):
        load_weights(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "model_type"),
        ({"attention_bias": True}, '"attention_bias" is True, wanted False'),
        ({"rope_parameters": {"rope_theta": 1.0, "rope_type": "yarn"}}, "yarn"),
        ({"head_dim": "16"}, "\"head_dim\" is '16', wanted int"),
        ({"rope_theta": None, "rope_parameters": None}, '"rope_theta" is None'),
    ],
)
def test_a_foreign_config_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    _saved(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match=message):
        read_shape(tmp_path)
