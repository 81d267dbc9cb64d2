"""Locks between processes, given back by the kernel when a process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine_builder.errors import InvalidJobError

OnWait = Callable[[str], None]
"""Told once, before waiting, who holds the lock: `host pid 123`."""


@contextmanager
def file_lock(path: Path, on_wait: OnWait | None = None) -> Iterator[None]:
    """Hold the exclusive lock of `path`, waiting for whoever has it.

    The lock is `flock(2)`: it belongs to the open file, so the kernel frees it on `kill -9` and threads of one process exclude each
    other too. The file stays behind, empty or with the last holder's name, because removing it would let two holders in.

    On NFS, Linux turns it into a byte-range lock on the server: that needs NFSv4, or NFSv3 with lockd and statd, and no mount option
    `nolock` or `local_lock=flock`. After a client's machine dies, the server waits for its lease (90 s) before the next one is let in.

    Raises:
        InvalidJobError: The file system has no locks (some FUSE mounts of object stores): put the store on another volume.

    Source: flock(2), "NFS details", and nfs(5), "local_lock".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _wait_for(descriptor, path, on_wait)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{socket.gethostname()} pid {os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def shared_file_lock(path: Path) -> Iterator[None]:
    """Hold the lock of `path` beside others that share it, waiting for whoever has it alone.

    Raises:
        InvalidJobError: See `file_lock`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _is_taken(descriptor, path, fcntl.LOCK_SH):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def try_file_lock(path: Path) -> int | None:
    """Take the lock of `path` if nobody has it; return its descriptor, whose closing frees it, or None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if _is_taken(descriptor, path):
        return descriptor
    os.close(descriptor)
    return None


def _wait_for(descriptor: int, path: Path, on_wait: OnWait | None) -> None:
    if _is_taken(descriptor, path):
        return
    if on_wait is not None:
        on_wait(os.pread(descriptor, 256, 0).decode(errors="replace") or "another process")
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_taken(descriptor: int, path: Path, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise InvalidJobError(
            f"the file system of {path.parent} has no file locks ({error.strerror}); put the store on a local disk, a block volume or NFSv4"
        ) from error
    return True
