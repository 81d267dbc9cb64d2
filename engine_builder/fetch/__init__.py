"""Brings checkpoints here: resolved to a revision, resumed, verified, and never run."""

from engine_builder.fetch.checkpoint import FetchedCheckpoint, fetch_checkpoint, fetch_files, resolve_revision
from engine_builder.fetch.tensor_files import TensorInfo, check_tensor_files

__all__ = ["FetchedCheckpoint", "TensorInfo", "check_tensor_files", "fetch_checkpoint", "fetch_files", "resolve_revision"]
