"""The documents say what is: their commands run, their links resolve, their names exist.

Shell and Python blocks of one document run in order, in a folder that holds a finished small run as
`runs/tiny`. Blocks marked `no-test` are left alone; of `make` only the target's name is checked.
"""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import pytest

from penjing import errors
from penjing.artifacts import records
from penjing.cli.main import VERBS
from penjing.config.names import key_of
from penjing.config.schema import RunConfig, SourceConfig
from penjing.config.training import MixtureShare
from penjing.data.chunks import ChunkRecord
from penjing.data.shards import ShardInfo
from penjing.sources.quarantine import BadRow

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in DOCUMENTS}
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# A run as large as `penjing new` writes takes an hour: the same commands, with these settings.
SHORTER = [
    "model.depth=1",
    "model.hidden_size=64",
    "model.max_position_embeddings=192",
    "tokenizer.vocab_size=512",
    "shards.validation_fraction=0.2",
    "pretrain.steps=2",
    "pretrain.tokens_per_step=384",
    "midtrain.steps=2",
    "midtrain.tokens_per_step=384",
    "sft.steps=2",
    "sft.tokens_per_step=384",
    "evaluate.problems_per_task=2",
    "evaluate.samples_per_problem=1",
    "evaluate.validation_rows=2",
    "evaluate.max_new_tokens=8",
    "runtime.dtype=float32",
    "runtime.threads=1",
]

STAND_IN = f"""#!{sys.executable}
import sys
from penjing.cli.main import main
arguments = sys.argv[1:]
if arguments[:1] == ["demo"]:
    arguments[:1] = ["train", "tiny.toml"]
elif "bonsai.toml" in arguments and arguments[0] != "check":
    arguments += [part for setting in {SHORTER!r} for part in ("--set", setting)]
if __name__ == "__main__":
    sys.exit(main(arguments))
"""


class Block(NamedTuple):
    """One fenced block: its language, its text, and whether it says `no-test`."""

    language: str
    text: str
    tested: bool


def blocks(text: str) -> Iterator[Block]:
    for marks, inner in FENCE.findall(text):
        language, *words = marks.split() or [""]
        yield Block(language, inner, "no-test" not in words)


def commands(block: Block) -> str:
    """The block without its `make` lines."""
    lines = [line for line in block.text.splitlines() if not line.startswith("make ")]
    return "\n".join(lines).strip()


def runnable(text: str) -> list[Block]:
    found = [block for block in blocks(text) if block.tested and block.language in ("sh", "python")]
    return [block for block in found if commands(block)]


@pytest.fixture
def workspace(tmp_path: Path, small_run: Path) -> Path:
    """A person's folder: a finished run called tiny, its run file, texts and chats of their own."""
    shutil.copytree(small_run, tmp_path / "runs" / "tiny")
    small = (ROOT / "tests" / "small.toml").read_text()
    (tmp_path / "tiny.toml").write_text(small.replace('name = "small"', 'name = "tiny"'))
    (tmp_path / "texts").mkdir()
    for number in range(40):
        text = f"Tree {number} stood in a small pot.\nIt grew {number} leaves, and then it slept.\n"
        (tmp_path / "texts" / f"{number}.txt").write_text(text)
    row = '{"messages": [{"role": "user", "content": "Tree %d?"}, '
    row += '{"role": "assistant", "content": "It has %d leaves."}]}\n'
    (tmp_path / "chats.jsonl").write_text("".join(row % (n, n) for n in range(40)))
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "penjing"
    command.write_text(STAND_IN)
    command.chmod(0o755)
    return tmp_path


def run_block(block: Block, workspace: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{workspace / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
    }
    shell = ["bash", "-euo", "pipefail", "-c", commands(block)]
    done = subprocess.run(
        shell if block.language == "sh" else [sys.executable, "-c", block.text],
        cwd=workspace,
        env=environment,
        input="Who are you?\n",
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{block.text}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("name", [name for name in TEXTS if runnable(TEXTS[name])])
def test_every_command_of_the_document_runs(name: str, workspace: Path) -> None:
    for block in runnable(TEXTS[name]):
        run_block(block, workspace)


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name, text in TEXTS.items():
        code = [block.text for block in blocks(text)] + re.findall(r"`(make [^`]+)`", text)
        named = {target for part in code for target in re.findall(r"^make ([a-z]+)", part, re.M)}
        assert named <= targets, f"{name}: {named - targets}"


@pytest.mark.parametrize("name", TEXTS)
def test_every_relative_link_resolves(name: str) -> None:
    prose = FENCE.sub("", TEXTS[name])
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / name).parent / path if path else ROOT / name
        assert found.exists(), f"{name}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", found.read_text("utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
            assert anchor in slugs, f"{name}: {target}"


def keys_of(section: Any, path: str) -> Iterator[tuple[str, str]]:
    """(table, key) of everything that a run file may hold; names of sources are NAME."""
    for key, hint in get_type_hints(section).items():
        yield path, key_of(key)
        for inner in (hint, *get_args(hint)):
            if dataclasses.is_dataclass(inner) and inner is not MixtureShare:
                names = [path, key, "NAME" if inner is SourceConfig else ""]
                yield from keys_of(inner, ".".join(part for part in names if part))


@pytest.mark.parametrize("name", TEXTS)
def test_every_config_key_that_is_named_exists(name: str) -> None:
    known = set(keys_of(RunConfig, ""))
    tables = {f"{table}.{key}".strip(".") for table, key in known} | {table for table, _ in known}
    training = ("pretrain", "midtrain", "sft", "dpo", "rl")
    for table, key in re.findall(r"`\[([A-Za-z_.]+)\](?: ([a-z_]+))?", TEXTS[name]):
        for stage in training if table.startswith("STAGE") else ("",):
            place = table.replace("STAGE", stage)
            assert place in tables or place == "sources.NAME", f"{name}: [{table}]"
            assert not key or (place, key) in known, f"{name}: [{table}] {key}"


def test_the_documents_mention_every_verb() -> None:
    everything = "\n".join(TEXTS.values())
    missing = [verb for verb in VERBS if not re.search(rf"`?penjing {verb}\b", everything)]
    assert not missing


def rows_of(text: str, first_head: str) -> Iterator[list[str]]:
    """The rows of every table whose first column has that head."""
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == first_head:
            inside = True
        elif inside and not set(line) <= set("|- "):
            yield cells


def test_the_glossary_defines_each_word_once() -> None:
    words = [row[0].lower() for row in rows_of(TEXTS["docs/glossary.md"], "word")]
    assert len(words) > 50
    assert sorted(set(words)) == sorted(words)


def test_the_artifacts_page_names_every_field_of_every_record() -> None:
    from penjing.runtime import Machine
    from penjing.stages.dpo import Pair
    from penjing.train.checkpoint import TrainingState

    text = TEXTS["docs/artifacts.md"]
    documented: list[Any] = [ShardInfo, ChunkRecord, BadRow, Machine, Pair, TrainingState]
    for value in vars(records).values():
        if isinstance(value, type) and dataclasses.is_dataclass(value):
            documented.append(value)
    for record in documented:
        section = re.search(rf"^###? [^\n]*`{record.__name__}`.*?(?=^##|\Z)", text, re.M | re.S)
        assert section, f"no heading names {record.__name__}"
        for field in dataclasses.fields(record):
            assert f"`{field.name}`" in section[0], f"{record.__name__}.{field.name}"


def test_the_artifacts_page_names_every_file_of_a_run(small_run: Path) -> None:
    listed = [row[0] for row in rows_of(TEXTS["docs/artifacts.md"], "file")]
    names = [name for row in listed for name in re.findall(r"`([^`]+)`", row)]
    patterns = [re.sub(r"[A-Z]{3,}", "*", name) for name in names]
    assert len(patterns) > 20
    for path in small_run.rglob("*"):
        name = path.relative_to(small_run).as_posix()
        known = any(fnmatch(name, pattern) for pattern in patterns)
        assert path.is_dir() or known, f"docs/artifacts.md does not list {name}"


def test_the_artifacts_page_names_every_exit_code() -> None:
    codes = {int(row[0].strip("`")) for row in rows_of(TEXTS["docs/artifacts.md"], "exit code")}
    raised = {getattr(value, "exit_code", 0) for value in vars(errors).values()}
    assert {0, 130} | raised == codes


def test_the_architecture_page_shows_the_package_as_it_is() -> None:
    """Its tree has a line for each room with all of its modules, and no other."""
    tree = next(b.text for b in blocks(TEXTS["docs/architecture.md"]) if "src/penjing/" in b.text)
    room, shown = "", dict[str, set[str]]()
    for line in tree.splitlines()[1:]:
        room = line[:14].strip(" /") or room
        shown.setdefault(room, set()).update(line[14:].split(" · "))
    package = ROOT / "src" / "penjing"
    found: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        if path.stem != "__init__":
            room = path.parent.relative_to(package).as_posix()
            found.setdefault(room, set()).add(path.stem)
    assert shown == found
