"""Measurements: each module prints a table with the peer's figure beside ours, from one run."""
