"""The full counts that `make test` only samples.

`make nightly PART=demo|kills|stops|corpus|corruptions|fuzz|stream|downloads|all`.

Each part takes at most half an hour on two cores, writes below `nightly/` and, stopped, goes on
where it was. Results are for docs/notebook.md, with the commit and the date printed here.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.bars import bars_of
from penjing.artifacts.directories import verified
from penjing.errors import ArtifactError
from penjing.text.patterns import PATTERNS

ROOT = Path(__file__).resolve().parents[1]
NIGHTLY = ROOT / "nightly"
SEEDS = (1, 2, 3)
KILLS = 200
KILLS_A_BATCH = 20
CORRUPTIONS = 1000
RESUMES = 1000
SOAK_BATCHES = 20_000
DOWNLOADS = 500
FUZZ_STRINGS = 100_000
FUZZ_STRINGS_A_BATCH = 10_000


def main() -> int:
    """Runs the parts asked for; the exit code is 1 when a bar is missed."""
    parts = {
        "demo": demo,
        "kills": kills,
        "stops": stops,
        "corpus": corpus,
        "corruptions": corruptions,
        "fuzz": fuzz,
        "stream": stream,
        "downloads": downloads,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=(*parts, "all"))
    wanted = parser.parse_args().part
    NIGHTLY.mkdir(exist_ok=True)
    say(f"commit {commit()}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    chosen = list(parts.values()) if wanted == "all" else [parts[wanted]]
    results = [part() for part in chosen]  # a missed bar does not stop the next part
    return int(not all(results))


def say(text: str) -> None:
    """A line on the screen, at once: a part may be watched through a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def commit() -> str:
    """The checkout's commit, or a word for its absence."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() or "unknown"


def demo() -> bool:
    """The demo with three seeds, each held against every bar."""
    good = True
    for seed in SEEDS:
        name = f"tiny-seed{seed}"
        words = ["-m", "penjing.cli.main", "demo", "--set", f"seed={seed}", "--set", f"name={name}"]
        command = [sys.executable, *words, "--runs", str(NIGHTLY)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)  # noqa: S603
        if done.returncode:
            return False
        bars = bars_of(NIGHTLY / name, "nightly")
        say(f"seed {seed}\n" + "\n".join(str(bar) for bar in bars))
        good = good and all(bar.met for bar in bars)
    return good


def kills() -> bool:
    """200 SIGKILLs in pretrain, sft and rl; batches already done are not repeated."""
    return _campaign("kills", [])


def stops() -> bool:
    """200 SIGTERMs in the same: exit 75 within 10 s, and the same bytes."""
    return _campaign("stops", ["--stop"])


def _campaign(name: str, words: list[str]) -> bool:
    directory = NIGHTLY / name
    directory.mkdir(exist_ok=True)
    for batch in range(KILLS // KILLS_A_BATCH):
        mark = directory / f"batch-{batch}.done"
        if not mark.exists():
            script = ROOT / "tests" / "faults" / "kill_campaign.py"
            options = ["--kills", str(KILLS_A_BATCH), "--seed", str(batch), *words]
            command = [sys.executable, str(script), str(directory), *options]
            done = subprocess.run(command, check=False)  # noqa: S603
            if done.returncode:
                return False
            mark.touch()
        say(f"{name}: {(batch + 1) * KILLS_A_BATCH} of {KILLS}, 0 differences")
    return True


def corpus() -> bool:
    """100 SIGKILLs in count, reduce and encode, some of workers' parents; 1,000 damaged bytes."""
    script = ROOT / "tests" / "faults" / "corpus_campaign.py"
    for workers, counts in ((1, (70, CORRUPTIONS)), (2, (30, 0))):
        directory = NIGHTLY / f"corpus-{workers}"
        directory.mkdir(exist_ok=True)
        options = ["--kills", str(counts[0]), "--corruptions", str(counts[1])]
        command = [sys.executable, str(script), str(directory), *options]
        done = subprocess.run([*command, "--workers", str(workers)], check=False)  # noqa: S603
        if done.returncode:
            return False
    return True


def corruptions() -> bool:
    """1,000 damaged copies of a real checkpoint: flipped bits, zeroed pages, cut and lost files."""
    source = next(iter(sorted(NIGHTLY.glob("*/*/step-*")) + sorted(ROOT.glob("runs/*/*/step-*"))))
    copy = NIGHTLY / "corrupted"
    found = 0
    for number in range(CORRUPTIONS):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy, copy_function=os.link)
        damage(copy, random.Random(number))
        try:
            verified(copy)
        except ArtifactError:
            found += 1
    shutil.rmtree(copy)
    say(f"corruptions: {found} of {CORRUPTIONS} found in copies of {source}")
    return found == CORRUPTIONS


def fuzz() -> bool:
    """100,000 strings cut by the compiled core, by every pattern, beside `regex`."""
    from tests.text.test_splitting import differences  # which is skipped where nothing compiles

    directory = NIGHTLY / "fuzz"
    directory.mkdir(exist_ok=True)
    for name in PATTERNS:
        for batch in range(FUZZ_STRINGS // FUZZ_STRINGS_A_BATCH):
            mark = directory / f"{name}-{batch}.done"
            if mark.exists():
                continue
            seed = 1_000 + batch
            if bad := differences(FUZZ_STRINGS_A_BATCH, seed, name):
                say(f"fuzz: {name} cuts {len(bad)} strings otherwise, the first is {bad[0]!r}")
                return False
            mark.touch()
        say(f"fuzz: {name}, {FUZZ_STRINGS} strings, 0 differences")
    return True


def stream() -> bool:
    """1,000 resumes, 1,000 flipped bits, 20,000 batches of two workers; what is done stays done."""
    from tests.faults.stream_campaign import flips, resumes, soak

    directory = NIGHTLY / "stream"
    directory.mkdir(exist_ok=True)
    for batch in range(RESUMES // 100):
        mark = directory / f"resumes-{batch}.done"
        if not mark.exists():
            with TemporaryDirectory() as folder:
                differing = resumes(Path(folder), 100, seed=batch)
            say(f"stream: resumes {100 * batch} to {100 * batch + 99}: {differing} differ")
            if differing:
                return False
            mark.touch()
    with TemporaryDirectory() as folder:
        found = flips(Path(folder), CORRUPTIONS, seed=1)
    say(f"stream: {found} of {CORRUPTIONS} flipped bits seen")
    with TemporaryDirectory() as folder:
        slope, opened = soak(Path(folder), SOAK_BATCHES, 100)
    say(f"stream: {SOAK_BATCHES} batches: {slope:.3f} MB a thousand, {opened} descriptors more")
    return found == CORRUPTIONS and slope < 1 and opened == 0


def downloads() -> bool:
    """500 faulty downloads from a server in this process; none is taken for the file."""
    from tests.faults.download_campaign import faulty_downloads

    ends, wrong = Counter[str](), 0
    for batch in range(DOWNLOADS // 100):
        with TemporaryDirectory() as folder:
            more, told = faulty_downloads(Path(folder), 100, seed=batch)
        wrong, ends = wrong + more, ends + told
        say(f"downloads: {100 * batch + 100} of {DOWNLOADS}, {wrong} wrong ones accepted")
    for end, count in sorted(ends.items()):
        say(f"downloads: {end}: {count}")
    return wrong == 0


def damage(directory: Path, rng: random.Random) -> None:
    """Changes one file of the directory in one of four ways."""
    path = rng.choice(sorted(path for path in directory.iterdir() if path.stat().st_size))
    data = bytearray(path.read_bytes())
    path.unlink()  # it is a hard link: the original stays
    place, kind = rng.randrange(len(data)), rng.choice(("flip", "zero", "cut", "lost"))
    if kind == "lost":
        return
    if kind == "flip":
        data[place] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[place:]
    else:
        page = bytes(data[place : place + 4096])
        data[place : place + 4096] = bytes(255 - byte for byte in page[:1]) + bytes(len(page) - 1)
    path.write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())
