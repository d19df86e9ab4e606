from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from penjing.data.shards import Shard, ShardKind, ShardWriter, open_shard

Documents = Sequence[Sequence[int]]
MakeShard = Callable[..., Shard]


@pytest.fixture
def make_shard(tmp_path: Path) -> MakeShard:
    """A shard of these documents; with `trained`, of conversations whose ids >= 100 are trained."""

    def make(
        documents: Documents, name: str = "s.train", *, trained: bool = False, vocab_size: int = 500
    ) -> Shard:
        directory = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        directory.mkdir()
        kind: ShardKind = "conversations" if trained else "documents"
        with ShardWriter(
            directory, name, kind=kind, tokenizer_digest="digest", vocab_size=vocab_size
        ) as writer:
            for ids in documents:
                writer.add(ids, [i >= 100 for i in ids] if trained else None, 3 * len(ids))
            writer.close()
        return open_shard(directory, name, "digest")

    return make
