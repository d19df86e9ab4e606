"""Which key was probably meant: near misses, other projects' names, keys in another table.

Finding unknown keys is `config.loading`'s duty.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_type_hints

from penjing.config.schema import RunConfig, SourceConfig
from penjing.config.training import MixtureShare

OTHER_NAMES = {
    "depth": "n_layer n_layers num_layers num_hidden_layers",
    "hidden_size": "n_embd d_model dim n_embed embed_dim",
    "num_attention_heads": "n_head n_heads num_heads",
    "num_key_value_heads": "n_kv_head n_kv_heads num_kv_heads",
    "intermediate_size": "d_ff ffn_dim hidden_dim mlp_dim",
    "max_position_embeddings": "block_size context_length max_seq_len seq_len sequence_len n_ctx",
    "tie_word_embeddings": "weight_tying tie_embeddings",
    "tokens_per_step": "batch_size total_batch_size global_batch_size train_batch_size",
    "microbatch_rows": "device_batch_size micro_batch_size per_device_train_batch_size",
    "steps": "max_iters max_steps num_iterations train_steps num_steps",
    "epochs": "num_train_epochs num_epochs n_epochs",
    "flops": "target_flops",
    "tokens_per_parameter": "target_param_data_ratio",
    "learning_rate": "lr",
    "matrix_learning_rate": "matrix_lr muon_lr",
    "embedding_learning_rate": "embedding_lr",
    "head_learning_rate": "unembedding_lr head_lr",
    "max_grad_norm": "grad_clip clip_grad_norm gradient_clipping",
    "warmup_steps": "warmup_iters num_warmup_steps",
    "warmdown_fraction": "warmdown_ratio cooldown_fraction",
    "evaluate_every_steps": "eval_interval eval_every eval_steps",
    "checkpoint_every_steps": "save_every save_steps save_interval",
    "num_generations": "group_size num_samples",
    "kl_beta": "kl_coef kl_coeff",
    "mixture": "dataset data datasets",
    "from": "vocab_file tokenizer_file tokenizer_path tokenizer_name",
    "max_chars": "max_characters",
    "vocab_size": "num_tokens vocabulary_size n_vocab",
    "pretrain": "train base_train",
    "name": "out_dir run_name",
}


def key_of(field_name: str) -> str:
    """The name in TOML: a field that would be a word of Python's has an underscore after it."""
    return field_name.removesuffix("_")


def near_miss(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that is like `word`, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}?" if near else ""


def right_name(key: str, path: tuple[str, ...], fields: Mapping[str, Any]) -> tuple[str, str]:
    """What was wanted instead of an unknown key, and the likeliest right one."""
    ours = next((name for name, others in OTHER_NAMES.items() if key in others.split()), key)
    homes = [home for home in _homes(RunConfig, ()) if home[-1] == ours]
    homes.sort(key=lambda home: home[: len(path)] != path)
    wanted = f"a key of [{'.'.join(path)}]" if path else "a table or key of the run"
    if homes:
        where = f"[{'.'.join(homes[0][:-1])}]" if len(homes[0]) > 1 else "the top of the file"
        return wanted, f"write {ours} in {where}"
    return wanted, near_miss(key, fields) or f"known: {', '.join(fields)}"


def _homes(section: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The path of every key that a run file may have."""
    for key, hint in get_type_hints(section).items():
        yield (*path, key_of(key))
        for inner in (hint, *get_args(hint)):
            if dataclasses.is_dataclass(inner) and inner is not MixtureShare:
                yield from _homes(
                    inner, (*path, key, "NAME") if inner is SourceConfig else (*path, key)
                )
