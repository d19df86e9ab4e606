"""Ids to logits: the transformer and what is computed with it."""
