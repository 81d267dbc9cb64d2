"""Writes what the chart says twice: CRDs, the schema of its values, and its README. `python -m tools.chart generate | check`."""
