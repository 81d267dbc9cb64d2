"""What a failure that no stage foresaw means for whoever started the build: each gets a sentence and one of the exit codes."""

from __future__ import annotations

import errno
import os
import re

from engine_builder.errors import BuildError, InvalidJobError, TransientError, UnsupportedTargetError

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
FULL = (errno.ENOSPC, errno.EDQUOT)
# safetensors writes the number of an error of the system in its text; shutil.copytree the system's words.
FULL_TEXT = re.compile("|".join(rf"\(os error {number}\)|{re.escape(os.strerror(number))}" for number in FULL))
UNWRITTEN_TEXT = re.compile(r"iostream error|unexpected pos \d+|file write failed")
"""What OpenVINO's `save_model` (2026.4) and torch's `save` (2.15) say when a file could not be written whole: not why, but a full disk is
the usual reason."""


def as_build_error(error: Exception) -> BuildError:
    """Return the build error that an exception amounts to; what is none of the machine's doing is a bug."""
    match error:
        case BuildError():
            return error
        case ModuleNotFoundError():
            return UnsupportedTargetError(f"{error.name} is missing; `pip install diffusion-operator[builder]`")
        case OSError():
            return _of_the_system(error)
        case _ if is_failed_write(error):
            return TransientError(
                f"a file could not be written whole, most likely because the disk is full ({_last_line(error)}); "
                "enlarge the volume or remove old artifacts from the store, then try again: what is finished is kept"
            )
        case _ if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, which is a RuntimeError
            return UnsupportedTargetError(
                "the memory is too small for this model; give the builder more, or name fewer or smaller shapes. What is finished is kept"
            )
    return BuildError(f"{type(error).__name__}: {error}. This is a bug of the builder: report it with the traceback in its log")


def is_failed_write(error: Exception) -> bool:
    """Tell whether a library says, in an error of its own kind, that it could not write a file: safetensors, OpenVINO and torch do."""
    is_of_a_library = isinstance(error, RuntimeError) or type(error).__name__ == "SafetensorError"
    return is_of_a_library and bool(FULL_TEXT.search(str(error)) or UNWRITTEN_TEXT.search(str(error)))


def _last_line(error: Exception) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)


def _of_the_system(error: OSError) -> BuildError:
    where = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if error.errno in NOT_WRITABLE:
        return InvalidJobError(f"{where}; give the builder a folder that it may write to")
    if error.errno in FULL or FULL_TEXT.search(str(error)):
        return TransientError(f"{where}; enlarge the volume, then try again")
    return TransientError(f"{where}; what is finished is kept, try again")
