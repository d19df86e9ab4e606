"""One training run of `benchmarks.learning`, in a process of its own; prints one JSON line.

Imports nothing of ours for nanochat. The budget is CPU seconds of training steps, the first ones
(compiling, warming up) left out; the schedule follows the share of the budget that is spent.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch


def main() -> int:
    """Trains for the budget and scores held-out text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("system", choices=("penjing", "nanochat"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settings", default="{}")
    parser.add_argument("--nanochat", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = json.loads(options.settings)
    train = train_penjing if options.system == "penjing" else train_nanochat
    print(json.dumps(train(options, settings)))
    return 0


class Clock:
    """CPU seconds of the steps so far, as a share of the budget."""

    def __init__(self, seconds: float) -> None:
        self.budget, self.spent, self._since = seconds, 0.0, 0.0

    def start(self) -> None:
        self._since = time.process_time()

    @property
    def progress(self) -> float:
        return (self.spent + time.process_time() - self._since) / self.budget


def scores(folder: Path, logprobs: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float:
    """Bits per byte of the held-out windows."""
    tokens, targets, lengths = (
        torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("tokens", "targets", "bytes")
    )
    nats = 0.0
    with torch.no_grad():
        for start in range(0, len(tokens), 16):
            part = slice(start, start + 16)
            found = logprobs(tokens[part], targets[part]).double()
            nats -= float(found[lengths[part] > 0].sum())
    return nats / math.log(2) / float(lengths.sum())


def train_penjing(options: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """Our model, loop and stream; `settings` change the tables model, optimizer and schedule."""
    from benchmarks.learning import open_rows
    from penjing.config.model import ModelConfig
    from penjing.config.scaling import RATES, scaled_rate, scaled_tokens_per_step
    from penjing.config.training import OptimizerConfig, ScheduleConfig
    from penjing.data.batches import Batch
    from penjing.model.build import build_model
    from penjing.model.compilation import compile_block
    from penjing.model.initialization import initialize
    from penjing.model.likelihood import token_logprobs
    from penjing.runtime import DTYPES, open_runtime
    from penjing.train.loop import train_steps
    from penjing.train.objectives import next_token
    from penjing.train.optimizer import build_optimizer
    from penjing.train.schedule import factor

    info = json.loads((options.folder / "info.json").read_text())
    runtime, machine = open_runtime("cpu", settings.get("dtype", "auto"), 1)
    shape = ModelConfig(**info["model"] | settings.get("model", {})).shape(info["vocab_size"])
    model = build_model(shape, DTYPES[machine.dtype])
    initialize(model, options.seed)
    if settings.get("zeros") is False:
        fill_zeros(model, options.seed)
    width = shape.hidden_size
    tokens = settings.get("tokens_per_step") or scaled_tokens_per_step(width, info["tokens"])
    rows = tokens // info["tokens"]
    rates = {name: scaled_rate(name, width) for name in RATES}
    if settings.get("compile", True):
        compile_block(model, rows, info["tokens"])
    optimizer = build_optimizer(model, OptimizerConfig(**rates | settings.get("optimizer", {})))
    schedule = ScheduleConfig(**settings.get("schedule", {}))
    course = replace(schedule, warmup_steps=0)  # the warm-up is counted in steps
    clock, source = Clock(options.seconds), open_rows(options.folder, rows, options.seed)
    clock.start()

    def batches() -> Iterator[Batch]:
        yield from source

    def follow(step: int) -> float:
        fraction = min(1.0, clock.progress)
        down = factor(1 + round(9_999 * fraction), 10_000, course)
        return min(down, step / max(1, schedule.warmup_steps))

    steps, loss = 0, 0.0
    for result in train_steps(
        model,
        optimizer,
        next_token,
        batches(),
        runtime,
        steps=range(1, 10**7),
        microbatch_rows=rows,
        schedule=follow,
        max_grad_norm=settings.get("max_grad_norm", 1.0),
    ):
        steps, loss = result.step, result.loss
        if clock.progress >= 1:
            break

    def logprobs(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return token_logprobs(model, tokens, targets)

    return {
        "bpb": scores(options.folder, logprobs),
        "steps": steps,
        "tokens": steps * rows * info["tokens"],
        "loss": loss,
        "parameters": sum(value.numel() for value in model.parameters()),
        "dtype": machine.dtype,
    }


def fill_zeros(model: Any, seed: int) -> None:
    """Output projections that begin at random instead of zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2 and not weight.any():
                weight.normal_(0, weight.shape[1] ** -0.5, generator=generator)


def train_nanochat(options: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """Nanochat's model, optimizer, schedules and loader at its commit; rows made beforehand."""
    sys.path.insert(0, str(options.nanochat))
    from nanochat.common import COMPUTE_DTYPE
    from nanochat.gpt import GPT, GPTConfig

    info = json.loads((options.folder / "info.json").read_text())
    torch.manual_seed(options.seed)
    shape = info["model"]
    config = GPTConfig(
        sequence_len=info["tokens"],
        vocab_size=info["vocab_size"],
        n_layer=shape["depth"],
        n_head=settings.get("heads", max(1, round(shape["hidden_size"] / 128))),
        n_kv_head=settings.get("heads", max(1, round(shape["hidden_size"] / 128))),
        n_embd=shape["hidden_size"],
    )
    model: Any = GPT(config)
    model.init_weights()
    tokens_per_step = settings["tokens_per_step"]
    rows = tokens_per_step // info["tokens"]
    micro = min(rows, settings.get("microbatch_rows", 32))
    scale = settings.get("rate_scale", (tokens_per_step / 2**19) ** 0.5)
    optimizer = model.setup_optimizer(
        unembedding_lr=0.008 * scale,
        embedding_lr=0.3 * scale,
        scalar_lr=0.5 * scale,
        matrix_lr=0.02 * scale,
        weight_decay=settings.get("weight_decay", 0.0),
    )
    forward: Any = torch.compile(model, dynamic=False)
    ids = nanochat_rows(options.folder, info, micro, options.seed)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(2):  # compiles the model; its optimizer compiles at the first step
        forward(*next(ids)).backward()
    model.load_state_dict(state)
    model.zero_grad(set_to_none=True)
    clock, steps, total = Clock(options.seconds), 0, rows // micro
    while clock.spent < clock.budget:
        parts = [next(ids) for _ in range(total)]
        clock.start()
        for tokens, targets in parts:
            (forward(tokens, targets) / total).backward()
        set_rates(optimizer, clock.progress, steps)
        optimizer.step()
        model.zero_grad(set_to_none=True)
        steps += 1
        if steps > 1:  # the first one compiles the optimizer
            clock.spent += time.process_time() - clock._since

    def logprobs(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = -model(tokens, targets, loss_reduction="none").view(targets.shape)
        return found

    return {
        "bpb": scores(options.folder, logprobs),
        "steps": steps,
        "tokens": steps * tokens_per_step,
        "parameters": sum(value.numel() for value in model.parameters()),
        "dtype": str(COMPUTE_DTYPE).removeprefix("torch."),
    }


def set_rates(optimizer: Any, progress: float, step: int) -> None:
    """As base_train's schedules: warm-up of 40 steps, warm-down over 65 %, momentum, decay."""
    down = (1 - progress) / 0.65
    factor = min(1.0, down + (1 - down) * 0.05) if down < 1 else 1.0
    factor = min(factor, (step + 1) / 40)
    momentum = 0.85 + 0.12 * min(1.0, step / 400) if down >= 1 else 0.97 * down + 0.90 * (1 - down)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
        if group["kind"] == "muon":
            group["momentum"] = momentum


def nanochat_rows(
    folder: Path, info: dict[str, Any], rows: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows as nanochat's loader packs them, from the same documents in a random order."""
    from nanochat import dataloader

    ids, ends = np.load(folder / "ids.npy"), np.load(folder / "ends.npy")
    documents = np.split(ids, ends[:-1])

    def order(*_: Any) -> Iterator[tuple[list[int], tuple[int, int, int]]]:
        dice, epoch = np.random.default_rng(seed), 0
        while True:
            epoch += 1
            chosen = dice.permutation(len(documents))
            for start in range(0, len(chosen), 128):
                yield chosen[start : start + 128].tolist(), (0, 0, epoch)

    class Encoded:
        """What its loader asks of a tokenizer."""

        def get_bos_token_id(self) -> int:
            return int(info["end_of_text"])

        def encode(self, texts: list[int], prepend: int, num_threads: int) -> list[list[int]]:
            del num_threads
            return [[prepend, *documents[text].tolist()] for text in texts]

    dataloader._document_batches = order
    loader = dataloader.tokenizing_distributed_data_loader_bos_bestfit(
        Encoded(), rows, info["tokens"], "train", device="cpu"
    )
    for tokens, targets in loader:
        yield tokens.clone(), targets.clone()


if __name__ == "__main__":
    sys.exit(main())
