"""A model as a Hugging Face Qwen3ForCausalLM folder, and back.

It writes into a directory that the caller stages and verifies; tokenizer files are the caller's.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from penjing.config.schema import ModelShape
from penjing.errors import ArtifactError
from penjing.model.transformer import Transformer

WEIGHTS_FILE = "model.safetensors"
SHAPE_FIELDS: dict[str, type[int] | type[float] | type[bool]] = {
    "vocab_size": int,
    "num_hidden_layers": int,
    "hidden_size": int,
    "num_attention_heads": int,
    "num_key_value_heads": int,
    "head_dim": int,
    "intermediate_size": int,
    "max_position_embeddings": int,
    "rms_norm_eps": float,
    "tie_word_embeddings": bool,
}
"""Fields of ModelShape that `config.json` has under the same name; `rope_theta` is read apart."""


FIXED = {
    "model_type": "qwen3",
    "hidden_act": "silu",
    "attention_bias": False,
    "use_sliding_window": False,
    "rope_type": "default",
}
"""What `Transformer` computes and no field of its shape can change."""


def save_weights(
    model: Transformer,
    directory: Path,
    *,
    bos_token_id: int,
    eos_token_ids: Sequence[int],
    pad_token_id: int,
) -> None:
    """Write model.safetensors (float32), config.json and generation_config.json.

    Generation stops at any of `eos_token_ids`; the first is config.json's `eos_token_id`.
    """
    tensors = {name: x.detach().float().cpu().contiguous() for name, x in _state(model).items()}
    save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    ids = {"bos_token_id": bos_token_id, "pad_token_id": pad_token_id}
    config = _config(model.shape) | ids | {"eos_token_id": eos_token_ids[0]}
    _write_json(directory / "config.json", config)
    generation = ids | {"eos_token_id": list(eos_token_ids), "do_sample": True, "temperature": 1.0}
    _write_json(directory / "generation_config.json", generation)


def load_weights(directory: Path, dtype: torch.dtype = torch.float32) -> Transformer:
    """The model of a folder, on the CPU, masters float32, computing in `dtype`.

    Raises:
        ArtifactError: a file is missing or unreadable, or a tensor's name or shape is not what
            config.json asks for.
    """
    path = directory / WEIGHTS_FILE
    model = Transformer(read_shape(directory), dtype=dtype)
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: cannot be read as safetensors: {error}") from error
    wanted = _state(model)
    differences = [
        f"{name}: found {_describe(found.get(name))}, wanted {_describe(wanted.get(name))}"
        for name in sorted(found.keys() | wanted.keys())
        if _describe(found.get(name)) != _describe(wanted.get(name))
    ]
    if differences:
        shown = "; ".join(differences[:8])
        raise ArtifactError(f"{path}: {len(differences)} tensors differ from config.json: {shown}")
    model.load_state_dict(found)
    return model


def read_shape(directory: Path) -> ModelShape:
    """The shape that a folder's config.json states.

    Raises:
        ArtifactError: the file is missing, malformed, or of another architecture.
    """
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise ArtifactError(f'{path}: has no "model_type", wanted "qwen3"')
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    config = {**config, **rope}
    for name, wanted in FIXED.items():
        if config.get(name, wanted) != wanted:
            raise ArtifactError(f'{path}: "{name}" is {config[name]!r}, wanted {wanted!r}')
    values: dict[str, Any] = {}
    for name, kind in {**SHAPE_FIELDS, "rope_theta": float}.items():
        value = config.get(name)
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ArtifactError(f'{path}: "{name}" is {value!r}, wanted {kind.__name__}')
        values[name] = kind(value)
    return ModelShape(**values)


def _config(shape: ModelShape) -> dict[str, Any]:
    # Both spellings of the rotary base and of the dtype: transformers 5 reads the second of each.
    return {name: getattr(shape, name) for name in SHAPE_FIELDS} | {
        "architectures": ["Qwen3ForCausalLM"],
        **{name: wanted for name, wanted in FIXED.items() if name != "rope_type"},
        "attention_dropout": 0.0,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_theta": shape.rope_theta, "rope_type": FIXED["rope_type"]},
        "sliding_window": None,
        "layer_types": ["full_attention"] * shape.num_hidden_layers,
        "torch_dtype": "float32",
        "dtype": "float32",
        "use_cache": True,
    }


def _state(model: Transformer) -> dict[str, Tensor]:
    state: dict[str, Tensor] = model.state_dict()
    return state


def _describe(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{tuple(tensor.shape)}"


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
