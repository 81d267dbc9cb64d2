"""The disk: is there room, and is what was written really there after a crash."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine_builder.errors import TransientError

RESERVE_BYTES = 64 * 2**20
"""Left free on top of what is asked for: reports, logs and the file system's own tables."""


def require_free_space(path: Path, needed_bytes: int) -> None:
    """Refuse work that would fill the disk.

    Args:
        path: Where the bytes will be written; need not exist yet.
        needed_bytes: What will be written.

    Raises:
        TransientError: The file system has less; the message says how much is missing and where. Enlarge the volume, then retry.
    """
    place = _nearest_folder(path)
    free = shutil.disk_usage(place).free
    missing = needed_bytes + RESERVE_BYTES - free
    if missing > 0:
        raise TransientError(
            f"{human_size(missing)} more disk space is needed at {place}: {human_size(needed_bytes)} are to be written and "
            f"{human_size(free)} are free; enlarge the volume or remove old artifacts from the store, then try again"
        )


@contextmanager
def full_disk_is_transient(path: Path) -> Iterator[None]:
    """Turn "no space left on device" and "disk quota exceeded" into a TransientError that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TransientError(f"the disk is full at {path}: enlarge the volume or remove old artifacts, then try again") from error


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder` to the disk, so that a rename after it never shows an empty file."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                sync(path)
        sync(Path(parent))


def sync(path: Path) -> None:
    """Flush one file or one folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size_of_tree(folder: Path) -> int:
    """Return the bytes of all files below `folder`; a link counts as itself, not as what it points to."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def human_size(size: int) -> str:
    """Return `312 B`, `4.2 KiB`, `1.5 GiB`."""
    power = min(max(size.bit_length() - 1, 0) // 10, 4)
    return f"{size} B" if power == 0 else f"{size / 1024**power:.1f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"


def _nearest_folder(path: Path) -> Path:
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.is_dir())
