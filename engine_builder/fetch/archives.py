"""Unpacks a checkpoint that came as one tar file; nothing lands outside the folder."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path, PurePosixPath

from engine_builder.errors import InvalidModelError
from engine_builder.fetch.selection import MODEL_INDEX, checkpoint_files, parse_model_index
from engine_builder.fetch.source import safe_path
from engine_builder.store import require_free_space

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")


def unpack_checkpoint(archive: Path, destination: Path) -> tuple[str, ...]:
    """Unpack the wanted files of a diffusers folder, which may lie in a folder of the archive, and return their paths.

    Only plain files are written, by their bytes: links, devices, owners and modes of the archive are ignored.

    Raises:
        InvalidModelError: Not a tar file, no `model_index.json`, or a path that leaves the folder.
        UnsafeModelError: See `selection.checkpoint_files`.
        TransientError: The disk is too small for what is in it.
    """
    try:
        with tarfile.open(archive) as tar:
            return _unpack(tar, destination)
    except (tarfile.TarError, EOFError) as error:
        raise InvalidModelError(f"{archive.name} is damaged or not a tar file: {error}; upload it again") from error


def _unpack(tar: tarfile.TarFile, destination: Path) -> tuple[str, ...]:
    members = {safe_path(member.name): member for member in tar.getmembers() if member.isfile()}
    indexes = sorted((path for path in members if PurePosixPath(path).name == MODEL_INDEX), key=lambda path: path.count("/"))
    if not indexes:
        raise InvalidModelError(f"the archive has no {MODEL_INDEX}; pack a diffusers folder")
    root = indexes[0].removesuffix(MODEL_INDEX)
    inside = {path.removeprefix(root): member for path, member in members.items() if path.startswith(root)}
    wanted = checkpoint_files(inside, parse_model_index(_bytes_of(tar, inside[MODEL_INDEX])))
    require_free_space(destination, sum(inside[path].size for path in wanted))
    for path in wanted:
        target = destination / path
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = tar.extractfile(inside[path])
        assert stream is not None
        with stream, target.open("wb") as copy:
            shutil.copyfileobj(stream, copy, 2**20)
    return wanted


def _bytes_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None
    with stream:
        return stream.read()
