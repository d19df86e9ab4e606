from pathlib import Path

import pytest

from penjing.artifacts.stage import run_lock
from penjing.cli.main import main
from penjing.errors import ArtifactError, ConfigError
from penjing.stages.runs import act, list_runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    checkpoint = tmp_path / "runs" / "tiny" / "pretrain" / "step-000100"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"x" * 1000)
    (tmp_path / "runs" / "tiny" / "config.toml").write_text('name = "tiny"\n')
    return tmp_path / "runs"


def test_a_deleted_run_can_be_taken_back(runs: Path) -> None:
    assert "restore it with --restore tiny" in act(runs, "delete", "tiny")
    assert not (runs / "tiny").exists()
    assert list(list_runs(runs))[1].startswith("in the trash: tiny")
    act(runs, "restore", "tiny")
    assert (runs / "tiny" / "pretrain" / "step-000100" / "model.safetensors").exists()


def test_a_run_that_is_written_is_not_deleted_and_none_is_overwritten(runs: Path) -> None:
    with run_lock(runs / "tiny"), pytest.raises(ArtifactError, match="is being written"):
        act(runs, "delete", "tiny")
    (runs / ".trash" / "tiny").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="there already"):
        act(runs, "delete", "tiny")
    assert (runs / "tiny").exists()


@pytest.mark.parametrize("name", ["small", "..", ".", "../runs", "/etc", ""])
def test_nothing_but_a_run_is_touched(runs: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no such directory"):
        act(runs, "delete", name)


def test_a_checkpoint_is_pinned_and_unpinned(runs: Path) -> None:
    name = "tiny/pretrain/step-000100"
    assert "kept for good" in act(runs, "pin", name)
    pins = runs / "tiny" / "pretrain" / "pins"
    assert pins.read_text() == "step-000100\n"
    act(runs, "unpin", name)
    assert pins.read_text() == ""
    with pytest.raises(ConfigError, match="found no checkpoint"):
        act(runs, "pin", "tiny/pretrain")


def test_the_verb_lists_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--runs", str(runs)]) == 0
    assert "tiny: 0.00 GB" in capsys.readouterr().out
