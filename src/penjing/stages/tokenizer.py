"""The tokenizer stage: byte-level BPE over every source of the run, or another's vocabulary.

Torch is not loaded here.
"""

import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

from penjing.artifacts.directories import staged
from penjing.artifacts.progress import Progress
from penjing.artifacts.stage import append_event
from penjing.config.loading import identity
from penjing.config.schema import SourceConfig
from penjing.sources.quarantine import Quarantine
from penjing.stages.compression import write_evaluation
from penjing.stages.context import StageContext
from penjing.stages.inputs import open_conversations, open_documents, open_preferences
from penjing.stages.vocabulary import taken_vocabulary, write_tokenizer
from penjing.text.conversation import Conversation
from penjing.text.template import training_texts
from penjing.text.tokenizer import Tokenizer, train_tokenizer


def run(context: StageContext) -> dict[str, Any]:
    """Trains the tokenizer into `tokenizer/`; returns what the report shows."""
    config, directory = context.config, context.directory("tokenizer")
    totals = {"characters": 0, "texts": 0}

    def counted(texts: Iterator[str]) -> Iterator[str]:
        for text in texts:
            totals["characters"] += len(text)
            totals["texts"] += 1
            yield text

    def on_progress(done: int, total: int) -> None:
        context.show(Progress("tokenizer", "progress", done, total))

    if config.tokenizer.from_ is not None:
        return _take(context)
    clock = time.monotonic()
    with staged(directory) as partial:
        quarantine = Quarantine(partial / "quarantine.jsonl")
        share = config.tokenizer.max_characters // max(1, len(config.sources))
        texts = chain.from_iterable(
            _up_to(_texts(context, source, quarantine), share) for source in config.sources
        )
        tokenizer = train_tokenizer(
            counted(texts), config.tokenizer.trained_vocab_size, on_progress=on_progress
        )
        facts = identity(config.tokenizer) | {"seed": config.seed}
        write_tokenizer(partial, tokenizer, facts)
    found = {"bad_rows": quarantine.bad, "train_seconds": time.monotonic() - clock}
    write_evaluation(context, tokenizer, found)
    return totals | found | _facts(tokenizer)


def _take(context: StageContext) -> dict[str, Any]:
    """A vocabulary from a file instead of training one."""
    config = context.config.tokenizer
    tokenizer, remarks = taken_vocabulary(config, context.base)
    for remark in remarks:
        message = f"tokenizer.from: {remark}"
        append_event(context.run_dir, "warning", "tokenizer", message)
        context.show(Progress("tokenizer", "message", text=message))
    with staged(context.directory("tokenizer")) as partial:
        write_tokenizer(partial, tokenizer, {"from": config.from_})
    write_evaluation(context, tokenizer, {})
    return _facts(tokenizer)


def _facts(tokenizer: Tokenizer) -> dict[str, Any]:
    lengths = tokenizer.byte_lengths()
    lengths = lengths[lengths > 1]
    return {
        "vocab_size": tokenizer.vocab_size,
        "special_tokens": len(tokenizer.special_ids),
        "digest": tokenizer.digest,
        "merge_bytes_mean": float(lengths.mean()) if len(lengths) else 0.0,
        "merge_bytes_max": int(lengths.max()) if len(lengths) else 0,
    }


def _texts(context: StageContext, source: SourceConfig, quarantine: Quarantine) -> Iterator[str]:
    seed, base = context.config.seed, context.base
    if source.kind == "documents":
        yield from open_documents(source, base, seed, quarantine)
    elif source.kind == "conversations":
        for conversation in open_conversations(source, base, seed, quarantine):
            yield from training_texts(conversation)
    else:
        for pair in open_preferences(source, base, seed, quarantine):
            messages = (*pair.prompt.messages, pair.chosen, pair.rejected)
            yield from training_texts(Conversation(messages))


def _up_to(texts: Iterator[str], max_characters: int) -> Iterator[str]:
    left = max_characters
    for text in texts:
        if left <= 0:
            return
        left -= len(text)
        yield text
