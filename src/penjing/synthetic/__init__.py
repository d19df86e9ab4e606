"""The demo's own text, generated from a seed."""
