"""A run that was killed at random moments ends in the same bytes as one that was left alone."""

import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).with_name("kill_campaign.py")


@pytest.mark.parametrize("words", [[], ["--stop", "--seed", "7"]], ids=["killed", "stopped"])
def test_twenty_kills_and_twenty_stops_leave_no_trace(tmp_path: Path, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(CAMPAIGN), str(tmp_path), "--kills", "20", *words],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "differences: 0" in done.stdout


def test_ten_kills_of_the_work_over_a_corpus_leave_no_trace(tmp_path: Path) -> None:
    script = CAMPAIGN.with_name("corpus_campaign.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "--kills", "10", "--corruptions", "10"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "differences: 0" in done.stdout
