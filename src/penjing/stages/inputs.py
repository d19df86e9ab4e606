"""Opens the sources of a run: rows of files, or of Penjing's own generators, as text objects.

A row that cannot be used goes to the stage's quarantine with its file and line.
"""

from collections.abc import Iterator
from pathlib import Path

from penjing.config.schema import SourceConfig
from penjing.sources.quarantine import Quarantine
from penjing.sources.rows import convert, documents, rows
from penjing.synthetic import generators
from penjing.text.conversation import (
    Conversation,
    Preference,
    conversation_from_row,
    preference_from_row,
)


def open_documents(
    source: SourceConfig, base: Path, seed: int, quarantine: Quarantine
) -> Iterator[str]:
    """The texts of a source of kind documents."""
    if source.synthetic:
        return generators.documents(source.synthetic, seed, source.rows or 0)
    return (document.text for document in documents(source, base, quarantine))


def open_conversations(
    source: SourceConfig, base: Path, seed: int, quarantine: Quarantine
) -> Iterator[Conversation]:
    """The conversations of a source of kind conversations."""
    if source.synthetic:
        tool_share = 1.0 if source.tool_share is None else source.tool_share
        return generators.conversations(source.synthetic, seed, source.rows or 0, tool_share)
    return convert(rows(source, base, quarantine), conversation_from_row, quarantine)


def open_preferences(
    source: SourceConfig, base: Path, seed: int, quarantine: Quarantine
) -> Iterator[Preference]:
    """The pairs of a source of kind preferences."""
    if source.synthetic:
        return generators.preferences(source.synthetic, seed, source.rows or 0)
    return convert(rows(source, base, quarantine), preference_from_row, quarantine)
