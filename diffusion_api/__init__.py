"""Data contracts shared by every package: resources, job file, build report, engine manifest.

This package imports pydantic and nothing else, so that the operator, the builder and the Triton models can all depend on it.
"""
