"""Measures how the best rates and the best batch go with depth, on stories and children's books.

    python -m benchmarks.scaling RUN --out /tmp/scaling.jsonl

RUN is that of `benchmarks.learning`, whose runs these are: depths 2 to 4 at 64 wide a layer, in
CPU minutes that grow with depth, 60 in all. For every setting a parabola is laid through the bits
per byte over the logarithm of the setting; the exponent is the slope of its lowest point over the
logarithm of the width. Intervals: 90 % of 2,000 draws with the noise of equal runs of two seeds.
"""

import argparse
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning import measured, read_done, write_folder

MINUTES = {2: 0.75, 3: 1.25, 4: 2.0}
RATES = (0.005, 0.01, 0.02, 0.04, 0.08)
BATCHES = (1024, 2048, 4096)
FACTORS = (0.5, 1.0, 2.0)
REFERENCE = {
    "matrix_learning_rate": 0.01,
    "embedding_learning_rate": 0.2,
    "head_learning_rate": 0.005,
    "norm_learning_rate": 0.01,
}
DRAWS = 2000


@dataclass(frozen=True)
class Setting:
    """One value of one of the three things that vary; the others stand at `REFERENCE` and 2,048."""

    what: str
    value: float
    depth: int
    seed: int

    @property
    def job(self) -> tuple[str, float, int]:
        return f"{self.what} {self.value:g}, depth {self.depth}", MINUTES[self.depth], self.seed

    def settings(self) -> dict[str, Any]:
        """What `benchmarks.learning_jobs` is told."""
        rates = dict(REFERENCE)
        if self.what == "matrix rate":
            rates["matrix_learning_rate"] = self.value
        elif self.what == "other rates, times":
            others = rates.keys() - {"matrix_learning_rate"}
            rates |= {name: self.value * rates[name] for name in others}
        tokens = int(self.value) if self.what == "tokens a step" else 2048
        model = {"depth": self.depth, "hidden_size": 64 * self.depth}
        return {"model": model, "optimizer": rates, "tokens_per_step": tokens}


def wanted() -> list[Setting]:
    """All runs, the default ones once."""
    found = []
    for depth in MINUTES:
        for seed in (1, 2):
            found += [Setting("matrix rate", value, depth, seed) for value in RATES[seed - 1 :]]
            found += [Setting("tokens a step", value, depth, seed) for value in (1024, 4096)]
        found += [Setting("other rates, times", value, depth, 1) for value in (0.5, 2.0)]
    return found


def main() -> int:
    """Runs what is missing and prints the exponents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.nanochat = options.peers = None
    done = read_done(options.out)
    with tempfile.TemporaryDirectory() as folder:
        write_folder(options.run, Path(folder))

        def one(setting: Setting) -> None:
            answer = measured(("penjing", setting.settings()), setting.job, Path(folder), options)
            with options.out.open("a") as file:
                file.write(json.dumps({"job": setting.job} | answer) + "\n")

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, [setting for setting in wanted() if setting.job not in done]))
    show({key: one["bpb"] for key, one in read_done(options.out).items()})
    return 0


def show(bpb: dict[tuple[str, float, int], float]) -> None:
    """A table of what was run, and an exponent for each setting."""
    print("| setting | " + " | ".join(f"depth {depth}" for depth in MINUTES) + " |")
    print("|---|" + "---|" * len(MINUTES))
    noise = _noise(bpb)
    for what, values in (
        ("matrix rate", RATES),
        ("tokens a step", BATCHES),
        ("other rates, times", FACTORS),
    ):
        table = np.array(
            [[_mean(bpb, what, value, depth) for value in values] for depth in MINUTES]
        )
        for number, value in enumerate(values):
            cells = " | ".join(f"{cell:.3f}" for cell in table[:, number])
            print(f"| {what} {value:g} | {cells} |")
        best = " | ".join(f"{2**x:.4g}" for x in _lowest(np.log2(values), table))
        low, middle, high = _exponent(np.log2(values), table, noise)
        print(f"| {what}: best | {best} |")
        print(f"| exponent of the width: {middle:.2f} ({low:.2f} to {high:.2f}) |" + " |" * 3)
    print(f"\nnoise of one run: {noise:.4f} bits per byte")


def _mean(bpb: dict[tuple[str, float, int], float], what: str, value: float, depth: int) -> float:
    setting = Setting(what, value, depth, 1)
    if setting.settings() == Setting("matrix rate", 0.01, depth, 1).settings() or (
        (what, value) in (("tokens a step", 2048), ("other rates, times", 1.0))
    ):
        setting = Setting("matrix rate", 0.01, depth, 1)
    name, minutes, _ = setting.job
    found = [bpb[name, minutes, seed] for seed in (1, 2) if (name, minutes, seed) in bpb]
    return float(np.mean(found))


def _noise(bpb: dict[tuple[str, float, int], float]) -> float:
    """Standard deviation of one run, from pairs of two seeds."""
    pairs = [
        bpb[name, minutes, 1] - bpb[name, minutes, 2]
        for name, minutes, seed in bpb
        if seed == 1 and (name, minutes, 2) in bpb
    ]
    return float(np.sqrt(np.mean(np.square(pairs)) / 2))


def _lowest(logs: NDArray[np.float64], table: NDArray[np.float64]) -> list[float]:
    """Where each row's parabola is lowest, inside what was measured and one step around it."""
    found = []
    for row in table:
        a, b, _ = np.polyfit(logs, row, 2)
        least = -b / (2 * a) if a > 0 else logs[int(np.argmin(row))]
        found.append(float(np.clip(least, logs[0] - 1, logs[-1] + 1)))
    return found


def _exponent(
    logs: NDArray[np.float64], table: NDArray[np.float64], noise: float
) -> tuple[float, float, float]:
    widths = np.log2([64 * depth for depth in MINUTES])
    dice = np.random.default_rng(0)
    slopes = [
        np.polyfit(widths, _lowest(logs, table + dice.normal(0, noise / 2**0.5, table.shape)), 1)[0]
        for _ in range(DRAWS)
    ]
    low, high = np.quantile(slopes, [0.05, 0.95])
    return float(low), float(np.polyfit(widths, _lowest(logs, table), 1)[0]), float(high)


if __name__ == "__main__":
    sys.exit(main())
