"""Brings checkpoints here: resolved to a revision, resumed, verified, and never run."""
