"""The new verb: looks at a person's files and writes a commented run file for them.

Nothing is trained and no file but the run file is written.
"""

import glob
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from penjing.config.loading import parse_run
from penjing.config.schema import SourceConfig
from penjing.errors import ConfigError, DataError
from penjing.sources.formats import READERS
from penjing.sources.listing import find_files
from penjing.sources.quarantine import Quarantine
from penjing.sources.rows import rows
from penjing.stages.inputs import text_bytes
from penjing.text.conversation_forms import form_of

CHARACTERS_PER_TOKEN = 4
"""A first guess for English with a vocabulary of some thousands; `shards` measures the truth."""


@dataclass(frozen=True)
class FoundSource:
    """Files of one path that hold the same kind of rows, as paths and globs of the run file."""

    name: str
    paths: tuple[str, ...]
    kind: str
    num_bytes: int
    """Of text, by the files' sizes."""
    validation_paths: tuple[str, ...] = ()


def new_run(name: str, data: Sequence[Path], directory: Path) -> Path:
    """Writes `NAME.toml` into `directory` and returns its path.

    Raises:
        ConfigError: the file exists, its name cannot be a run's, or there is no text to read.
        DataError: a path holds nothing that can be read.
    """
    path = directory / f"{name}.toml"
    if path.exists():
        raise ConfigError(f"{path} exists already: choose another name or move it away")
    environment = _read_environment(directory / ".env") if not data else {}
    if not data and "DATA_PATH" not in environment:
        raise ConfigError(
            f"no data was given: wanted --data PATH [PATH ...], or DATA_PATH in {directory}/.env"
        )
    data = data or [directory / environment["DATA_PATH"]]
    sources = _distinct([source for one in data for source in _look_at(one.absolute())])
    if "VAL_PATH" in environment:
        sources = _with_validation(sources, (directory / environment["VAL_PATH"]).absolute())
    if not any(source.kind == "documents" for source in sources):
        raise ConfigError("pretraining needs text, and every path given holds chats or preferences")
    text = _run_file(name, sources)
    parse_run(text, str(path), ())
    path.write_text(text, encoding="utf-8")
    return path


def _read_environment(path: Path) -> dict[str, str]:
    """The names and values of a `.env` file; none when there is no such file."""
    if not path.exists():
        return {}
    lines = (line.strip().removeprefix("export ") for line in path.read_text("utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    values = {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}
    return {name: value for name, value in values.items() if value}


def _with_validation(sources: list[FoundSource], path: Path) -> list[FoundSource]:
    """The files of `path` held out whole, in the first source that has rows of their kind."""
    found = list(sources)
    for held_out in _look_at(path):
        place = next((k for k, one in enumerate(found) if one.kind == held_out.kind), None)
        if place is None:
            raise ConfigError(f"VAL_PATH: {path} holds {held_out.kind}, and DATA_PATH has none")
        found[place] = replace(found[place], validation_paths=held_out.paths)
    return found


def _look_at(path: Path) -> Iterator[FoundSource]:
    """One source for each kind of rows; files that cannot be read are passed over."""
    is_glob = not path.exists()
    pattern = str(path) if is_glob else glob.escape(str(path))
    files = find_files([pattern + ("/**/*" if path.is_dir() else "")], path.parent)
    found: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for suffix in READERS:
        group = [file for file in files if file.name.endswith(suffix)]
        kinds = {file: _kind_of(file) for file in group}
        for kind in sorted(set(kinds.values())):
            same = [file for file in group if kinds[file] == kind]
            paths = [glob.escape(str(file)) for file in same]
            if path.is_dir() and same == group:
                paths = [f"{pattern}/**/*{suffix}"]
            elif is_glob and same == files:
                paths = [pattern]
            found.setdefault(kind, []).extend(paths)
            sizes[kind] = sizes.get(kind, 0) + sum(map(text_bytes, same))
    if not found:
        raise DataError(f"{path}: found no readable file; wanted one of {', '.join(READERS)}")
    stem = path.name.split(".")[0].lower()
    stem = "".join(c if c.isascii() and c.isalnum() else "_" for c in stem) or "data"
    for kind, paths in found.items():
        name = stem if len(found) == 1 else f"{stem}_{kind}"
        yield FoundSource(name, tuple(paths), kind, sizes[kind])


def _kind_of(file: Path) -> str:
    """What the first row of a file looks like."""
    if file.name.endswith((".txt", ".md")):
        return "documents"
    source = SourceConfig(name="look", kind="conversations", paths=(glob.escape(str(file)),))
    row = next(rows(source, Path(), Quarantine()), None)
    if row is None:
        return "documents"
    if {"chosen", "rejected"} <= set(row.value):
        return "preferences"
    try:
        form_of(row.value)
    except DataError:
        return "documents"
    return "conversations"


def _distinct(sources: Sequence[FoundSource]) -> list[FoundSource]:
    named: dict[str, FoundSource] = {}
    for source in sources:
        name, count = source.name, 1
        while name in named:
            count += 1
            name = f"{source.name}_{count}"
        named[name] = replace(source, name=name)
    return list(named.values())


def _run_file(name: str, sources: Sequence[FoundSource]) -> str:
    texts = [source for source in sources if source.kind == "documents"]
    chats = [source for source in sources if source.kind == "conversations"]
    pairs = [source for source in sources if source.kind == "preferences"]
    tokens = sum(source.num_bytes for source in texts) // CHARACTERS_PER_TOKEN
    parts = [_HEAD.format(name=name, tokens=tokens), *map(_source_table, sources)]
    parts.append(_PRETRAIN.format(mixture=_shares(texts, 1.0)))
    if chats:
        blended = _shares(texts, 0.9, 0.4) + "\n" + _shares(chats, 0.1, 0.6)
        parts += [_MIDTRAIN.format(mixture=blended), _SFT.format(mixture=_shares(chats, 1.0))]
    if pairs:
        parts.append(_DPO.format(source=pairs[0].name))
    parts.append(_EVALUATE)
    return "\n".join(parts)


def _source_table(source: FoundSource) -> str:
    paths = json.dumps(source.paths, ensure_ascii=False)  # TOML writes strings as JSON does
    held_out = json.dumps(source.validation_paths, ensure_ascii=False)
    return (
        f"[sources.{source.name}]  # about {source.num_bytes / 1e6:.1f} MB of text\n"
        f'kind = "{source.kind}"\npaths = {paths}\n'
        + (f"validation_paths = {held_out}\n" if source.validation_paths else "")
    )


def _shares(sources: Sequence[FoundSource], *whole: float) -> str:
    """Mixture lines: what the sources share at the start (and at the end), by their size."""
    total = sum(source.num_bytes for source in sources) or 1
    lines = []
    for source in sources:
        parts = [round(share * max(source.num_bytes / total, 0.001), 4) for share in whole]
        lines.append(f"{source.name} = {parts if len(parts) > 1 else parts[0]}")
    return "\n".join(lines)


_HEAD = """\
# A Penjing run. `penjing train {name}.toml` grows the model; every stage resumes where it stopped.
# Left out: whatever has a good default. `penjing check {name}.toml` says whether the file is right.
name = "{name}"
seed = 1  # every random draw derives from it

[model]  # about {tokens:,} tokens of text were found (guessed from the size of the files)
depth = 4  # the one dial: more blocks and a wider model; a laptop likes 4, a GPU 12 or 20
hidden_size = 256  # default 64 x depth
max_position_embeddings = 512  # context, in tokens

[tokenizer]
vocab_size = 4096

# Your data: absolute paths, or paths from the folder of this file; globs are allowed.
"""

_PRETRAIN = """\
[pretrain]  # plain text, from random weights
steps = 1500
tokens_per_step = 4096
microbatch_rows = 8
sample_prompts = ["Once upon a time", "The"]

[pretrain.mixture]  # shares of rows
{mixture}
"""

_MIDTRAIN = """\
[midtrain]  # from plain text to conversations, gradually: [share at the start, at the end]
steps = 400
tokens_per_step = 4096
microbatch_rows = 8
sample_prompts = ["Who are you?", "Tell me a story."]
optimizer = {{ matrix_learning_rate = 0.006, embedding_learning_rate = 0.1, \
head_learning_rate = 0.003 }}

[midtrain.mixture]
{mixture}
"""

_SFT = """\
[sft]  # conversations alone; only the assistant's words are trained
steps = 400
tokens_per_step = 4096
microbatch_rows = 8
sample_prompts = ["Who are you?", "Tell me a story."]
optimizer = {{ matrix_learning_rate = 0.004, embedding_learning_rate = 0.05, \
head_learning_rate = 0.002 }}

[sft.mixture]
{mixture}
"""

_DPO = """\
[dpo]  # chosen against rejected answers
source = "{source}"
steps = 30
optimizer = {{ matrix_learning_rate = 0.0005, embedding_learning_rate = 0.005, \
head_learning_rate = 0.0002 }}
"""

_EVALUATE = """\
[evaluate]  # every trained stage on the same held-out problems
problems_per_task = 50
"""
