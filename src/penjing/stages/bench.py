"""The verb `bench`: how fast a stage trains on this device, and where its step's time goes.

Rows are random ids; nothing of the run is touched. Comparing with other systems is the benchmarks'
duty.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile

from penjing.config.schema import RunConfig
from penjing.config.training import TrainingConfig
from penjing.data.corpus import in_new_process
from penjing.model.compilation import compile_block
from penjing.model.size import flops_per_token, parameters, published_flops_per_token
from penjing.runtime import keep_compiled_code, measured_peak
from penjing.stages.calibration import Opened, open_untrained, random_batches
from penjing.stages.horizon import rows_per_step
from penjing.train.loop import may_read_late, train_steps
from penjing.train.objectives import next_token
from penjing.train.optimizer import build_optimizer

WARM_UP_STEPS = 3

KINDS = (
    ("matrix products", ("mm", "bmm", "addmm", "addmm_", "baddbmm", "matmul", "linear", "gemm")),
    ("softmax and loss", ("softmax", "log_softmax", "logsumexp", "exp_", "gather", "scatter")),
    ("copies", ("copy_", "cat", "contiguous", "clone", "fill_", "zero_", "_to_copy")),
)
"""Parts of operators' names, by what a step's time is spent on; the rest is "everything else"."""


@dataclass(frozen=True)
class Bench:
    """One measurement. `mfu` by both conventions is of the maker's or measured peak; `of_matmul` is
    the share of what products reach on this very device; `compile_seconds` are without and with
    what was compiled before, None where nothing is compiled.
    """

    parameters: int
    tokens_per_second: float
    mfu: float
    published_mfu: float
    of_matmul: float
    matmul_gflops: float
    peak_memory_bytes: int
    recompiles: int
    compile_seconds: tuple[float, float] | None
    shares: dict[str, float]
    dtype: str
    threads: int


def bench(config: RunConfig, stage: str, vocab_size: int, steps: int) -> Bench:
    """Measure `steps` steps of a stage, after some that warm up."""
    section: TrainingConfig = getattr(config, stage)
    compiled = config.runtime.compile != "off"
    compile_seconds = None
    if compiled:
        with tempfile.TemporaryDirectory(prefix="penjing-") as folder:
            asked = (_compile_seconds, config, stage, vocab_size, Path(folder))
            compile_seconds = in_new_process(*asked), in_new_process(*asked)
    opened = open_untrained(config, section, vocab_size)
    model, runtime = opened.model, opened.runtime
    if compiled:
        compile_block(model, opened.microbatch_rows, model.shape.max_position_embeddings)
    seconds, recompiles, shares = _run(section, opened, steps)
    tokens = section.tokens_per_step / statistics.median(seconds)
    shape, context = model.shape, model.shape.max_position_embeddings
    flops = tokens * flops_per_token(shape, context)
    dtype = str(runtime.dtype).removeprefix("torch.")
    matmul = measured_peak(runtime.device, dtype, "")
    if runtime.device.type == "cpu":  # measured twice, since other work at the time can halve it
        matmul = max(matmul, runtime.peak)
        runtime = replace(runtime, peak=matmul)
    return Bench(
        parameters(shape).total,
        tokens,
        runtime.utilization(flops) or 0.0,
        runtime.utilization(tokens * published_flops_per_token(shape, context)) or 0.0,
        flops / matmul / 1e9,
        matmul,
        runtime.memory().peak_bytes,
        recompiles,
        compile_seconds,
        shares,
        dtype,
        runtime.threads,
    )


def _compile_seconds(config: RunConfig, stage: str, vocab_size: int, cache: Path) -> float:
    keep_compiled_code(cache)
    opened = open_untrained(config, getattr(config, stage), vocab_size)
    tokens = opened.model.shape.max_position_embeddings
    return compile_block(opened.model, opened.microbatch_rows, tokens).seconds


def _run(
    section: TrainingConfig, opened: Opened, steps: int
) -> tuple[list[float], int, dict[str, float]]:
    """Seconds of each step, graphs compiled after the warm-up, and shares of one step's time."""
    model, runtime = opened.model, opened.runtime
    optimizer = build_optimizer(model, section.optimizer)
    results = train_steps(
        model,
        optimizer,
        next_token,
        random_batches(rows_per_step(section, model.shape), model.shape),
        runtime,
        steps=range(1, WARM_UP_STEPS + steps + 2),
        microbatch_rows=opened.microbatch_rows,
        schedule=lambda _: 0.01,
        max_grad_norm=section.optimizer.max_grad_norm,
        reads_late=may_read_late(runtime, model, optimizer),
    )
    for _ in range(WARM_UP_STEPS):
        next(results)
    seconds, before = [], counters["stats"]["unique_graphs"]
    for _ in range(steps):
        begun = time.perf_counter()
        next(results)
        seconds.append(time.perf_counter() - begun)
    recompiles = counters["stats"]["unique_graphs"] - before
    activities = [ProfilerActivity.CPU]
    if runtime.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiled:
        next(results)
    spent = dict.fromkeys([*(kind for kind, _ in KINDS), "everything else"], 0.0)
    for event in profiled.key_averages():
        on_device = getattr(event, "self_device_time_total", 0)
        time_spent = on_device if runtime.device.type == "cuda" else event.self_cpu_time_total
        spent[_kind(event.key)] += time_spent
    total = sum(spent.values()) or 1.0
    return seconds, recompiles, {kind: value / total for kind, value in spent.items()}


def _kind(name: str) -> str:
    last = name.rpartition("::")[2]
    for kind, parts in KINDS:
        if last in parts or any(len(part) > 3 and part in last for part in parts):
            return kind
    return "everything else"


def lines(found: Bench) -> Iterator[str]:
    """What a person reads of it."""
    yield (
        f"{found.parameters:,} parameters, {found.dtype}, {found.threads} threads: "
        f"{found.tokens_per_second:,.0f} tokens/s"
    )
    yield (
        f"MFU {found.mfu:.1%} (A: 6 N and causal attention), {found.published_mfu:.1%} (B: as "
        f"nanochat counts); {found.of_matmul:.1%} of the {found.matmul_gflops:,.0f} GFLOP/s that "
        "matrix products reach here"
    )
    compiling = "not compiled"
    if found.compile_seconds is not None:
        cold, warm = found.compile_seconds
        compiling = f"compiling {cold:.1f} s at first, {warm:.1f} s from the cache"
    yield (
        f"memory {found.peak_memory_bytes / 1e9:.2f} GB; {compiling}; {found.recompiles} recompiles"
    )
    parts = ", ".join(f"{kind} {share:.0%}" for kind, share in found.shares.items())
    yield f"a step's time: {parts}"
