"""Showing a run."""
