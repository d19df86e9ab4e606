"""What the data stream promises, counted: resumes, flipped bytes, and hours of batches.

`make test` samples these (tests/data/test_feeding.py), `make nightly PART=stream` runs all.
"""

import gc
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

from penjing.config.training import MixtureShare
from penjing.data.batches import RowStream
from penjing.data.feeding import Feeding, feed
from penjing.data.mixture import Segment
from penjing.data.shards import Shard, ShardWriter, open_shard
from penjing.errors import ArtifactError

WORLD_SIZES = (1, 2, 3, 4, 6, 8)
WORKERS = (0, 1, 2, 4)
ROWS = 24
DIGEST = "of no tokenizer"


def write_shard(directory: Path, name: str, lengths: list[int], seed: int, *, chats: bool) -> Shard:
    """Documents of random ids; of conversations every second id is trained."""
    draws = Random(seed)
    with ShardWriter(
        directory,
        name,
        kind="conversations" if chats else "documents",
        tokenizer_digest=DIGEST,
        vocab_size=50_000,
    ) as writer:
        for length in lengths:
            ids = [draws.randrange(1, 50_000) for _ in range(length)]
            writer.add(ids, [n % 2 == 1 for n in range(length)] if chats else None, 4 * length)
        writer.close()
    return open_shard(directory, name, DIGEST)


def make_stream(directory: Path, documents: int = 400) -> RowStream:
    """Two sources of documents and one of conversations, blended, capped and edited once."""
    draws = Random(4)
    shards = [
        write_shard(
            directory, "tales", [draws.randrange(2, 90) for _ in range(documents)], 1, chats=False
        ),
        write_shard(
            directory, "notes", [draws.randrange(2, 9) for _ in range(documents)], 2, chats=False
        ),
        write_shard(
            directory, "chats", [draws.randrange(9, 50) for _ in range(documents)], 3, chats=True
        ),
    ]
    first = (MixtureShare("tales", 3, 1), MixtureShare("notes", 1, 1, max_epochs=1))
    later = (*first, MixtureShare("chats", 0, 0, ((0, 1.0), (9000, 3.0)), "cosine"))
    return RowStream(
        shards=shards,
        segments=(Segment(0, first, 600), Segment(96, later, 600, 48)),
        rows_per_step=ROWS,
        row_tokens=32,
        end_of_text=0,
        seed=7,
    )


def sequence(
    stream: RowStream, world_size: int, workers: int, first_step: int, steps: int
) -> Iterator[str]:
    """A hash of each row in global order, as the ranks together have it."""
    how = Feeding(workers, prefetch_steps=3)
    ranks = [
        feed(replace(stream, rank=rank, world_size=world_size), first_step * ROWS, how)
        for rank in range(world_size)
    ]
    for _ in range(steps):
        parts = [next(rank) for rank in ranks]
        for row in range(ROWS):
            part = parts[row % world_size]
            values = [tensor[row // world_size].numpy().tobytes() for tensor in vars(part).values()]
            yield hashlib.sha256(b"".join(values)).hexdigest()


def resumes(directory: Path, count: int, seed: int, steps: int = 20) -> int:
    """How many of `count` random (step, world size, workers) differ from the one sequence."""
    stream = make_stream(directory)
    wanted = list(sequence(stream, 1, 0, 0, steps))
    draws, differing = Random(seed), 0
    for _ in range(count):
        first = draws.randrange(steps - 1)
        length = draws.randrange(1, min(4, steps - first))
        world_size, workers = draws.choice(WORLD_SIZES), draws.choice(WORKERS)
        found = list(sequence(stream, world_size, workers, first, length))
        differing += found != wanted[first * ROWS : (first + length) * ROWS]
    return differing


def flips(directory: Path, count: int, seed: int) -> int:
    """How many of `count` flipped bits in a shard's files are seen by one who reads all of it."""
    whole = directory / "whole"
    whole.mkdir()
    draws, found = Random(seed), 0
    write_shard(whole, "chats", [draws.randrange(50, 900) for _ in range(2000)], 3, chats=True)
    files = sorted(path for path in whole.iterdir() if path.stat().st_size)
    for number in range(count):
        copy = directory / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy, copy_function=os.link)
        path = copy / draws.choice(files).name
        data = bytearray(path.read_bytes())
        path.unlink()  # a hard link: the original stays
        data[draws.randrange(len(data))] ^= 1 << number % 8
        path.write_bytes(data)
        try:
            shard = open_shard(copy, "chats", DIGEST)
            shard.lengths()
            shard.span(0, shard.tokens)
        except ArtifactError:
            found += 1
    return found


def soak(directory: Path, batches: int, every: int) -> tuple[float, int]:
    """Resident MB that 1,000 more batches of two workers cost, by least squares over the second
    half, and how many descriptors more are open at the end.
    """
    stream = make_stream(directory, 20_000)
    points: list[tuple[float, float]] = []
    with closing(feed(stream, 0, Feeding(2))) as made:  # type: ignore[type-var]
        next(made)
        before = _descriptors()
        for number, _ in enumerate(islice(made, batches)):
            if number % every == 0:
                gc.collect()
                points.append((number / 1000, _resident_bytes() / 1e6))
        opened = _descriptors() - before
    late = points[len(points) // 2 :]
    x, y = (sum(column) / len(late) for column in zip(*late, strict=True))
    return sum((a - x) * (b - y) for a, b in late) / sum((a - x) ** 2 for a, _ in late), opened


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
