"""The builder's exit codes and what each asks of the Job. The operator knows the builder by these, and never imports it."""

from __future__ import annotations

from enum import IntEnum

from diffusion_operator.manifests.base import Manifest

BUILDER = "builder"
"""Name of the builder's container."""


class BuilderExit(IntEnum):
    """Exit codes. Source: sysexits.h and `engine_builder.errors`; a test holds the two together."""

    USAGE = 2  # argparse: the operator called it wrongly, or the image is of another release.
    INVALID_JOB = 64
    INVALID_MODEL = 65
    QUALITY_BUDGET = 66
    UNSUPPORTED_TARGET = 69
    COMPILE = 70
    TRANSIENT = 75

    @property
    def is_retryable(self) -> bool:
        """Whether another attempt with the same job can succeed."""
        return self is BuilderExit.TRANSIENT


def is_retryable(exit_code: int | None) -> bool:
    """Tell of any exit code, or of none, whether another attempt can succeed: what the builder did not decide can get better."""
    known = {code.value: code.is_retryable for code in BuilderExit}
    return True if exit_code is None else known.get(exit_code, True)


def pod_failure_policy() -> Manifest:
    """Rules of the Job: an eviction costs no attempt, what cannot get better ends the Job, all else counts as an attempt."""
    hopeless = sorted(code.value for code in BuilderExit if not code.is_retryable)
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": BUILDER, "operator": "In", "values": hopeless}},
        ]
    }
