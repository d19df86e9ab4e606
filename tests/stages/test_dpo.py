"""Preference pairs keep the log-probabilities of one reference; those left out are counted."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from penjing.config.loading import load_run
from penjing.config.schema import SourceConfig
from penjing.errors import ArtifactError, DataError
from penjing.stages import dpo
from penjing.stages.context import StageContext
from penjing.stages.dpo import read_pairs

SMALL = Path(__file__).parents[1] / "small.toml"
PAIR = {"prompt": "Who are you?", "chosen": "I am Penjing.", "rejected": "I am Tom. " * 9}
LONG = PAIR | {"rejected": "I am Tom and nobody else. " * 90}


def test_stored_pairs_name_their_reference(small_run: Path) -> None:
    lines = (small_run / "dpo" / "pairs.jsonl").read_text().splitlines()
    digest = json.loads(lines[0])["reference"]

    pairs = read_pairs(small_run / "dpo" / "pairs.jsonl", digest)

    assert len(pairs) == len(lines)
    assert all(pair.reference_chosen < 0 and pair.reference_rejected < 0 for pair in pairs)


def test_pairs_of_another_reference_are_refused(small_run: Path) -> None:
    with pytest.raises(ArtifactError, match="--redo dpo"):
        read_pairs(small_run / "dpo" / "pairs.jsonl", "0" * 64)


@pytest.fixture
def context(small_run: Path, tmp_path: Path) -> StageContext:
    """The small run before dpo, with a person's own pairs: one too long, one broken."""
    run_dir = tmp_path / "small"
    shutil.copytree(small_run, run_dir, ignore=shutil.ignore_patterns("dpo", "rl"))
    (run_dir / "dpo").mkdir()
    rows = [json.dumps(row) for row in (PAIR, PAIR, LONG, {"prompt": "Who?"})]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    source = SourceConfig("preferences", kind="preferences", paths=("pairs.jsonl",))
    config = load_run(SMALL, ["shards.max_bad_row_fraction=0.3", "dpo.steps=1"])
    config = dataclasses.replace(config, sources=(source,))
    return StageContext(config, tmp_path, run_dir, lambda _: None)


def test_pairs_left_out_are_counted_also_after_a_resume(context: StageContext) -> None:
    first, again = dpo.run(context), dpo.run(context)

    counts = ("pairs", "overlong_pairs", "bad_rows")
    assert [first[key] for key in counts] == [again[key] for key in counts] == [2, 1, 1]
    assert again["resumed_from_step"] == 1
    quarantined = (context.directory("dpo") / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in quarantined] == [4]


def test_too_many_bad_rows_stop_the_stage(context: StageContext) -> None:
    strict = dataclasses.replace(context.config.shards, max_bad_row_fraction=0.2)
    config = dataclasses.replace(context.config, shards=strict)

    with pytest.raises(DataError, match="1 of 4 rows cannot be used"):
        dpo.run(dataclasses.replace(context, config=config))
