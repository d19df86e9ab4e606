"""Preference pairs keep the log-probabilities of one reference, and of no other."""

import json
from pathlib import Path

import pytest

from penjing.errors import ArtifactError
from penjing.stages.dpo import read_pairs


def test_stored_pairs_name_their_reference(small_run: Path) -> None:
    lines = (small_run / "dpo" / "pairs.jsonl").read_text().splitlines()
    digest = json.loads(lines[0])["reference"]

    pairs = read_pairs(small_run / "dpo" / "pairs.jsonl", digest)

    assert len(pairs) == len(lines)
    assert all(pair.reference_chosen < 0 and pair.reference_rejected < 0 for pair in pairs)


def test_pairs_of_another_reference_are_refused(small_run: Path) -> None:
    with pytest.raises(ArtifactError, match="--redo dpo"):
        read_pairs(small_run / "dpo" / "pairs.jsonl", "0" * 64)
