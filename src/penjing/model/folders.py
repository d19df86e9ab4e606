"""`config.json` of a model's folder, for each architecture: what is written, and what is accepted.

Weights are `model.weights`'.
"""

import json
from pathlib import Path
from typing import Any

from penjing.config.model import ModelShape
from penjing.errors import ArtifactError

Kinds = dict[str, tuple[str, type[int] | type[float] | type[bool]]]

QWEN3: Kinds = {
    name: (name, kind)
    for name, kind in {
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
    }.items()
}
"""Fields of ModelShape and what `config.json` calls them; `rope_theta` is read apart."""

RACING: Kinds = QWEN3 | {
    "value_embeddings": ("value_embeddings", bool),
    "residual_scalars": ("residual_scalars", bool),
}

GPT2: Kinds = {
    "vocab_size": ("vocab_size", int),
    "num_hidden_layers": ("n_layer", int),
    "hidden_size": ("n_embd", int),
    "num_attention_heads": ("n_head", int),
    "max_position_embeddings": ("n_positions", int),
    "rms_norm_eps": ("layer_norm_epsilon", float),
    "dropout": ("resid_pdrop", float),
}

FIXED: dict[str, dict[str, Any]] = {
    "qwen3": {
        "model_type": "qwen3",
        "hidden_act": "silu",
        "attention_bias": False,
        "use_sliding_window": False,
        "rope_type": "default",
    },
    "gpt2": {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    "racing": {"model_type": "penjing_racing", "rope_type": "default"},
}
"""What each class computes and no field of its shape can change."""

KINDS = {"qwen3": QWEN3, "gpt2": GPT2, "racing": RACING}


def config_of(shape: ModelShape) -> dict[str, Any]:
    """`config.json` without the special ids."""
    architecture = shape.architecture
    values = {theirs: getattr(shape, ours) for ours, (theirs, _) in KINDS[architecture].items()}
    fixed = {name: wanted for name, wanted in FIXED[architecture].items() if name != "rope_type"}
    values |= fixed | {"torch_dtype": "float32", "dtype": "float32", "use_cache": True}
    if architecture == "gpt2":
        return values | {
            "architectures": ["GPT2LMHeadModel"],
            "n_inner": shape.intermediate_size,
            "embd_pdrop": shape.dropout,
            "attn_pdrop": 0.0,
            "tie_word_embeddings": shape.tie_word_embeddings,
        }
    # Both spellings of the rotary base and of the dtype: transformers 5 reads the second of each.
    rope = {
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_theta": shape.rope_theta, "rope_type": "default"},
    }
    if architecture == "racing":
        portable = {"portable": False, "logit_softcap": shape.logit_softcap}
        return values | rope | portable | {"architectures": ["PenjingRacing"]}
    return (
        values
        | rope
        | {
            "architectures": ["Qwen3ForCausalLM"],
            "attention_dropout": 0.0,
            "sliding_window": None,
            "layer_types": ["full_attention"] * shape.num_hidden_layers,
        }
    )


def read_config(path: Path) -> dict[str, Any]:
    """The object of a `config.json`.

    Raises:
        ArtifactError: the file is missing or malformed.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise ArtifactError(f'{path}: has no "model_type", wanted "qwen3" or "gpt2"')
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {**config, **rope}


def shape_of(config: dict[str, Any], path: Path) -> ModelShape:
    """The shape that a config states; `path` is for messages.

    Raises:
        ArtifactError: it is of another architecture, or a value is missing or of another type.
    """
    by_type = {fixed["model_type"]: name for name, fixed in FIXED.items()}
    architecture = by_type.get(config["model_type"])
    if architecture is None:
        raise ArtifactError(
            f'{path}: "model_type" is {config["model_type"]!r}, wanted "qwen3" or "gpt2"'
        )
    for name, wanted in FIXED[architecture].items():
        if config.get(name, wanted) != wanted:
            raise ArtifactError(f'{path}: "{name}" is {config[name]!r}, wanted {wanted!r}')
    values: dict[str, Any] = {"architecture": architecture}
    for ours, (theirs, kind) in KINDS[architecture].items():
        values[ours] = _value(config, theirs, kind, path)
    if architecture == "gpt2":
        heads, hidden = values["num_attention_heads"], values["hidden_size"]
        values |= {
            "num_key_value_heads": heads,
            "head_dim": hidden // heads,
            "intermediate_size": config.get("n_inner") or 4 * hidden,
            "rope_theta": 10_000.0,
            "tie_word_embeddings": config.get("tie_word_embeddings", True),
        }
    else:
        values["rope_theta"] = _value(config, "rope_theta", float, path)
    if architecture == "racing":
        values["logit_softcap"] = config.get("logit_softcap")
    return ModelShape(**values)


def _value(
    config: dict[str, Any], name: str, kind: type[int] | type[float] | type[bool], path: Path
) -> Any:
    value = config.get(name)
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise ArtifactError(f'{path}: "{name}" is {value!r}, wanted {kind.__name__}')
    return kind(value)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Two spaces deep, as Hugging Face writes them."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
