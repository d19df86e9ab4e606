"""`penjing new` looks at a person's files and writes a run file that holds."""

import json
from pathlib import Path

import pytest

from penjing.config.loading import load_run
from penjing.errors import ConfigError, DataError
from penjing.sources.listing import find_files
from penjing.stages.new import new_run

CHAT = {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Ho."}]}
PAIR = {"prompt": "Hi.", "chosen": "Ho.", "rejected": "No."}


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_mixed_folder_becomes_a_source_for_each_kind_of_row(tmp_path: Path) -> None:
    folder = tmp_path / 'my "texts" [1]'
    write(folder / "deep" / "a.txt", "A tree stood in a pot.")
    write(folder / "b.md", "# A pot")
    write(folder / "chats.jsonl", CHAT)
    write(folder / "pairs.jsonl", PAIR)
    write(folder / "table.tsv", 1)
    write(folder / ".hidden" / "c.parquet", "no parquet")

    run_file = new_run("bonsai", [folder], tmp_path)

    found = {}
    for source in load_run(run_file).sources:
        files = find_files(source.paths, run_file.parent)
        found[source.kind] = sorted(file.name for file in files)
    assert found == {
        "documents": ["a.txt", "b.md"],
        "conversations": ["chats.jsonl"],
        "preferences": ["pairs.jsonl"],
    }


def test_a_folder_of_one_kind_is_one_source_that_takes_later_files_too(tmp_path: Path) -> None:
    write(tmp_path / "texts" / "a.txt", "A tree.")
    run_file = new_run("bonsai", [tmp_path / "texts"], tmp_path)
    write(tmp_path / "texts" / "b.txt", "A pot.")

    (source,) = load_run(run_file).sources

    assert source.name == "texts"
    assert len(find_files(source.paths, tmp_path)) == 2


def test_what_cannot_be_a_run_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    text = write(tmp_path / "a.txt", "A tree.")
    chats = write(tmp_path / "chats.jsonl", CHAT)
    table = write(tmp_path / "table.tsv", 1)

    with pytest.raises(DataError, match="no readable file"):
        new_run("bonsai", [table], tmp_path)
    with pytest.raises(ConfigError, match="needs text"):
        new_run("bonsai", [chats], tmp_path)
    with pytest.raises(ConfigError, match="letters, digits"):
        new_run("my bonsai", [text], tmp_path)
    assert not list(tmp_path.glob("*.toml"))
    new_run("bonsai", [text], tmp_path)
    with pytest.raises(ConfigError, match="exists already"):
        new_run("bonsai", [text], tmp_path)


def test_the_paths_of_a_dot_env_file_are_taken_when_none_is_given(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "data" / f"train.{number}.jsonl", {"text": "A tree."})
    write(tmp_path / "data" / "held_out.jsonl", {"text": "A pot."})
    text = "# mine\nexport DATA_PATH='data/train.*.jsonl'\nVAL_PATH=data/held_out.jsonl\nOTHER=\n"
    (tmp_path / ".env").write_text(text)

    (source,) = load_run(new_run("bonsai", [], tmp_path)).sources

    assert source.name == "train"
    assert len(find_files(source.paths, tmp_path)) == 3
    assert [file.name for file in find_files(source.validation_paths, tmp_path)] == [
        "held_out.jsonl"
    ]


def test_without_data_and_dot_env_both_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--data PATH .*, or DATA_PATH"):
        new_run("bonsai", [], tmp_path)
    write(tmp_path / "texts.jsonl", {"text": "A tree."})
    write(tmp_path / "chats.jsonl", CHAT)
    (tmp_path / ".env").write_text("DATA_PATH=texts.jsonl\nVAL_PATH=chats.jsonl\n")
    with pytest.raises(
        ConfigError, match=r"VAL_PATH: .*holds conversations, and DATA_PATH has none"
    ):
        new_run("bonsai", [], tmp_path)
