"""Bad input through the command line: a clear error, or a row that is counted; no traceback."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from penjing.artifacts.directories import staged
from penjing.artifacts.stage import read_manifest
from penjing.cli.main import main
from penjing.text.tokenizer import tokenizer_files, train_tokenizer

SMALL = Path(__file__).parents[1] / "small.toml"
RUN = """\
[model]
max_position_embeddings = 64
[tokenizer]
vocab_size = 280
[shards]
validation_fraction = 0.3
max_bad_row_fraction = {allowed}
[sources.mine]
paths = ["data/*"]
[pretrain]
steps = 9
tokens_per_step = 64
mixture = {{ mine = 1 }}
"""
GOOD = b'{"text": "A tree stood in a small pot."}\n{"text": "It had two leaves."}\n'
GOOD += b'{"text": "Then it slept."}\n'


class Person:
    """A folder with a run file and one file of data, and the commands typed there."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder, self._capsys = folder, capsys
        (folder / "data").mkdir()

    def types(self, name: str, data: bytes, *, allowed: float = 0.001) -> tuple[int, str]:
        """The exit code of making shards of this file, and what was told on standard error."""
        (self._folder / "data" / name).write_bytes(data)
        (self._folder / "mine.toml").write_text(RUN.format(allowed=allowed))
        common = [str(self._folder / "mine.toml"), "--runs", str(self._folder / "runs")]
        code = main(["tokenizer", *common]) or main(["shards", *common])
        return code, self._capsys.readouterr().err

    def quarantined(self) -> list[tuple[str, int, str]]:
        """(file, line, reason) of each row of the source that was set aside."""
        path = self._folder / "runs" / "mine" / "shards" / "mine.quarantine.jsonl"
        rows = map(json.loads, path.read_text().splitlines())
        return [(row["file"], row["line"], row["reason"]) for row in rows]

    def counted(self) -> tuple[int, int]:
        """Rows that were kept and rows that were set aside, as the manifest counts them."""
        manifest = read_manifest(self._folder / "runs" / "mine" / "shards")
        assert manifest is not None
        (source,) = manifest.results["sources"]
        return source["documents"] + source["validation_documents"], source["bad_rows"]


@pytest.fixture
def person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Person:
    return Person(tmp_path, capsys)


def test_three_mistakes_are_told_at_once_with_their_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_file = tmp_path / "bad.toml"
    text = '[model]\ndept = 4\n[sources.a]\nsynthetic = "stories"\nrows = "many"\n'
    run_file.write_text(text + "[pretrain]\nsteps = 0\nmixture = { a = 1 }\n")

    assert main(["train", str(run_file), "--runs", str(tmp_path)]) == 2

    told = capsys.readouterr().err
    for line, key in ((2, "model.dept"), (5, "sources.a.rows"), (7, "pretrain.steps")):
        assert f"{run_file}:{line}: {key}: " in told
    assert list(tmp_path.iterdir()) == [run_file]


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.jsonl.gz", gzip.compress(GOOD * 50)[:-20], "damaged or cut short after row"),
        ("a.parquet", b"PAR1 and nothing of the kind PAR1", "damaged or cut short"),
        ("a.jsonl", b"", "the file is empty. The first is data/a.jsonl:1"),
        ("a.tsv", b"text\nA tree.\n", "unknown format"),
    ],
)
def test_a_file_that_cannot_be_read_stops_the_stage(
    person: Person, name: str, data: bytes, told: str
) -> None:
    code, error = person.types(name, data)

    assert code == 1
    assert error.startswith("penjing: ")
    assert told in error
    assert "Traceback" not in error


BAD_ROWS = [
    (b'{"text": "caf\xe9"}\n', "not UTF-8"),
    (b'{"txt": "A tree."}\n', "no 'text' (keys: txt), did you mean 'txt'?"),
    (b'{"text": "A tr\n', "not JSON"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS)
def test_a_bad_row_is_set_aside_with_its_line_and_nothing_else_is_lost(
    person: Person, row: bytes, reason: str
) -> None:
    code, error = person.types("a.jsonl", GOOD + row + GOOD, allowed=0.5)

    assert (code, error) == (0, "")
    assert person.quarantined() == [("data/a.jsonl", 4, reason)]
    assert person.counted() == (6, 1)


def test_too_many_bad_rows_stop_the_stage(person: Person) -> None:
    code, error = person.types("a.jsonl", GOOD + BAD_ROWS[0][0])

    assert code == 1
    assert "1 of 4 rows cannot be used" in error
    assert "data/a.jsonl:4" in error


def test_an_empty_file_among_others_is_counted(person: Person, tmp_path: Path) -> None:
    (tmp_path / "data" / "empty.txt").touch()

    assert person.types("a.jsonl", GOOD, allowed=0.5) == (0, "")
    assert person.quarantined() == [("data/empty.txt", 1, "the file is empty")]


def test_shards_of_another_tokenizer_are_refused(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "small"
    shutil.copytree(small_run, run, ignore=shutil.ignore_patterns("pretrain"))
    (run / "tokenizer").rename(tmp_path / "own")
    with staged(run / "tokenizer") as partial:
        for name, data in tokenizer_files(train_tokenizer(["Another text."], 280)).items():
            (partial / name).write_bytes(data)
    shutil.copy(tmp_path / "own" / "stage.json", run / "tokenizer")

    assert main(["pretrain", str(SMALL), "--runs", str(tmp_path)]) == 1

    error = capsys.readouterr().err
    assert "stories.train" in error
    assert "tokenizer" in error
    assert "Traceback" not in error
