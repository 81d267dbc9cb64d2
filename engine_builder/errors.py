"""Errors of a build; each class is one reaction, and its exit code is the one of sysexits.h that the Job's podFailurePolicy reads.

BuildError
├── InvalidJobError         64 EX_USAGE        the job file is wrong: fix it, do not retry
├── InvalidModelError       65 EX_DATAERR      the checkpoint is wrong: fix it, do not retry
├── UnsafeModelError        65 EX_DATAERR      the checkpoint holds code: it was not run; convert it to safetensors
├── QualityBudgetError      66                 no recipe holds the budget: relax it or name another format, do not retry
├── UnsupportedTargetError  69 EX_UNAVAILABLE  the accelerator is not here or cannot run the format: change the job
├── CompileError            70 EX_SOFTWARE     the compiler refused the graph: report it
└── TransientError          75 EX_TEMPFAIL     a download, a full disk, a lock: try again
"""

from __future__ import annotations


class BuildError(Exception):
    """Base of every error that a build reports; its message tells the user what to do next."""

    exit_code = 70


class InvalidJobError(BuildError):
    """The job file is wrong."""

    exit_code = 64


class InvalidModelError(BuildError):
    """The checkpoint is wrong: incomplete, corrupted or of an unknown architecture."""

    exit_code = 65


class UnsafeModelError(InvalidModelError):
    """The checkpoint holds code, which is never run."""


class QualityBudgetError(BuildError):
    """No recipe holds the quality budget, or the model draws nothing (NaN or constant pictures)."""

    exit_code = 66


class UnsupportedTargetError(BuildError):
    """The accelerator is not on this machine, or cannot run what the job asks for."""

    exit_code = 69


class CompileError(BuildError):
    """The compiler refused the graph."""

    exit_code = 70


class TransientError(BuildError):
    """Something that may be better next time: the network, a full disk, another builder's lock."""

    exit_code = 75
