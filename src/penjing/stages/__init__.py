"""Wiring: one module a stage or verb, and the list of stages."""
