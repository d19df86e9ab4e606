"""The shards stage counts what training will cut."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

from penjing.config.loading import load_run
from penjing.config.schema import SourceConfig
from penjing.stages import shards
from penjing.stages.context import StageContext

SMALL = Path(__file__).parents[1] / "small.toml"


def test_conversations_longer_than_the_context_are_counted_and_documents_are_not(
    small_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_run / "tokenizer", tmp_path / "run" / "tokenizer")
    words = "A tree stood in a small pot. " * 100
    asked = {"role": "user", "content": "Tell me a story."}
    chats = [[asked, {"role": "assistant", "content": text}] for text in ("No.", words, words)]
    rows = (json.dumps({"messages": chat}) + "\n" for chat in chats)
    (tmp_path / "chats.jsonl").write_text("".join(rows))
    (tmp_path / "text.txt").write_text(words)
    sources = (
        SourceConfig("chats", kind="conversations", paths=("chats.jsonl",)),
        SourceConfig("texts", paths=("text.txt",)),
    )
    config = replace(load_run(SMALL, ["shards.validation_fraction=1e-9"]), sources=sources)

    results = shards.run(StageContext(config, tmp_path, tmp_path / "run", lambda _: None))

    assert [source["overlong"] for source in results["sources"]] == [2, 0]
    assert [source["documents"] for source in results["sources"]] == [3, 1]
