"""Device, precision, threads and ranks: the only room that knows torch.cuda, xpu, mps and
torch.distributed, and that reads torch's environment variables.

It moves no batches and holds no model; where the machine's choice is stored is the stages' concern.
"""

import atexit
import json
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from penjing.errors import ConfigError, PenjingError
from penjing.process import keep_freed_memory, memory_bytes, peak_memory_bytes, started_ranks

PROBED = ("float32", "bfloat16")
"""float16 is never chosen, only asked for: it needs its loss scaled, and CPUs are slow at it."""
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in (*PROBED, "float16")}

T = TypeVar("T")

COMPILE_CACHE = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
"""What the person set."""

MAKERS_PEAK = {
    "H100 PCIe": 756e3,
    "H100": 989e3,
    "H200": 989e3,
    "B200": 2250e3,
    "A100": 312e3,
    "L40S": 362e3,
    "A40": 150e3,
    "RTX 4090": 165e3,
}
"""GFLOP/s of dense bfloat16 products, by a part of the device's name. Source: the data sheets."""

PROBE_HIDDEN_SIZE = 192
"""A CPU's choice hardly depends on the model, and emulated bfloat16 takes seconds on a large one.
An accelerator is asked at the model's own size: small products are all launch time there."""

PROBE_SECONDS = 0.04
"""Longest time spent on one shape in one dtype, warm-up left out: six of them stay below 0.5 s."""

PEAK_SIZE = 1024
"""Of the square product that stands for the peak: larger ones are hardly faster on CPUs."""

MIN_SPEEDUP = 1.2
"""bfloat16 costs precision, so it must be this much faster to be chosen."""


@dataclass(frozen=True)
class _Device:
    """A row of the device table; `memory` gives the bytes allocated now, reserved now and at most;
    it is None where the process's own are meant.
    """

    available: Callable[[], bool]
    name: Callable[[], str]
    synchronize: Callable[[], None]
    free: Callable[[], None]
    memory: Callable[[], tuple[int, int, int]] | None
    collectives: str


def _cpu_name() -> str:
    """Vendor's name with family and model, since virtual machines often say only "AMD EPYC"."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in path.read_text().splitlines())
    values = {key.strip(): value.strip() for key, _, value in lines}
    name = values.get("model name", platform.machine())
    return f"{name}, family {values.get('cpu family', '?')}, model {values.get('model', '?')}"


def _nothing() -> None:
    """A CPU neither runs ahead nor keeps a cache."""


def _accelerator(module: Any, collectives: str) -> _Device:
    def memory() -> tuple[int, int, int]:
        return module.memory_allocated(), module.memory_reserved(), module.max_memory_allocated()

    return _Device(
        module.is_available,
        module.get_device_name,
        module.synchronize,
        module.empty_cache,
        memory,
        collectives,
    )


def _mps_memory() -> tuple[int, int, int]:
    held, reserved = torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory()
    return held, reserved, reserved


# In order of preference. cpu and cuda are tested; xpu and mps follow torch's documentation.
DEVICES = {
    "cuda": _accelerator(torch.cuda, "nccl"),
    "xpu": _accelerator(torch.xpu, "xccl"),
    "mps": _Device(
        torch.backends.mps.is_available,
        _cpu_name,
        torch.mps.synchronize,
        torch.mps.empty_cache,
        _mps_memory,
        "gloo",
    ),
    "cpu": _Device(lambda: True, _cpu_name, _nothing, _nothing, None, "gloo"),
}


@dataclass(frozen=True)
class Memory:
    """What a device holds for this process, in bytes."""

    allocated_bytes: int
    reserved_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class Machine:
    """What was chosen on this machine, once a run: the content of `machine.json`.

    `measurements` are the probe's GFLOP/s by dtype; empty when nothing had to be measured. `peak`
    is what matrix products of the chosen dtype reach at most, in GFLOP/s: of an accelerator that is
    known by name its maker's number, else measured; 0 if unknown.
    """

    device: str
    cpu: str
    accelerator: str
    dtype: str
    threads: int
    torch: str
    measurements: dict[str, float] = field(default_factory=dict)
    peak: float = 0.0
    attention: str = ""
    """Our own kernels on a CPU, attention first, as `model.kernels.CPU_KERNELS` names them."""


@dataclass(frozen=True)
class Runtime:
    """Where this process computes, in which precision, and which of the ranks it is."""

    device: torch.device
    dtype: torch.dtype
    rank: int = 0
    world_size: int = 1
    threads: int = 1
    peak: float = 0.0
    """Of matrix products in `dtype`, GFLOP/s; 0: unknown."""

    @property
    def pins_memory(self) -> bool:
        """Whether batches are copied faster from memory that the system may not move."""
        return self.device.type in ("cuda", "xpu")

    def gather(self, value: Any) -> list[Any]:
        """Every rank's JSON value, by rank; floats come through unchanged. All ranks must call."""
        if self.world_size == 1:
            return [value]
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        data = data.to(self.device)
        size = torch.tensor([len(data)], device=self.device)
        sizes = [torch.zeros_like(size) for _ in range(self.world_size)]
        dist.all_gather(sizes, size)
        longest = max(int(size) for size in sizes)
        padded = [data.new_zeros(longest) for _ in range(self.world_size)]
        dist.all_gather(padded, torch.cat([data, data.new_zeros(longest - len(data))]))
        pairs = zip(padded, sizes, strict=True)
        return [json.loads(bytes(text[: int(size)].tolist())) for text, size in pairs]

    def sum_over_ranks(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, in place, by its sum over the ranks."""
        if self.world_size > 1:
            pending = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
            for work in pending:
                work.wait()

    def require_agreement(self, what: str, value: Any) -> None:
        """Make sure that all ranks hold the same.

        Raises:
            PenjingError: a rank holds something else.
        """
        found = self.gather(value)
        for rank, other in enumerate(found):
            if other != found[0]:
                raise PenjingError(
                    f"{what}: rank 0 has {found[0]}, rank {rank} has {other}; start all ranks from "
                    "the same run file, the same Penjing and the same run directory"
                )

    def total_memory_bytes(self) -> int:
        """All memory of the device; on a CPU of the machine."""
        if self.device.type in ("cuda", "xpu"):
            module = getattr(torch, self.device.type)
            return int(module.get_device_properties(self.device).total_memory)
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def free_memory(self) -> None:
        """Hand the device's cached memory back, after an allocation failed."""
        DEVICES[self.device.type].free()

    def memory(self) -> Memory:
        """What the device holds for this process; on a CPU the process's own memory."""
        measure = DEVICES[self.device.type].memory
        if measure is None:
            return Memory(memory_bytes(), memory_bytes(), peak_memory_bytes())
        return Memory(*measure())

    def utilization(self, flops_per_second: float) -> float | None:
        """The share of this rank's peak; None if that is unknown."""
        return flops_per_second / self.world_size / (self.peak * 1e9) if self.peak else None


def open_runtime(
    device: str,
    dtype: str,
    threads: int | None,
    recorded: Machine | None = None,
    hidden_size: int = PROBE_HIDDEN_SIZE,
) -> tuple[Runtime, Machine]:
    """Choose device, precision and threads, and join the other ranks under torchrun.

    Args:
        device: a name of `DEVICES`, or "auto" for the first that is there.
        dtype: "float32", "bfloat16", or "auto" to measure both.
        threads: CPU threads of this rank, or None for all cores, shared among local ranks.
        recorded: this run's earlier choice; "auto" and None repeat it on the same machine.
        hidden_size: of the model that is to compute there.

    Raises:
        ConfigError: the device is not there.
    """
    name = _choose_device(device)
    row, cpu = DEVICES[name], _cpu_name()
    accelerator = "" if name == "cpu" else row.name()
    here = (name, cpu, accelerator)
    if recorded and (recorded.device, recorded.cpu, recorded.accelerator) != here:
        recorded = None
    threads = threads or (recorded.threads if recorded else _cores_of_a_rank())
    torch.set_num_threads(threads)
    keep_freed_memory()
    # On accelerators it would refuse operators that attention needs; there, bits may differ.
    torch.use_deterministic_algorithms(name == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    target, rank, world_size = _join_ranks(name, row.collectives)
    runtime = Runtime(target, DTYPES.get(dtype, torch.float32), rank, world_size, threads)
    measurements = dict(recorded.measurements) if recorded else {}
    if dtype == "auto" and recorded:
        dtype = recorded.dtype
    elif dtype == "auto":
        # A measurement may differ between ranks; the first rank's counts for all.
        dtype, measurements = runtime.gather(probe_dtype(target, hidden_size))[0]
    known = recorded is not None and recorded.dtype == dtype and recorded.threads == threads
    peak = recorded.peak if recorded and known else 0.0
    peak = peak or runtime.gather(measured_peak(target, dtype, accelerator))[0]
    return replace(runtime, dtype=DTYPES[dtype], peak=peak), Machine(
        name, cpu, accelerator, dtype, threads, str(torch.__version__), measurements, peak
    )


def keep_compiled_code(folder: Path) -> None:
    """Where what torch compiles is kept for the next stage and run, unless the person said it."""
    if COMPILE_CACHE is None:  # torch may have set the variable to its own default since
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder.absolute())


def _choose_device(device: str) -> str:
    found = [name for name, row in DEVICES.items() if row.available()]
    if device == "auto":
        return found[0]
    if device not in found:
        raise ConfigError(
            f"runtime.device is {device!r}, which torch {torch.__version__} cannot use here: "
            f'available are {", ".join(found)}; or set runtime.device = "auto"'
        )
    return device


def _cores_of_a_rank() -> int:
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, cores // local_ranks)


def _join_ranks(name: str, collectives: str) -> tuple[torch.device, int, int]:
    """Device, rank and number of ranks; torchrun says them in the environment."""
    rank, world_size = int(os.environ.get("RANK", "0")), started_ranks()
    target = torch.device(name)
    if name in ("cuda", "xpu"):
        target = torch.device(name, int(os.environ.get("LOCAL_RANK", "0")))
        torch.accelerator.set_device_index(target.index)
    if world_size > 1 and not dist.is_initialized():
        dist.init_process_group(collectives, rank=rank, world_size=world_size)
        atexit.register(dist.destroy_process_group)
    return target, rank, world_size


def probe_dtype(device: torch.device, hidden_size: int) -> tuple[str, dict[str, float]]:
    """The faster dtype of matrix products and the GFLOP/s of each; below 0.5 s on a CPU.

    The products are those of a transformer's layers and of a small head.
    """
    seconds = dict.fromkeys(PROBED, 0.0)
    width = PROBE_HIDDEN_SIZE if device.type == "cpu" else hidden_size
    shapes = [(512, width, width * 8 // 3), (512, width * 8 // 3, width), (512, width, 2048)]
    for shape in shapes:
        for name in PROBED:
            seconds[name] += _seconds_of_product(device, DTYPES[name], shape)
    operations = sum(2 * rows * inputs * outputs for rows, inputs, outputs in shapes)
    rates = {name: round(operations / spent / 1e9, 1) for name, spent in seconds.items()}
    faster = seconds["float32"] >= MIN_SPEEDUP * seconds["bfloat16"]
    return ("bfloat16" if faster else "float32"), rates


def measured_peak(device: torch.device, dtype: str, accelerator: str) -> float:
    """GFLOP/s that products of this dtype reach at most here; some 0.15 s on a CPU."""
    for part, peak in MAKERS_PEAK.items():
        if re.search(rf"\b{part}\b", accelerator) and dtype in ("bfloat16", "float16"):
            return peak
    rate = 0.0
    # A dtype that is emulated would take seconds at full size.
    for size in (PEAK_SIZE // 4, PEAK_SIZE if device.type == "cpu" else 8 * PEAK_SIZE):
        if rate and 2 * size**3 / rate > PROBE_SECONDS:
            break
        spent = _seconds_of_product(device, DTYPES[dtype], (size, size, size))
        rate = max(rate, 2 * size**3 / spent)
    return round(rate / 1e9, 1)


def _seconds_of_product(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]
) -> float:
    """The best time of one product as the model takes it: the float32 weight is cast first."""
    rows, inputs, outputs = shape
    x = torch.ones(rows, inputs, dtype=dtype, device=device)
    weight = torch.ones(outputs, inputs, device=device)
    synchronize = DEVICES[device.type].synchronize
    weight = weight.to(dtype) if rows == inputs else weight  # of the peak: the product alone
    times: list[float] = []
    deadline = float("inf")
    while len(times) < 2 or time.perf_counter() < deadline:
        begun = time.perf_counter()
        torch.nn.functional.linear(x, weight.to(dtype))
        synchronize()
        times.append(time.perf_counter() - begun)
        if len(times) == 1:  # the first product warms up caches and kernels
            deadline = time.perf_counter() + PROBE_SECONDS
    return min(times[1:])


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; a CPU's failure is a plain RuntimeError in torch."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def fitting(work: Callable[[int], T], rows: int, device: torch.device) -> T:
    """The work with so many rows at a time, or with the largest half, quarter, ... of them that
    fits into memory. Only for work that may be begun again.

    Raises:
        ConfigError: a single row does not fit.
    """
    while True:
        try:
            return work(rows)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        if rows == 1:
            raise ConfigError(
                f"out of memory on {device} with one row at a time: free the device's memory, or "
                "choose a smaller model"
            )
        rows //= 2
        DEVICES[device.type].free()


def make_generator(seed: int) -> torch.Generator:
    """A CPU generator of its own, so that draws do not depend on who drew before."""
    return torch.Generator().manual_seed(seed)
