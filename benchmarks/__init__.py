"""Measurements and full counts; nothing here is imported by the package."""
