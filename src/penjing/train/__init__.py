"""Taking steps: loop, optimizer, objectives, checkpoints."""
