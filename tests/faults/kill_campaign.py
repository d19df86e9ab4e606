"""Kills or stops a small run at random moments, resumes it, and compares it with one left alone.

A process of its own: it imports torch once and forks, so that a kill costs milliseconds.
Usage: python kill_campaign.py DIRECTORY --kills N --seed S [--stages pretrain,sft,rl] [--stop]
With --stop it is sent SIGTERM, and must end within 10 s: with 75, or at once before it trains.
Prints one line a stage and `differences: N`; the exit code is 0 when there are none.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
import torch._dynamo  # what optimizers import at their first step: two seconds a child otherwise

from penjing.config.loading import load_run
from penjing.config.schema import RunConfig
from penjing.errors import StoppedEarly
from penjing.stages.pipeline import train

SMALL = Path(__file__).parents[1] / "small.toml"
COMPARED = ("metrics.jsonl", "samples.jsonl", "rollouts.jsonl")


def main() -> int:
    """Runs the campaign."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", default="pretrain,sft,rl")
    parser.add_argument("--stop", action="store_true")
    arguments = parser.parse_args()
    number = signal.SIGTERM if arguments.stop else signal.SIGKILL
    torch.set_num_threads(1)
    config, stages = load_run(SMALL), arguments.stages.split(",")
    reference = arguments.directory / "reference"
    if not (reference / config.name / "rl" / "stage.json").exists():
        shutil.rmtree(reference, ignore_errors=True)
        for stage in ("tokenizer", "shards", "pretrain", "midtrain", "sft", "dpo", "rl"):
            assert finish(config, reference, stage) == 0, f"{stage} failed when left alone"
    differences = 0
    for place, stage in enumerate(stages):
        kills = arguments.kills // len(stages) + (place < arguments.kills % len(stages))
        rng = random.Random(f"{arguments.seed}/{stage}")
        differences += kill_stage(config, arguments.directory, stage, kills, rng, number)
    sys.stdout.write(f"differences: {differences}\n")
    return int(differences > 0)


def kill_stage(
    config: RunConfig,
    directory: Path,
    stage: str,
    kills: int,
    rng: random.Random,
    number: signal.Signals,
) -> int:
    """Kills `stage` so many times, in runs of up to four kills; returns files that differ."""
    reference, killed = directory / "reference" / config.name, directory / "killed" / config.name
    begun = time.monotonic()
    differences, landed, early = 0, 0, 0
    duration = trial_seconds(config, directory, stage)
    while landed < kills:
        prepare(reference, killed, stage)
        for _ in range(min(kills - landed, 4)):
            if not run_and_kill(
                config, killed.parent, stage, rng.uniform(0, 0.7 * duration), number
            ):
                early += 1  # it had finished: another copy is needed to go on killing
                break
            landed += 1
        assert finish(config, killed.parent, stage) == 0, f"{stage} did not resume"
        differences += compare(reference / stage, killed / stage)
    seconds = time.monotonic() - begun
    sys.stdout.write(f"{stage}: {landed} kills, {early} came after the end, {seconds:.0f} s\n")
    return differences


def trial_seconds(config: RunConfig, directory: Path, stage: str) -> float:
    """How long the stage takes when it is left alone."""
    prepare(directory / "reference" / config.name, directory / "killed" / config.name, stage)
    begun = time.monotonic()
    assert finish(config, directory / "killed", stage) == 0
    return time.monotonic() - begun


def prepare(reference: Path, killed: Path, stage: str) -> None:
    """A copy of the reference run as it was before the stage."""
    order = ("tokenizer", "shards", "pretrain", "midtrain", "sft", "dpo", "rl")
    shutil.rmtree(killed, ignore_errors=True)
    killed.mkdir(parents=True)
    shutil.copy(reference / "machine.json", killed)
    for earlier in order[: order.index(stage)]:
        shutil.copytree(reference / earlier, killed / earlier)


def child(config: RunConfig, runs: Path, stage: str) -> int:
    """Forks a process that does the stage; returns its id."""
    identity = os.fork()
    if identity:
        return identity
    code = 1
    try:
        train(config, SMALL.parent, runs, only=stage, redo=None, extend=False, show=lambda _: None)
        code = 0
    except StoppedEarly as stop:
        code = stop.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def finish(config: RunConfig, runs: Path, stage: str) -> int:
    """Does the stage to its end; returns the exit code."""
    _, status = os.waitpid(child(config, runs, stage), 0)
    return os.waitstatus_to_exitcode(status)


def run_and_kill(
    config: RunConfig, runs: Path, stage: str, after_seconds: float, number: signal.Signals
) -> bool:
    """Begins or resumes the stage and kills or stops it; True if it was still running then."""
    identity = child(config, runs, stage)
    time.sleep(after_seconds)
    begun = time.monotonic()
    os.kill(identity, number)
    _, status = os.waitpid(identity, 0)
    assert time.monotonic() - begun < 10
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 75, -number), f"{stage} ended with {code}"
    return code != 0


def compare(wanted: Path, found: Path) -> int:
    """The number of logs and final weight files that are not the same bytes."""
    names = [name for name in COMPARED if (wanted / name).exists()]
    last = max(path.name for path in wanted.glob("step-*"))
    names += [f"{last}/model.safetensors", f"{last}/optimizer.safetensors", f"{last}/state.json"]
    different = [n for n in names if (wanted / n).read_bytes() != (found / n).read_bytes()]
    for name in different:
        sys.stdout.write(f"{found / name} differs from {wanted / name}\n")
    return len(different)


if __name__ == "__main__":
    sys.exit(main())
