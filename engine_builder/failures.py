"""What a failure that no stage foresaw means for whoever started the build: each gets a sentence and one of the exit codes."""

from __future__ import annotations

import errno

from engine_builder.errors import BuildError, InvalidJobError, TransientError, UnsupportedTargetError

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
FULL = (errno.ENOSPC, errno.EDQUOT)


def as_build_error(error: Exception) -> BuildError:
    """Return the build error that an exception amounts to; what is none of the machine's doing is a bug."""
    match error:
        case BuildError():
            return error
        case ModuleNotFoundError():
            return UnsupportedTargetError(f"{error.name} is missing; `pip install diffusion-operator[builder]`")
        case OSError():
            return _of_the_system(error)
        case _ if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, which is a RuntimeError
            return UnsupportedTargetError(
                "the memory is too small for this model; give the builder more, or name fewer or smaller shapes. What is finished is kept"
            )
    return BuildError(f"{type(error).__name__}: {error}. This is a bug of the builder: report it with the traceback in its log")


def _of_the_system(error: OSError) -> BuildError:
    where = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if error.errno in NOT_WRITABLE:
        return InvalidJobError(f"{where}; give the builder a folder that it may write to")
    if error.errno in FULL:
        return TransientError(f"{where}; enlarge the volume, then try again")
    return TransientError(f"{where}; what is finished is kept, try again")
