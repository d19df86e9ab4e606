"""Taking tokens: sampling, the batched engine, rollouts."""
