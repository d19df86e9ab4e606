"""Kills the work over a corpus at random moments, lets it resume, and compares the final files.

A process of its own that imports what it needs once and forks, so that a kill costs milliseconds.
Usage: python corpus_campaign.py DIRECTORY --kills N --seed S [--corruptions N] [--workers N]
Prints one line a phase and `differences: N`; the exit code is 0 when there are none.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from penjing.artifacts.directories import verified
from penjing.config.loading import parse_run
from penjing.config.schema import RunConfig
from penjing.data import corpus
from penjing.data.corpus import Conduct
from penjing.data.shards import open_shard
from penjing.errors import ArtifactError
from penjing.stages import counting
from penjing.stages.corpus import do_part, do_stage
from penjing.text.tokenizer import load_tokenizer

RUN = """
[sources.texts]
paths = ["*.jsonl"]

[tokenizer]
vocab_size = 600
chunk_files = 1
memory_bytes = 1_048_576

[shards]
chunk_files = 1

[pretrain]
steps = 9
mixture = { texts = 1.0 }
"""
PHASES = ("count", "reduce", "encode")
COMPARED = ("tokenizer/tokenizer.json", "shards/texts.train", "shards/texts.validation")


@dataclass(frozen=True)
class Campaign:
    """A corpus, the folder of runs beside it, and how its stages are run."""

    base: Path
    config: RunConfig
    conduct: Conduct

    def run_dir(self, name: str) -> Path:
        return self.base / name / self.config.name

    def phase(self, name: str, phase: str) -> None:
        """Does one phase, and what comes before it, as far as it is not done."""
        runs, conduct = self.base / name, self.conduct
        if phase == "encode":
            do_stage(
                self.config, self.base, runs, "shards", None, conduct, lambda _: None, redo=False
            )
        else:
            do_part(self.config, self.base, runs, "tokenizer", phase, conduct, lambda _: None)

    def finish_tokenizer(self, name: str) -> None:
        runs, conduct = self.base / name, self.conduct
        do_stage(
            self.config, self.base, runs, "tokenizer", None, conduct, lambda _: None, redo=False
        )


def main() -> int:
    """Runs the campaign."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--corruptions", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    counting.MERGED_BYTES = 4096  # a reduce of several chunks
    if arguments.workers > 1:
        corpus.SMALL_BYTES = 0
    settings = [f"{table}.workers={arguments.workers}" for table in ("tokenizer", "shards")]
    config = parse_run(RUN, "kills.toml", settings)
    campaign = Campaign(arguments.directory, config, Conduct())
    if not (arguments.directory / "0.jsonl").exists():
        write_texts(arguments.directory)
    rng = random.Random(arguments.seed)
    differences = kills(campaign, arguments.kills, rng)
    differences += corruptions(campaign, arguments.corruptions, rng)
    sys.stdout.write(f"differences: {differences}\n")
    return int(differences > 0)


def write_texts(folder: Path) -> None:
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefgh", k=rng.randrange(2, 8))) for _ in range(2000)]
    for number in range(8):
        texts = (" ".join(rng.choices(words, k=100)) for _ in range(30))
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{number}.jsonl").write_text(lines)


def kills(campaign: Campaign, number: int, rng: random.Random) -> int:
    """Kills each phase its share of `number`; returns how many final files differ."""
    seconds = {}
    for phase in PHASES:
        if phase == "encode":
            forked(partial(campaign.finish_tokenizer, "reference"))
        begun = time.monotonic()
        forked(partial(campaign.phase, "reference", phase))
        seconds[phase] = time.monotonic() - begun
    differences = 0
    shutil.rmtree(campaign.base / "killed", ignore_errors=True)
    for place, phase in enumerate(PHASES):
        share = number // len(PHASES) + (place < number % len(PHASES))
        landed = late = 0
        while landed < share:
            after = rng.uniform(0, 0.9 * seconds[phase])
            if run_and_kill(partial(campaign.phase, "killed", phase), after):
                landed += 1
            else:  # it had finished: its work is thrown away, to go on killing
                late += 1
                stage = "shards" if phase == "encode" else f"tokenizer.work/{phase}"
                shutil.rmtree(campaign.run_dir("killed") / stage)
        forked(partial(campaign.phase, "killed", phase))
        if phase == "reduce":
            forked(partial(campaign.finish_tokenizer, "killed"))
        sys.stdout.write(f"{phase}: {landed} kills, {late} came after the end\n")
    differences += compare(campaign.run_dir("reference"), campaign.run_dir("killed"))
    return differences


def corruptions(campaign: Campaign, number: int, rng: random.Random) -> int:
    """Damages one byte of a finished chunk or shard each time; returns how many went unseen, or
    made more than their own chunk again.
    """
    if not number:
        return 0
    run_dir, missed = campaign.run_dir("reference"), 0
    tokenizer = load_tokenizer(run_dir / "tokenizer").digest
    count = run_dir / "tokenizer.work" / "count"
    for _ in range(number):
        inside = rng.random() < 0.5
        folder = rng.choice(sorted(count.glob("chunk-*"))) if inside else run_dir / "shards"
        path = rng.choice([p for p in sorted(folder.iterdir()) if p.name != "stage.json"])
        if not path.stat().st_size:
            continue
        whole, data = path.read_bytes(), bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        if inside:
            before = times(count)
            campaign.phase("reference", "count")
            changed = {name for name, time in times(count).items() if before[name] != time}
            missed += changed != {folder.name} or path.read_bytes() != whole
        else:
            missed += not seen(run_dir / "shards", path, tokenizer)
            path.write_bytes(whole)
    sys.stdout.write(f"corruptions: {number}, {missed} not found or healed\n")
    return missed


def times(count: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in count.glob("chunk-*")}


def seen(shards: Path, path: Path, tokenizer: str) -> bool:
    """Whether reading the damaged shard, or verifying its directory, is refused."""
    try:
        for split in ("texts.train", "texts.validation"):
            if path.name.startswith(split):
                shard = open_shard(shards, split, tokenizer)
                shard.lengths()
                shard.span(0, shard.tokens)
        if path.name == "files.json":
            verified(shards)
    except ArtifactError:
        return True
    return False


def forked(work: Callable[[], None]) -> None:
    """Does the work in a child, to its end."""
    _, status = os.waitpid(child(work), 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the work failed when it was left alone"


def child(work: Callable[[], None]) -> int:
    identity = os.fork()
    if identity:
        return identity
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def run_and_kill(work: Callable[[], None], after_seconds: float) -> bool:
    """Begins or resumes the work and kills it; True if it was still running then."""
    identity = child(work)
    time.sleep(after_seconds)
    os.kill(identity, signal.SIGKILL)
    _, status = os.waitpid(identity, 0)
    return os.WIFSIGNALED(status)


def compare(wanted: Path, found: Path) -> int:
    """The number of final files that are not the same bytes."""
    names = [
        path.relative_to(wanted).as_posix()
        for stage in ("tokenizer", "shards")
        for path in (wanted / stage).iterdir()
        if path.name != "stage.json"
    ]
    assert all(any(name.startswith(start) for name in names) for start in COMPARED)
    different = [n for n in names if (wanted / n).read_bytes() != (found / n).read_bytes()]
    for name in different:
        sys.stdout.write(f"{found / name} differs from {wanted / name}\n")
    return len(different)


if __name__ == "__main__":
    sys.exit(main())
