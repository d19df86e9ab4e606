"""What a run will do, to the token, and what it has done."""

from dataclasses import replace
from pathlib import Path

import pytest

from penjing.artifacts.stage import read_manifest
from penjing.cli.main import main
from penjing.config.loading import load_run, parse_run
from penjing.data.shards import open_shard
from penjing.errors import DataError
from penjing.stages.plan import plan_run
from penjing.text.tokenizer import load_tokenizer

SMALL = Path(__file__).parents[1] / "small.toml"


def test_a_finished_run_consumed_what_was_planned(small_run: Path) -> None:
    facts = plan_run(load_run(SMALL), SMALL.parent, small_run.parent)

    for stage in facts.stages:
        manifest = read_manifest(small_run / stage.name)
        assert manifest is not None
        assert facts.parameters == manifest.results["parameters"]
        assert stage.tokens == stage.consumed == manifest.results["planned_tokens"]
        assert stage.steps == manifest.results["steps"]
        mixture = {one["source"]: one for one in manifest.results["mixture"]}
        assert {one.source: one.share for one in stage.shares} == pytest.approx(
            {name: one["realised"] for name, one in mixture.items()}
        )
    digest = load_tokenizer(small_run / "tokenizer").digest
    for source in facts.sources:
        if source.tokens is not None:
            shard = open_shard(small_run / "shards", f"{source.name}.train", digest)
            assert (source.documents, source.tokens) == (shard.documents, shard.tokens)


@pytest.mark.parametrize(
    ("form", "steps"), [("epochs = 2.0", None), ("tokens = 7700", 21), ("flops = 9e8", None)]
)
def test_a_length_is_planned_in_every_form(
    small_run: Path, tmp_path: Path, form: str, steps: int | None
) -> None:
    text = SMALL.read_text().replace("[pretrain]\nsteps = 8", f"[pretrain]\n{form}")
    config = parse_run(text, "small.toml")

    made = plan_run(config, SMALL.parent, small_run.parent).stages[0]
    unmade = plan_run(replace(config, name="other"), SMALL.parent, tmp_path)

    assert made.steps is not None
    assert made.tokens == made.steps * 384
    assert made.steps == (steps or made.steps)
    if form.startswith("epochs"):
        assert made.shares[0].epochs == pytest.approx(2, abs=0.05)
        assert unmade.stages[0].steps is None
        assert "known when the shards are finished" in unmade.stages[0].reason
    else:
        assert unmade.stages[0].steps == made.steps
    assert unmade.sources[0].tokens is None


def test_the_plan_is_told_and_missing_shards_are_named(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--quick", str(SMALL), "--runs", str(small_run.parent)]) == 0
    told = capsys.readouterr().out
    assert "pretrain: 8 steps x 2 rows = 3,072 tokens planned, 3,072 consumed" in told
    assert "bytes of text a token" in told
    text = SMALL.read_text().replace('synthetic = "stories"\nrows = 120', 'paths = ["s{0..9}.txt"]')
    (tmp_path / "s3.txt").write_text("text")
    with pytest.raises(DataError, match=r"9 of 10 files are missing: s0\.txt to s2\.txt, s4\.txt"):
        plan_run(parse_run(text, "small.toml"), tmp_path, tmp_path)
