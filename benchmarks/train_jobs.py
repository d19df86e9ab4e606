"""One measured system of `benchmarks.train`, in a process of its own; prints one JSON line.

Runs in our environment (penjing, transformers) or in one of the peers' (litgpt, nanochat): it
imports nothing else of ours there.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

LAYERS, HIDDEN, HEADS, INNER, VOCAB = 6, 256, 4, 704, 8192

Step = Callable[[torch.Tensor, torch.Tensor], float]


def main() -> int:
    """Takes steps for a while and prints the best and the median speed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("system")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--shape", type=int, nargs=3, required=True)
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--nanochat", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    rows = read_rows(options)
    begun = time.perf_counter()
    model, step = globals()[f"open_{options.system}"](options)
    step(rows[0, :, :-1].contiguous(), rows[0, :, 1:].contiguous())
    warm_up = time.perf_counter() - begun
    seconds = []
    for batch in rows[1 : options.steps + 1]:
        begun = time.perf_counter()
        loss = step(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
        seconds.append(time.perf_counter() - begun)
    tokens = rows.shape[1] * (rows.shape[2] - 1)
    found = {
        "best": tokens / min(seconds),
        "median": tokens / statistics.median(seconds),
        "parameters": sum(value.numel() for value in model.parameters()),
        "warm_up": warm_up,
        "loss": loss,
    }
    print(json.dumps(found))
    return 0


def read_rows(options: argparse.Namespace) -> torch.Tensor:
    """(steps, rows, tokens + 1) ids, written as int64."""
    flat = torch.from_file(
        str(options.rows),
        size=options.shape[0] * options.shape[1] * options.shape[2],
        dtype=torch.int64,
    )
    return flat.view(*options.shape)


def own_shape(options: argparse.Namespace) -> Any:
    """The shape that everyone takes, as ours."""
    from penjing.config.model import ModelConfig

    return ModelConfig(
        depth=LAYERS,
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        head_dim=HIDDEN // HEADS,
        intermediate_size=INNER,
        max_position_embeddings=options.shape[2] - 1,
    ).shape(VOCAB)


def stepping(
    model: torch.nn.Module, loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> Step:
    """Forward, backward, clipping and fused AdamW: the usual step, the same for everyone."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step(tokens: torch.Tensor, targets: torch.Tensor) -> float:
        loss = loss_of(tokens, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def open_penjing(options: argparse.Namespace) -> tuple[torch.nn.Module, Step]:
    """Our loop, with the settings of `penjing train`."""
    from penjing.config.training import OptimizerConfig
    from penjing.data.batches import Batch
    from penjing.model.build import build_model
    from penjing.model.compilation import compile_block
    from penjing.model.initialization import initialize
    from penjing.process import keep_freed_memory
    from penjing.runtime import DTYPES, Runtime
    from penjing.train.loop import train_steps
    from penjing.train.objectives import next_token
    from penjing.train.optimizer import build_optimizer

    keep_freed_memory()  # as `open_runtime` does
    shape = own_shape(options)
    model = build_model(shape, DTYPES[options.dtype])
    initialize(model, 1)
    _, rows, tokens = options.shape
    compile_block(model, rows, tokens - 1)
    pending: list[Batch] = []

    def batches() -> Any:
        while True:
            yield pending.pop()

    config = OptimizerConfig(kind=options.optimizer, learning_rate=1e-3)
    steps = train_steps(
        model,
        build_optimizer(model, config),
        next_token,
        batches(),
        Runtime(torch.device("cpu"), DTYPES[options.dtype], threads=options.threads),
        steps=range(1, 10**6),
        microbatch_rows=rows,
        schedule=lambda _: 1.0,
        max_grad_norm=1.0,
    )

    def step(tokens: torch.Tensor, targets: torch.Tensor) -> float:
        weights = torch.ones_like(tokens, dtype=torch.float32)
        pending.append(Batch(tokens, targets, weights, torch.zeros_like(tokens)))
        return next(steps).loss

    return model, step


def open_plain(options: argparse.Namespace) -> tuple[torch.nn.Module, Step]:
    """Our own model as one would write it: torch's norm, attention and loss, compiled whole."""
    from torch.nn import functional

    from penjing.model import language_model, racing, transformer
    from penjing.model.attention import DocumentAttention

    def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return functional.rms_norm(x, weight.shape, weight.to(x.dtype), eps)

    def attend(_: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        return out.transpose(1, 2)

    for module in (language_model, racing):
        module.rms_norm = rms_norm  # type: ignore[attr-defined]
    setattr(DocumentAttention, "__call__", attend)  # noqa: B010 - mypy knows no such change
    from penjing.model.initialization import initialize

    shape = own_shape(options)
    model = transformer.Transformer(shape)
    initialize(model, 1)
    forward = torch.compile(model, dynamic=False)

    def loss_of(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = forward(tokens)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return model, stepping(model, loss_of)


def open_transformers(options: argparse.Namespace) -> tuple[torch.nn.Module, Step]:
    """Qwen3ForCausalLM, compiled whole, at its defaults."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HIDDEN // HEADS,
        max_position_embeddings=options.shape[2] - 1,
        tie_word_embeddings=False,
        use_cache=False,
    )
    model: Any = Qwen3ForCausalLM(config)
    forward: Any = torch.compile(model, dynamic=False)

    def loss_of(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = forward(input_ids=tokens).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return model, stepping(model, loss_of)


def open_litgpt(options: argparse.Namespace) -> tuple[torch.nn.Module, Step]:
    """Litgpt's GPT in the same shape, compiled whole, at its defaults, with its chunked loss."""
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    config = Config(
        name="bench",
        block_size=options.shape[2] - 1,
        vocab_size=VOCAB,
        padded_vocab_size=VOCAB,
        n_layer=LAYERS,
        n_head=HEADS,
        n_query_groups=HEADS,
        head_size=HIDDEN // HEADS,
        n_embd=HIDDEN,
        intermediate_size=INNER,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_qk=True,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
    )
    model: Any = GPT(config)
    forward: Any = torch.compile(model, dynamic=False)

    def loss_of(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = chunked_cross_entropy(forward(tokens), targets, chunk_size=0)
        return loss

    return model, stepping(model, loss_of)


def open_nanochat(options: argparse.Namespace) -> tuple[torch.nn.Module, Step]:
    """Nanochat's GPT and its own optimizer, as its base_train has them."""
    sys.path.insert(0, str(options.nanochat))
    from nanochat.gpt import GPT, GPTConfig

    config = GPTConfig(
        sequence_len=options.shape[2] - 1,
        vocab_size=VOCAB,
        n_layer=LAYERS,
        n_head=HEADS,
        n_kv_head=HEADS,
        n_embd=HIDDEN,
    )
    model: Any = GPT(config)
    model.init_weights()
    optimizer = model.setup_optimizer()
    forward: Any = torch.compile(model, dynamic=False)

    def step(tokens: torch.Tensor, targets: torch.Tensor) -> float:
        loss = forward(tokens, targets)
        loss.backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)
        return float(loss.detach())

    return model, step


if __name__ == "__main__":
    sys.exit(main())
