"""Seeds by name."""

from penjing.seeds import seed_for


def test_seeds_are_the_same_on_every_machine() -> None:
    assert seed_for(1, "pretrain", 3) == seed_for(1, "pretrain", 3)
    assert seed_for(1) == 3_874_038_210_105_081_456


def test_every_name_changes_the_seed() -> None:
    names = [(), ("a",), ("b",), ("a", "b"), ("ab",), ("a", 1), ("a", 11), ("a", 1, 1)]
    seeds = {seed_for(seed, *name) for seed in (0, 1) for name in names}
    assert len(seeds) == 2 * len(names)
    assert all(0 <= seed < 2**63 for seed in seeds)
