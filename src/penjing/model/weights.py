"""A model as a Hugging Face folder, and back: Qwen3ForCausalLM, GPT2LMHeadModel, or our own kind.

It writes into a directory that the caller stages and verifies; tokenizer files are the caller's.
How each architecture's `config.json` reads is `model.folders`'.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from penjing.config.model import ModelShape
from penjing.errors import ArtifactError
from penjing.model.build import build_model
from penjing.model.folders import config_of, read_config, shape_of, write_json
from penjing.model.language_model import LanguageModel

WEIGHTS_FILE = "model.safetensors"
TURNED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
"""GPT-2's folders hold these (inputs, outputs)."""


def save_weights(
    model: LanguageModel,
    directory: Path,
    *,
    bos_token_id: int,
    eos_token_ids: Sequence[int],
    pad_token_id: int,
) -> None:
    """Write model.safetensors (float32), config.json and generation_config.json.

    Generation stops at any of `eos_token_ids`; the first is config.json's `eos_token_id`.
    """
    tensors = {
        name: value.detach().float().cpu().contiguous() for name, value in _state(model).items()
    }
    save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    ids = {"bos_token_id": bos_token_id, "pad_token_id": pad_token_id}
    config = config_of(model.shape) | ids | {"eos_token_id": eos_token_ids[0]}
    write_json(directory / "config.json", config)
    generation = ids | {"eos_token_id": list(eos_token_ids), "do_sample": True, "temperature": 1.0}
    write_json(directory / "generation_config.json", generation)


def load_weights(directory: Path, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """The model of a folder, on the CPU, masters float32, computing in `dtype`.

    Raises:
        ArtifactError: a file is missing or unreadable, or a tensor's name or shape is not what
            config.json asks for.
    """
    path = directory / WEIGHTS_FILE
    model = build_model(read_shape(directory), dtype)
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: cannot be read as safetensors: {error}") from error
    wanted = _state(model)
    # Compiled models of other programs, and GPT-2's folders that hold masks or lack the prefix.
    found = {name.removeprefix("_orig_mod."): value for name, value in found.items()}
    if model.shape.architecture == "gpt2":
        found = _as_gpt2(found)
    if model.shape.tie_word_embeddings:
        found.pop("lm_head.weight", None)
    differences = [
        f"{name}: found {_describe(found.get(name))}, wanted {_describe(wanted.get(name))}"
        for name in sorted(found.keys() | wanted.keys())
        if _describe(found.get(name)) != _describe(wanted.get(name))
    ]
    if differences:
        shown = "; ".join(differences[:8])
        raise ArtifactError(f"{path}: {len(differences)} tensors differ from config.json: {shown}")
    model.load_state_dict(_turned(model.shape, found))
    return model


def read_shape(directory: Path) -> ModelShape:
    """The shape that a folder's config.json states.

    Raises:
        ArtifactError: the file is missing, malformed, or of another architecture.
    """
    path = directory / "config.json"
    return shape_of(read_config(path), path)


def _as_gpt2(found: dict[str, Tensor]) -> dict[str, Tensor]:
    masks = (".attn.bias", ".attn.masked_bias")
    prefixed = (
        (name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}", value)
        for name, value in found.items()
    )
    return {name: value for name, value in prefixed if not name.endswith(masks)}


def _state(model: LanguageModel) -> dict[str, Tensor]:
    """The tensors as the folder holds them."""
    state: dict[str, Tensor] = model.state_dict()
    return _turned(model.shape, state)


def _turned(shape: ModelShape, state: dict[str, Tensor]) -> dict[str, Tensor]:
    if shape.architecture != "gpt2":
        return state
    return {name: x.T if name.endswith(TURNED) else x for name, x in state.items()}


def _describe(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{tuple(tensor.shape)}"


def resized(model: LanguageModel, vocab_size: int) -> LanguageModel:
    """The same model for a vocabulary that has grown at its end: new ids begin as the mean of all.

    Raises:
        ArtifactError: the vocabulary is smaller than the model's.
    """
    if vocab_size == model.shape.vocab_size:
        return model
    if vocab_size < model.shape.vocab_size:
        raise ArtifactError(
            f"the model has {model.shape.vocab_size:,} ids, the tokenizer {vocab_size:,}: take the "
            "tokenizer that the model was trained with (tokenizer.from)"
        )
    grown = build_model(replace(model.shape, vocab_size=vocab_size), model.dtype)
    old, state = model.state_dict(), grown.state_dict()
    for name, value in state.items():
        before = old[name]
        if before.shape != value.shape:
            value[: len(before)] = before
            value[len(before) :] = before.mean(0)
        else:
            value.copy_(before)
    return grown


def shortened(model: LanguageModel, tokens: int) -> LanguageModel:
    """The same model for rows of `tokens`; learned positions beyond them are left out.

    Raises:
        ArtifactError: it has fewer learned positions than that.
    """
    shape = model.shape
    if tokens == shape.max_position_embeddings:
        return model
    changed = build_model(replace(shape, max_position_embeddings=tokens), model.dtype)
    state = model.state_dict()
    if shape.architecture == "gpt2":
        if tokens > shape.max_position_embeddings:
            raise ArtifactError(
                f"the model has learned positions for {shape.max_position_embeddings} tokens, the "
                f"run wants {tokens}: lower model.max_position_embeddings"
            )
        state["transformer.wpe.weight"] = state["transformer.wpe.weight"][:tokens]
    changed.load_state_dict(state)
    return changed
