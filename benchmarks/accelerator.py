"""What an accelerator has to show, in one go: attention, steps at d12 and d20, decoding.

    python -m benchmarks.accelerator [--nanochat PATH/nanochat] [--parts attention,steps,decode]

`tests/end_to_end/test_cuda.py` goes first: it compares with a CPU. Attention: our function beside
what else torch has, forward and backward, in rows of documents, each held against float32 with a
whole mask; those that know no documents see whole rows and are shown as a bound. Steps: what
`penjing bench` prints for the portable class and for racing, beside nanochat's model and optimizer,
random rows, T = 2,048. Decoding: one sequence, greedy, untrained weights. Every part tells its own
failure and leaves the others alone.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention

from penjing.config.loading import load_run
from penjing.config.model import ModelConfig
from penjing.generate.engine import Request, generate
from penjing.generate.sampling import Sampling
from penjing.model.attention import document_starts
from penjing.model.build import build_model
from penjing.model.causal import causal_attention, causal_blocks
from penjing.model.initialization import initialize
from penjing.runtime import make_generator
from penjing.stages.bench import bench

VOCAB, TOKENS, DEPTHS = 32_768, 2_048, (12, 20)

RUN = """
name = "bench"
[model]
architecture = "{architecture}"
depth = {depth}
head_dim = 128
max_position_embeddings = {tokens}
[tokenizer]
vocab_size = {vocab}
[sources.text]
paths = ["text.jsonl"]
[pretrain]
steps = 1000
tokens_per_step = {tokens_per_step}
[pretrain.mixture]
text = 1.0
"""

Inputs = tuple[Tensor, Tensor, Tensor]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """Rows of documents, and queries (B, T, H, K), keys and values (B, T, N, K)."""

    starts: Tensor
    inputs: Inputs


def main() -> int:
    """Prints the table of each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nanochat", type=Path)
    parser.add_argument("--parts", default="attention,steps,decode")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--rows", type=int, default=16, help="of attention")
    parser.add_argument("--tokens-per-step", type=int, default=524_288)
    parser.add_argument("--system", help="(one measured system, in a process of its own)")
    options = parser.parse_args()
    if options.system:
        found = nanochat_steps(options) if options.system == "nanochat" else own_steps(options)
        print(json.dumps(found))
        return 0
    parts = {"attention": attention, "steps": steps, "decode": decode}
    for part in options.parts.split(","):
        print(f"\n{part}", flush=True)
        parts[part](options)
    return 0


def attention(options: argparse.Namespace) -> None:
    """A row a contender: milliseconds of a layer, and how far off."""
    for depth in options.depths:
        shape = ModelConfig(depth=depth, head_dim=128).shape(VOCAB)
        heads, kv_heads = shape.num_attention_heads, shape.num_key_value_heads
        case = make_case(options.rows, options.tokens, (heads, kv_heads, shape.head_dim), options)
        small = make_case(2, min(options.tokens, 512), (heads, kv_heads, shape.head_dim), options)
        print(f"d{depth}: {options.rows} x {options.tokens}, {heads} heads, {kv_heads} of keys")
        print("| attention | forward ms | and backward ms | off from float32 |")
        print("|---|---|---|---|")
        for name, make in contenders(options.device).items():
            try:
                off = distance(make(small), small)
                forward, both = seconds(make(case), case)
            except Exception as error:  # whatever a library of somebody's raises
                print(f"| {name} | {type(error).__name__}: {first_line(error)} | | |", flush=True)
                continue
            print(f"| {name} | {forward * 1e3:.2f} | {both * 1e3:.2f} | {off:.1e} |", flush=True)


def contenders(device: str) -> dict[str, Callable[[Case], Attend]]:
    """By name; each is made for a case, so that masks are not in the time."""
    found: dict[str, Callable[[Case], Attend]] = {
        "ours, compiled (FlexAttention)": own_compiled,
        "ours, eager (a whole mask)": own_eager,
        'FlexAttention, BACKEND="FLASH" (FA4)': flex_with_flash,
        "varlen_attn (FA2)": partial(varlen, ""),
        "varlen_attn, FA3": partial(varlen, "FA3"),
        "varlen_attn, FA4": partial(varlen, "FA4"),
    }
    if device == "cuda":
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
            found[f"no documents: {backend.name}"] = partial(whole_rows, backend)
    return found


def own_eager(case: Case) -> Attend:
    return lambda q, k, v: causal_attention(q, k, v, case.starts)


def own_compiled(case: Case) -> Attend:
    compiled: Any = torch.compile(causal_attention, dynamic=False)
    return partial(compiled, starts_BS=case.starts, block_mask=causal_blocks(case.starts))


def flex_with_flash(case: Case) -> Attend:
    compiled: Any = torch.compile(flex_attention, dynamic=False)
    wanted = {
        "block_mask": causal_blocks(case.starts),
        "enable_gqa": True,
        "kernel_options": {"BACKEND": "FLASH"},
    }

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out: Tensor = compiled(*turned(q, k, v), **wanted)
        return out.transpose(1, 2)

    return attend


def varlen(name: str, case: Case) -> Attend:
    """Documents one behind the other, as flash attention's own interface takes them."""
    # Here, since an older torch that has not all of it fails in this row alone.
    from torch.nn.attention import activate_flash_attention_impl, restore_flash_attention_impl
    from torch.nn.attention.varlen import varlen_attn

    if name:
        activate_flash_attention_impl(name)
    else:
        restore_flash_attention_impl(_raise_warn=False)
    ends, longest = ends_of_documents(case.starts)
    wanted = {"window_size": (-1, 0), "enable_gqa": True}

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        places: tuple[Any, ...] = (ends, ends, longest, longest)
        attending: Any = varlen_attn
        out: Tensor = attending(*(x.flatten(0, 1) for x in (q, k, v)), *places, **wanted)
        return out.view(q.shape)

    return attend


def ends_of_documents(starts_BT: Tensor) -> tuple[Tensor, int]:
    """(documents + 1,) int32, where each begins among all tokens, and the longest one's length."""
    index_T = torch.arange(starts_BT.shape[1], device=starts_BT.device)
    begins = (starts_BT == index_T).flatten().nonzero().flatten()
    ends = functional.pad(begins, (0, 1), value=starts_BT.numel()).int()
    return ends, int(ends.diff().max())


def whole_rows(backend: SDPBackend, case: Case) -> Attend:
    del case

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        query, key, value = turned(q, k, v)
        with sdpa_kernel(backend):
            out = functional.scaled_dot_product_attention(
                query, key, value, is_causal=True, enable_gqa=True
            )
        return out.transpose(1, 2)

    return attend


def turned(q: Tensor, k: Tensor, v: Tensor) -> Inputs:
    """(B, H, T, K), as torch's own functions take them."""
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def make_case(
    rows: int, tokens: int, sizes: tuple[int, int, int], options: argparse.Namespace
) -> Case:
    """Documents of lognormal length, 500 tokens in the middle, cut where a row ends."""
    heads, kv_heads, width = sizes
    generator = make_generator(rows)
    lengths = torch.exp(torch.randn(rows * tokens, generator=generator) + 6.2).long() + 1
    ids = torch.repeat_interleave(lengths)[: rows * tokens].view(rows, tokens)
    inputs = tuple(
        torch.randn((rows, tokens, count, width), generator=generator)
        .to(options.device, torch.bfloat16)
        .requires_grad_()
        for count in (heads, kv_heads, kv_heads)
    )
    return Case(document_starts(ids.to(options.device)), (inputs[0], inputs[1], inputs[2]))


def run(attend: Attend, inputs: Inputs) -> list[Tensor]:
    """The output and the gradients of a sum with weights."""
    out = attend(*inputs)
    weights = torch.linspace(-1, 1, out.shape[-1], device=out.device).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), inputs)]


def distance(attend: Attend, case: Case) -> float:
    """The largest of the relative errors of the output and its gradients; see the module's text
    for those without documents, whose distance says nothing.
    """
    exact = tuple(x.detach().float().requires_grad_() for x in case.inputs)
    wanted = run(lambda q, k, v: masked(q, k, v, case.starts), (exact[0], exact[1], exact[2]))
    found = run(attend, case.inputs)
    return max(
        float((one.float() - other).norm() / other.norm())
        for one, other in zip(found, wanted, strict=True)
    )


def masked(q: Tensor, k: Tensor, v: Tensor, starts_BT: Tensor) -> Tensor:
    """Attention as it is defined, with every weight in memory."""
    index_T = torch.arange(starts_BT.shape[1], device=starts_BT.device)
    seen = (index_T >= starts_BT[:, :, None]) & (index_T <= index_T[:, None])
    group = q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(group, 2) for x in (k, v))
    scores = torch.einsum("bshk,blhk->bhsl", q, k) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~seen[:, None], float("-inf")).softmax(-1)
    return torch.einsum("bhsl,blhk->bshk", weights, v)


def seconds(attend: Attend, case: Case) -> tuple[float, float]:
    """Of a forward pass, and of one with its backward pass: medians of ten."""
    with torch.no_grad():
        forward = median_seconds(lambda: attend(*case.inputs), case.starts.device)
    return forward, median_seconds(lambda: run(attend, case.inputs), case.starts.device)


def median_seconds(work: Callable[[], object], device: torch.device, times: int = 10) -> float:
    found = []
    for _ in range(times + 3):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - begun)
    return statistics.median(found[3:])


def steps(options: argparse.Namespace) -> None:
    """A row a system and depth; each in a process of its own."""
    print("| system | parameters | tokens/s | MFU A | MFU B | GB | recompiles |")
    print("|---|---|---|---|---|---|---|")
    systems = ("qwen3", "racing", "nanochat") if options.nanochat else ("qwen3", "racing")
    for depth in options.depths:
        for system in systems:
            words = ["--system", system, "--device", options.device, "--depths", str(depth)]
            words += ["--tokens", str(options.tokens)]
            words += ["--tokens-per-step", str(options.tokens_per_step)]
            words += ["--nanochat", str(options.nanochat)] if options.nanochat else []
            print_steps(f"{system} d{depth}", answer(["-m", "benchmarks.accelerator", *words]))


def own_steps(options: argparse.Namespace) -> dict[str, Any]:
    """What `penjing bench` measures, with the settings of a run file that leaves all out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.toml"
        (path.parent / "text.jsonl").write_text('{"text": "not read"}\n')
        path.write_text(
            RUN.format(
                architecture=options.system,
                depth=options.depths[0],
                tokens=options.tokens,
                vocab=VOCAB,
                tokens_per_step=options.tokens_per_step,
            )
        )
        config = load_run(path, [f"runtime.device={options.device}"])
        return asdict(bench(config, "pretrain", VOCAB, steps=5))


def print_steps(name: str, found: dict[str, Any]) -> None:
    if "error" in found:
        print(f"| {name} | {found['error']} | | | | | |", flush=True)
        return
    memory = found["peak_memory_bytes"] / 1e9
    print(
        f"| {name} | {found['parameters']:,} | {found['tokens_per_second']:,.0f} | "
        f"{found.get('mfu', 0):.1%} | {found['published_mfu']:.1%} | {memory:.1f} | "
        f"{found.get('recompiles', '')} |",
        flush=True,
    )


def answer(words: list[str]) -> dict[str, Any]:
    """The last line of a process as JSON, or its last words."""
    command = [sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1][:160]}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def nanochat_steps(options: argparse.Namespace) -> dict[str, Any]:
    """Nanochat's GPT and optimizer as its base_train has them: 64 wide a layer, heads of 128."""
    sys.path.insert(0, str(options.nanochat))
    from nanochat.gpt import GPT, GPTConfig

    (depth,), device = options.depths, options.device
    config = GPTConfig(
        sequence_len=options.tokens,
        vocab_size=VOCAB,
        n_layer=depth,
        n_head=depth // 2,
        n_kv_head=depth // 2,
        n_embd=depth * 64,
    )
    with torch.device("meta"):
        model: Any = GPT(config)
    model = model.to_empty(device=device)
    model.init_weights()
    optimizer = model.setup_optimizer()
    forward: Any = torch.compile(model, dynamic=False)
    rows = min(32, options.tokens_per_step // options.tokens)
    parts = options.tokens_per_step // (rows * options.tokens)
    ids = torch.randint(VOCAB, (rows, options.tokens + 1)).to(device)

    def step() -> None:
        for _ in range(parts):
            (forward(ids[:, :-1].contiguous(), ids[:, 1:].contiguous()) / parts).backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)

    spent = median_seconds(step, torch.device(device), 5)
    tokens = options.tokens_per_step / spent
    return {
        "parameters": sum(value.numel() for value in model.parameters()),
        "tokens_per_second": tokens,
        "published_mfu": tokens * model.estimate_flops() / 989e12,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else 0,
    }


def decode(options: argparse.Namespace) -> None:
    """Tokens a second of one sequence, and of 64 at once."""
    print("| model | one sequence, tokens/s | 64, tokens/s |")
    print("|---|---|---|")
    for depth in options.depths:
        shape = ModelConfig(
            depth=depth, head_dim=128, max_position_embeddings=options.tokens
        ).shape(VOCAB)
        model = build_model(shape, torch.bfloat16)
        initialize(model, 1)
        model = model.to(options.device)
        found = []
        for rows in (1, 64):
            length = min(256, options.tokens // 2)
            greedy = Sampling(max_new_tokens=length, temperature=0.0)
            wanted = [Request((1 + row, 2, 3), greedy, seed=row) for row in range(rows)]
            generate(model, wanted[:1], stop_ids=(), slots=1)
            begun = time.perf_counter()
            done = generate(model, wanted, stop_ids=(), slots=rows)
            found.append(sum(len(one.ids) for one in done) / (time.perf_counter() - begun))
        print(f"| d{depth} | {found[0]:,.0f} | {found[1]:,.0f} |", flush=True)


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:120]


if __name__ == "__main__":
    sys.exit(main())
