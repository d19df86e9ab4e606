"""Seeds by name: every consumer of randomness derives its own from the run's seed."""

import hashlib


def seed_for(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**63) that depends on the seed and every name, and on nothing else."""
    text = "\x1f".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
