"""The inspect verb: what files hold, before a run is written for them. Nothing is written to disk.

Rows are read one by one; of a large file, lengths and duplicates are those of a sample by hash.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import xxhash

from penjing.artifacts.progress import Progress
from penjing.errors import DataError
from penjing.sources.formats import READERS, read_file
from penjing.sources.listing import find_files
from penjing.sources.quarantine import BadRow, Quarantine, Row
from penjing.sources.rows import document_text
from penjing.stages.context import Show
from penjing.text.conversation import Conversation
from penjing.text.conversation_forms import form_of, read_conversation, read_preference

MOST_HASHES = 1 << 20
"""Different texts remembered; of more, those with a smaller hash: all copies of one alike."""

SAMPLED_TEXTS = 1000
SAMPLED_CHARACTERS = 400
SHOWN = 3
_PROGRESS_ROWS = 100_000


@dataclass(frozen=True)
class Inspection:
    """What one file holds. Lengths are in characters; `duplicates` counts rows seen before."""

    file: str
    problem: str
    kinds: dict[str, int]
    rows: int
    bytes: int
    characters: int
    lengths: tuple[int, int, int]
    duplicates: int
    estimated: bool
    scripts: dict[str, float]
    languages: dict[str, float]
    bad: int
    bad_rows: tuple[BadRow, ...]
    samples: tuple[str, ...]


@dataclass
class _Tally:
    """Counts of the rows read so far."""

    kinds: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    characters: int = 0
    seen: dict[int, tuple[int, int]] = field(default_factory=dict)
    """How often a text of that hash was met, and its length."""
    step: int = 1
    """Of this many hashes one is remembered."""
    texts: list[str] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)

    def add(self, kind: str, text: str, sample: str) -> None:
        data = text.encode()
        self.kinds[kind] += 1
        self.bytes += len(data)
        self.characters += len(text)
        if len(self.samples) < SHOWN:
            self.samples.append(sample)
        if len(self.texts) < SAMPLED_TEXTS:
            self.texts.append(text[:SAMPLED_CHARACTERS])
        digest = xxhash.xxh3_64_intdigest(data)
        if digest % self.step:
            return
        self.seen[digest] = (self.seen.get(digest, (0, 0))[0] + 1, len(text))
        if len(self.seen) > MOST_HASHES:
            self.step *= 2
            self.seen = {one: met for one, met in self.seen.items() if one % self.step == 0}


def inspect(paths: Sequence[str], text_field: str, show: Show) -> Iterator[Inspection]:
    """Every file that paths, folders and globs name, in turn.

    Args:
        paths: of files and folders, globs, or URLs.
        text_field: the key of a document's text.
        show: told now and then how far a long file is.

    Raises:
        DataError: a path names no file that can be read.
    """
    for path in paths:
        pattern = str(Path(path) / "**" / "*") if Path(path).is_dir() else path
        files = find_files([pattern], Path())
        readable = [file for file in files if file.name.endswith(tuple(READERS))]
        if not readable:
            raise DataError(f"{path}: found no readable file; wanted one of {', '.join(READERS)}")
        for file in readable:
            yield _inspected(file, text_field, show)


def _inspected(file: Path, text_field: str, show: Show) -> Inspection:
    quarantine, tally, problem = Quarantine(), _Tally(), ""
    try:
        for row in read_file(file, str(file), None, quarantine):
            try:
                tally.add(*_told(row, text_field))
            except DataError as bad:
                quarantine.add(row, str(bad))
            if quarantine.rows % _PROGRESS_ROWS == 0:
                text = f"{file}: {quarantine.rows:,} rows so far"
                show(Progress("inspect", "message", text=text))
    except DataError as damage:
        problem = str(damage)
    lengths = [length for _, length in tally.seen.values()]
    copies = sum(count - 1 for count, _ in tally.seen.values()) * tally.step
    return Inspection(
        file=str(file),
        problem=problem,
        kinds=dict(tally.kinds.most_common()),
        rows=quarantine.rows,
        bytes=tally.bytes,
        characters=tally.characters,
        lengths=(min(lengths), int(median(lengths)), max(lengths)) if lengths else (0, 0, 0),
        duplicates=copies,
        estimated=tally.step > 1,
        scripts=_scripts(tally.texts),
        languages=_languages(tally.texts),
        bad=quarantine.bad,
        bad_rows=tuple(quarantine.examples),
        samples=tuple(tally.samples),
    )


def _told(row: Row, text_field: str) -> tuple[str, str, str]:
    """The kind of a row, its text, and how a person reads it."""
    if "chosen" in row.value or "rejected" in row.value:
        pair = read_preference(row.value)
        better, worse = pair.chosen.text, pair.rejected.text
        text = "\n".join([*(message.text for message in pair.prompt.messages), better, worse])
        shown = f"{_dialogue(pair.prompt)} | better: {better} | worse: {worse}"
        return "preference", text, _short(shown)
    whole = row.file.endswith((".txt", ".md"))
    if whole or text_field in row.value:
        text = document_text(row.value, "text" if whole else text_field)
        return "document", text, _short(text)
    form = form_of(row.value)
    conversation = read_conversation(row.value)
    text = "\n".join(part.text for message in conversation.messages for part in message.parts)
    return f"conversation ({form})", text, _short(_dialogue(conversation))


def _dialogue(conversation: Conversation) -> str:
    turns = (
        f"{message.role}: {' '.join(part.text for part in message.parts)}"
        for message in conversation.messages
    )
    return " | ".join(turns)


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 160 else words[:159] + "…"


def _scripts(texts: Sequence[str]) -> dict[str, float]:
    """The share of letters in each script, by the first word of their Unicode names."""
    letters = (letter for text in texts for letter in text if letter.isalpha())
    found = Counter(unicodedata.name(letter, "unnamed").split()[0].lower() for letter in letters)
    return _shares(found)


def _languages(texts: Sequence[str]) -> dict[str, float]:
    """The share of texts in each language; nothing without the package that tells."""
    try:
        import py3langid
    except ImportError:
        return {}
    return _shares(Counter(str(py3langid.classify(text)[0]) for text in texts))


def _shares(found: Counter[str]) -> dict[str, float]:
    whole = found.total()
    return {name: count / whole for name, count in found.most_common(5) if count * 200 >= whole}


def lines(found: Inspection) -> Iterator[str]:
    """What a person reads of it."""
    kinds = ", ".join(f"{count:,} x {kind}" for kind, count in found.kinds.items()) or "no rows"
    yield f"{found.file}: {kinds}; {found.bytes:,} bytes of text, {found.characters:,} characters"
    if found.kinds:
        about = "about " if found.estimated else ""
        shortest, middle, longest = (f"{length:,}" for length in found.lengths)
        yield (
            f"  characters of a row: {shortest} at least, {middle} in the middle, {longest} at "
            f"most; {about}{found.duplicates:,} rows repeat another"
        )
        told = f"the first {min(SAMPLED_TEXTS, sum(found.kinds.values())):,} rows"
        languages = _percent(found.languages) or "pip install 'penjing[languages]' would tell"
        yield f"  {told}: letters {_percent(found.scripts) or 'none'}; languages {languages}"
    for sample in found.samples:
        yield f"  sample: {sample}"
    if found.bad:
        yield f"  {found.bad:,} rows cannot be used:"
        for row in found.bad_rows:
            yield f"    {row.file}:{row.line}: {row.reason}"
    if found.problem:
        yield f"  {found.problem}"


def _percent(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
