"""Turns a checkpoint into a checked, compiled engine: fetch, reference, search, export, compile, verify, package."""
