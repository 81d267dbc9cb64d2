"""Reads torch's distributed checkpoints (DCP) without the two places where torch itself would run a pickle's code.

`FileSystemReader.read_metadata` calls `pickle.load`, and the default planner calls `torch.load(weights_only=False)` for entries that
are not tensors (torch 2.15). Here the metadata may name only the classes that make it up, and only tensors are asked for.
"""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from engine_builder.errors import InvalidModelError, UnsafeModelError

METADATA = ".metadata"
ALLOWED = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", *(name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype))},
    "collections": {"OrderedDict"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath"},
    "pathlib._local": {"Path", "PosixPath", "PurePosixPath"},
}
"""Classes of a DCP's metadata; none of them does anything when it is made."""


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in ALLOWED.get(module, ()):
            raise UnsafeModelError(
                f"the student's {METADATA} names {module}.{name}, which has no business there and could run code; it was not loaded"
            )
        return super().find_class(module, name)


class SafeReader(FileSystemReader):
    """Reads a DCP folder, its metadata restricted to what metadata is made of."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Read `.metadata`.

        Raises:
            UnsafeModelError: It names anything else.
            InvalidModelError: It is damaged.
        """
        metadata = read_metadata(Path(self.path))
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def read_metadata(folder: Path) -> Metadata:
    """Read `.metadata` of a DCP folder; see `SafeReader.read_metadata`."""
    try:
        metadata = _MetadataUnpickler(io.BytesIO((folder / METADATA).read_bytes())).load()
    except (pickle.UnpicklingError, EOFError, OSError, AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
        raise InvalidModelError(f"the student's {folder.name}/{METADATA} is damaged: {error}") from error
    if not isinstance(metadata, Metadata):
        raise InvalidModelError(f"the student's {folder.name}/{METADATA} holds a {type(metadata).__name__}")
    return metadata


def dcp_folder(folder: Path) -> Path:
    """Return the DCP folder itself, or the one for the moving average (else the network) that FastGen wrote below `folder`.

    Raises:
        InvalidModelError: There is none, or there are several.
    """
    if (folder / METADATA).is_file():
        return folder
    below = sorted(path.parent for path in folder.glob(f"*/{METADATA}"))
    averages = [path for path in below if ".ema" in path.name]
    candidates = averages or [path for path in below if path.name.endswith(".net_model")]
    if len(candidates) != 1:
        names = ", ".join(path.name for path in candidates or below) or "none"
        raise InvalidModelError(
            f"the student's folder {folder.name} must hold one DCP folder, but there are: {names}; name one in student.uri"
        )
    return candidates[0]


def load_dcp(folder: Path) -> dict[str, torch.Tensor]:
    """Load all tensors of a DCP folder onto the CPU, in one process.

    Raises:
        InvalidModelError: A file is missing or damaged.
        UnsafeModelError: The metadata could run code.

    Source: `dcp_to_torch_save` in torch/distributed/checkpoint/format_utils.py does the same without the restrictions.
    """
    entries = read_metadata(folder).state_dict_metadata
    state = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in entries.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    if not state:
        raise InvalidModelError(f"the student's {folder.name} holds no tensors")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)  # As it should be: one process loads.
            load(state, storage_reader=SafeReader(os.fspath(folder)), no_dist=True)
    except UnsafeModelError:
        raise
    except (CheckpointException, RuntimeError, OSError, ValueError, AssertionError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise InvalidModelError(f"the student's {folder.name} is damaged: {str(error).splitlines()[-1]}; fetch it again") from error
    return state
