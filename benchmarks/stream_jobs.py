"""One peer's loader, measured in a process of its own; `benchmarks.stream_peers` starts it.

    python stream_jobs.py litdata|streaming|nanochat FOLDER CONTEXT ROWS SECONDS [NANOCHAT]

Imports nothing of Penjing. Prints one JSON object: positions a CPU second, and for nanochat the
share of the tokens it took from documents that reached a batch.
"""

import base64
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def measured(batches: Iterator[Any], positions: int, seconds: float) -> float:
    """Positions a CPU second of all threads of the process, after one batch to warm up."""
    next(batches)
    made, begun = 0, time.process_time()
    while time.process_time() - begun < seconds:
        next(batches)
        made += positions
    return made / (time.process_time() - begun)


def forever(loader: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from loader


def documents_of(folder: str) -> Iterator[Any]:
    """The documents as tensors of ids; a process of litdata's own runs it."""
    import numpy as np
    import torch

    ids, ends = np.load(Path(folder) / "ids.npy"), np.load(Path(folder) / "ends.npy")
    for one in np.split(ids, ends[:-1]):
        yield torch.from_numpy(one.astype(np.int32))


def litdata(folder: Path, context: int, rows: int, seconds: float) -> dict[str, Any]:
    """litdata: TokensLoader over optimized chunks, its StreamingDataLoader without workers."""
    import litdata
    from litdata.streaming import TokensLoader

    made = folder / f"litdata-{context}"
    if not made.exists():
        litdata.optimize(
            fn=documents_of,
            inputs=[str(folder)],
            output_dir=str(made),
            chunk_bytes="64MB",
            item_loader=TokensLoader(block_size=context + 1),
            num_workers=1,
        )
    data = litdata.StreamingDataset(
        str(made), item_loader=TokensLoader(block_size=context + 1), shuffle=True
    )
    loader = litdata.StreamingDataLoader(data, batch_size=rows, num_workers=0)
    return {"rate": measured(forever(loader), rows * context, seconds)}


def streaming(folder: Path, context: int, rows: int, seconds: float) -> dict[str, Any]:
    """mosaicml-streaming: rows of ids in MDS shards, its StreamingDataLoader without workers."""
    import numpy as np
    from streaming import MDSWriter, StreamingDataLoader, StreamingDataset

    made = folder / f"streaming-{context}"
    if not made.exists():
        ids = np.load(folder / "ids.npy")
        width = context + 1
        with MDSWriter(out=str(made), columns={"tokens": f"ndarray:uint16:{width}"}) as writer:
            for start in range(0, len(ids) - width, width):
                writer.write({"tokens": ids[start : start + width]})
    data = StreamingDataset(local=str(made), shuffle=True, batch_size=rows)
    loader = StreamingDataLoader(data, batch_size=rows, num_workers=0)
    return {"rate": measured(forever(loader), rows * context, seconds)}


class _Encoding:
    """What nanochat's loader asks of a tokenizer; `taken` counts the ids that it was given."""

    def __init__(self, folder: Path, *, ready: bool) -> None:
        import tiktoken

        lines = (folder / "tokenizer.tiktoken").read_text().splitlines()
        ranks = {base64.b64decode(a): int(b) for a, b in map(str.split, lines)}
        pattern = json.loads((folder / "pattern.json").read_text())
        self._encoding = tiktoken.Encoding(
            "ours", pat_str=pattern, mergeable_ranks=ranks, special_tokens={}
        )
        self._known: dict[str, list[int]] | None = {} if ready else None
        self.taken = 0

    def get_bos_token_id(self) -> int:
        """An id that no text has."""
        return 0

    def encode(self, texts: list[str], prepend: int, num_threads: int) -> list[list[int]]:
        """As nanochat's tokenizer does it; `ready`: a text's ids are looked up the second time."""
        if self._known is not None and all(text in self._known for text in texts):
            found = [self._known[text] for text in texts]
        else:
            found = self._encoding.encode_ordinary_batch(texts, num_threads=num_threads)
            found = [[prepend, *ids] for ids in found]
            if self._known is not None:
                self._known |= dict(zip(texts, found, strict=True))
        self.taken += sum(map(len, found))
        return found


def nanochat(folder: Path, context: int, rows: int, seconds: float) -> dict[str, Any]:
    """Nanochat's loader at its commit, reading parquet of the same texts."""
    sys.path.insert(0, os.environ["NANOCHAT"])
    from nanochat import dataloader

    paths = [str(path) for path in sorted(folder.glob("*.parquet"))]
    dataloader.list_parquet_files = lambda **_: [*paths, paths[-1]]
    found: dict[str, Any] = {}
    for name, ready in (("rate", False), ("rate_of_ids", True)):
        encoding = _Encoding(folder, ready=ready)
        if ready:  # what comes is encoded beforehand, so that the loader alone is measured
            import pyarrow.parquet as pq

            for path in paths:
                texts = pq.read_table(path).column("text").to_pylist()
                for start in range(0, len(texts), 1000):
                    encoding.encode(texts[start : start + 1000], 0, num_threads=1)
            encoding.taken = 0
        batches = dataloader.tokenizing_distributed_data_loader_bos_bestfit(
            encoding, rows, context, "train", tokenizer_threads=1, device="cpu"
        )
        found[name] = measured(batches, rows * context, seconds)
    made, taken = 0, 0
    for _ in range(400):
        before = encoding.taken
        next(batches)
        made, taken = made + rows * (context + 1), taken + encoding.taken - before
    return found | {"kept": made / taken}


def main() -> int:
    """Measures one peer."""
    import torch

    torch.set_num_threads(1)
    name, folder, *numbers = sys.argv[1:]
    context, rows, seconds = int(numbers[0]), int(numbers[1]), float(numbers[2])
    job = {"litdata": litdata, "streaming": streaming, "nanochat": nanochat}[name]
    found = job(Path(folder), context, rows, seconds)
    package = {"litdata": "litdata", "streaming": "mosaicml-streaming"}.get(name)
    found["version"] = importlib.metadata.version(package) if package else "given path"
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
