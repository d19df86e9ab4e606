"""One measured job of `benchmarks/tokenizer.py`, in a process of its own: `… JOB ARGUMENTS`.

Arguments and answer are JSON. Peers' jobs import nothing of Penjing and run in the interpreter of
their own environment. Seconds are CPU seconds of this process after its imports.
"""

import gzip
import hashlib
import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

PARTITIONS = 64
CHUNK_BYTES = 8_000_000
COUNTER_BYTES = 100_000_000
Answer = dict[str, Any]


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _chunks(path: Path) -> Iterator[bytes]:
    """Whole lines, about 8 MB at a time."""
    rest = b""
    with _open(path) as file:
        while data := file.read(CHUNK_BYTES):
            end = data.rfind(b"\n") + 1
            yield rest + data[:end]
            rest = data[end:]
    if rest:
        yield rest


def _texts(path: Path) -> Iterator[str]:
    with _open(path) as file:
        for line in file:
            yield json.loads(line)["text"]


def _tokens(pairs: Any) -> list[bytes]:
    tokens = [bytes([byte]) for byte in range(256)]
    for left, right in pairs:
        tokens.append(tokens[left] + tokens[right])
    return tokens


def _digest(tokens: list[bytes]) -> str:
    return hashlib.sha256(b"".join(len(t).to_bytes(4, "little") + t for t in tokens)).hexdigest()


class _Words:
    """Counts files into words blobs, one a partition, in runs of bounded memory on disk."""

    def __init__(self, pattern: str, cap: int, scratch: Path) -> None:
        from penjing.text import native

        self._native, self._pattern, self._cap = native, pattern, cap
        self._scratch, self._runs = scratch, 0
        self.seconds: dict[str, float] = {"read": 0.0, "json": 0.0, "count": 0.0, "reduce": 0.0}
        self.text_bytes = self.pieces = 0
        self._counter = native.WordCounter(pattern, cap)

    def _spent(self, what: str, since: float) -> float:
        now = time.process_time()
        self.seconds[what] += now - since
        return now

    def add(self, path: Path) -> None:
        now = time.process_time()
        for chunk in _chunks(path):
            now = self._spent("read", now)
            data, ends, _, bad = self._native.json_lines(chunk, "text")
            assert not bad, bad[:1]
            now = self._spent("json", now)
            self._counter.add(data, ends)
            self.text_bytes += data.nbytes
            if self._counter.memory_bytes > COUNTER_BYTES:
                self.flush()
            now = self._spent("count", now)

    def flush(self) -> None:
        self.pieces += self._counter.pieces
        for number, blob in enumerate(self._counter.take(PARTITIONS)):
            (self._scratch / f"{number:02d}.{self._runs:03d}").write_bytes(blob)
        self._runs += 1
        self._counter = self._native.WordCounter(self._pattern, self._cap)

    def reduce(self, merged: Callable[[bytes], bytes] = bytes) -> Iterator[bytes]:
        for number in range(PARTITIONS):
            now = time.process_time()
            runs = [path.read_bytes() for path in sorted(self._scratch.glob(f"{number:02d}.*"))]
            blob = merged(self._native.merge_words(runs))
            self._spent("reduce", now)
            yield blob


def train_penjing(
    files: list[str],
    num_merges: int,
    pattern: str,
    cap: int,
    memory_bytes: int,
    scratch: str,
    vocabulary: str,
    prune: int = 0,
) -> Answer:
    """Counting and training; memory_bytes 0 is exact, prune keeps each file's commonest words."""
    import numpy as np

    from penjing.text import native
    from penjing.text.sampling import choose_threshold

    _clear(Path(scratch))
    words = _Words(pattern, cap, Path(scratch))
    for file in files:
        words.add(Path(file))
        if prune:
            words.flush()
            _prune(Path(scratch), prune, words._runs - 1)
    words.flush()
    threshold, kept = 1, 1.0
    if memory_bytes:
        bins: dict[int, list[int]] = {}
        for blob in words.reduce():
            for count, number, size in zip(*native.count_histogram(blob), strict=True):
                total = bins.setdefault(int(count), [0, 0])
                total[0], total[1] = total[0] + int(number), total[1] + int(size)
        counts = sorted(bins)
        columns = [counts, [bins[c][0] for c in counts], [bins[c][1] for c in counts]]
        found, number, size = (np.array(column, np.int64) for column in columns)
        chosen = choose_threshold(found, number, size, memory_bytes)
        threshold, kept = chosen.threshold, chosen.kept_occurrences
    before = _peak()
    blobs = list(words.reduce(lambda blob: native.sample_words(blob, threshold)))
    symbols = sum(int(native.count_histogram(blob)[2].sum()) for blob in blobs)
    start = time.process_time()
    pairs, _ = native.train_merges(blobs, num_merges, None)
    words.seconds["train"] = time.process_time() - start
    tokens = _tokens(pairs.tolist())
    content = {"pattern": pattern, "pairs": pairs.tolist()}
    Path(vocabulary).write_text(json.dumps(content))
    return {
        "digest": _digest(tokens),
        "tokens": len(tokens),
        "phases": words.seconds,
        "text_bytes": words.text_bytes,
        "pieces": words.pieces,
        "symbol_bytes": symbols,
        "threshold": threshold,
        "kept_occurrences": kept,
        "peak_before_training": before,
    }


def _clear(scratch: Path) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    for path in scratch.iterdir():
        path.unlink()


def _prune(scratch: Path, keep: int, run: int) -> None:
    """What some trainers do to save memory: a file's `keep` commonest words that it repeats."""
    words = []
    for path in sorted(scratch.glob(f"*.{run:03d}")):
        words += [(count, word, path) for word, count in _unpacked(path.read_bytes())]
        path.write_bytes(b"")
    chosen = sorted((w for w in words if w[0] >= 2), key=lambda w: (-w[0], w[1]))[:keep]
    for path in {path for _, _, path in chosen}:
        mine = sorted((word, count) for count, word, home in chosen if home == path)
        path.write_bytes(b"".join(_varint(len(w)) + _varint(n) + w for w, n in mine))


def _unpacked(blob: bytes) -> Iterator[tuple[bytes, int]]:
    place = 0
    while place < len(blob):
        numbers = []
        for _ in range(2):
            value = shift = 0
            while blob[place] >= 128:
                value |= (blob[place] & 127) << shift
                place, shift = place + 1, shift + 7
            numbers.append(value | blob[place] << shift)
            place += 1
        yield blob[place : place + numbers[0]], numbers[1]
        place += numbers[0]


def _varint(value: int) -> bytes:
    low = bytearray()
    while value >= 128:
        low.append(value & 127 | 128)
        value >>= 7
    return bytes([*low, value])


def train_rustbpe(files: list[str], num_merges: int, expression: str) -> Answer:
    import rustbpe

    tokenizer = rustbpe.Tokenizer()
    texts = (text for file in files for text in _texts(Path(file)))
    tokenizer.train_from_iterator(texts, 256 + num_merges, pattern=expression)
    ranks = sorted(tokenizer.get_mergeable_ranks(), key=lambda item: item[1])
    return {"digest": _digest([bytes(token) for token, _ in ranks]), "tokens": len(ranks)}


def train_hf(files: list[str], num_merges: int, expression: str) -> Answer:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(expression), behavior="isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    trainer = trainers.BpeTrainer(
        vocab_size=256 + num_merges,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator((t for file in files for t in _texts(Path(file))), trainer)
    return {"tokens": tokenizer.get_vocab_size()}


def count_penjing(file: str, pattern: str, cap: int, threads: int) -> Answer:
    """Scanning and counting alone, from bytes in memory; wall and CPU seconds."""
    from penjing.text import native

    parts = [native.json_lines(chunk, "text")[:2] for chunk in _chunks(Path(file))]
    counters = [native.WordCounter(pattern, cap) for _ in range(threads)]

    def count(number: int) -> None:
        for data, ends in parts[number::threads]:
            counters[number].add(data, ends)

    wall, cpu = time.perf_counter(), time.process_time()
    workers = [threading.Thread(target=count, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {
        "count_wall": time.perf_counter() - wall,
        "count_cpu": time.process_time() - cpu,
        "text_bytes": sum(data.nbytes for data, _ in parts),
        "pieces": sum(counter.pieces for counter in counters),
    }


def _vocabulary(path: str) -> tuple[list[bytes], list[tuple[int, int]], str]:
    content = json.loads(Path(path).read_text())
    return _tokens(content["pairs"]), content["pairs"], content["pattern"]


def write_tokenizer_json(vocabulary: str, expression: str, out: str) -> Answer:
    """The vocabulary in Hugging Face's form, which gigatoken and fastokens read."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    visible = [
        byte for byte in range(256) if chr(byte).isprintable() and byte not in (32, 160, 173)
    ]
    spelling = {byte: chr(byte) for byte in visible}
    hidden = [byte for byte in range(256) if byte not in spelling]
    spelling |= {byte: chr(256 + number) for number, byte in enumerate(hidden)}
    tokens, pairs, _ = _vocabulary(vocabulary)
    names = ["".join(spelling[byte] for byte in token) for token in tokens]
    vocab = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab, [(names[a], names[b]) for a, b in pairs]))
    split = pre_tokenizers.Split(Regex(expression), behavior="isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(out)
    return {}


def encode_penjing(texts: str, limit: int, vocabulary: str) -> Answer:
    import numpy as np

    from penjing.text import native

    tokens, pairs, pattern = _vocabulary(vocabulary)
    merges = np.array(
        [(left, right, 256 + rank) for rank, (left, right) in enumerate(pairs)], np.uint32
    ).reshape(-1, 3)
    encoder = native.Encoder(tokens, merges, pattern, False)
    documents = _limited(texts, limit)
    raw = [text.encode() for text in documents]
    data = np.frombuffer(b"".join(raw), np.uint8)
    ends = np.cumsum([len(text) for text in raw], dtype=np.int64)
    answer = _timed(lambda: [encoder.encode_batch(data, ends, 1)[0]], len(data))
    start = time.process_time()
    encoder.encode_batch(data, ends, 1)
    return {**answer, "warm": time.process_time() - start}


def encode_tiktoken(texts: str, limit: int, vocabulary: str, expression: str) -> Answer:
    import tiktoken

    ranks = {token: rank for rank, token in enumerate(_vocabulary(vocabulary)[0])}
    encoding = tiktoken.Encoding(
        "own", pat_str=expression, mergeable_ranks=ranks, special_tokens={}
    )
    documents = _limited(texts, limit)
    size = sum(len(text.encode()) for text in documents)
    return _timed(lambda: [encoding.encode_ordinary(text) for text in documents], size)


def encode_gigatoken(texts: str, limit: int, tokenizer_json: str) -> Answer:
    import gigatoken

    tokenizer = gigatoken.Tokenizer(tokenizer_json)
    documents = _limited(texts, limit)
    size = sum(len(text.encode()) for text in documents)

    def encode() -> list[Any]:
        import numpy as np

        found = tokenizer.encode_batch(documents, parallel=False)
        return [np.asarray(found.layout.content.data)]

    return _timed(encode, size)


def encode_fastokens(texts: str, limit: int, tokenizer_json: str) -> Answer:
    import fastokens

    tokenizer = fastokens.Tokenizer.from_file(tokenizer_json)
    documents = _limited(texts, limit)
    size = sum(len(text.encode()) for text in documents)
    return _timed(lambda: [tokenizer.encode(text).ids for text in documents], size)


def _limited(path: str, limit: int) -> list[str]:
    documents: list[str] = []
    total = 0
    for text in _texts(Path(path)):
        total += len(text.encode())
        if documents and total > limit:
            break
        documents.append(text)
    return documents


def _timed(encode: Callable[[], list[Any]], size: int) -> Answer:
    import numpy as np

    start = time.process_time()
    ids = encode()
    seconds = time.process_time() - start
    flat = np.concatenate([np.asarray(part, np.uint32) for part in ids])
    digest = hashlib.sha256(flat.tobytes()).hexdigest()
    return {"cold": seconds, "text_bytes": size, "tokens": len(flat), "digest": digest}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


JOBS: tuple[Callable[..., Answer], ...] = (
    *(train_penjing, train_rustbpe, train_hf, count_penjing, write_tokenizer_json),
    *(encode_penjing, encode_tiktoken, encode_gigatoken, encode_fastokens),
)


def main() -> None:
    chosen = {job.__name__: job for job in JOBS}[sys.argv[1]]
    start = time.process_time()
    answer = chosen(**json.loads(sys.argv[2]))
    answer |= {"cpu": time.process_time() - start, "peak": _peak()}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
