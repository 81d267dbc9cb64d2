"""What is wrong with a file or a resource, said so that its author can mend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffusion_api.conditions import Reason


@dataclass(frozen=True)
class Problem:
    """One thing to mend."""

    path: str
    """Where, for example `spec.shapes[0].width`; empty for the file as a whole."""
    message: str
    """What is wrong and what to write instead."""
    reason: Reason = Reason.INVALID_SPEC
    """Reason of the condition that reports it."""

    def __str__(self) -> str:
        """`spec.shapes[0].width: 1000 is not a multiple of 16; use 992 or 1008`."""
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidSpecError(ValueError):
    """The author of the file must change it; trying again does not help. Carries every problem that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))

    @property
    def reason(self) -> Reason:
        """Reason of the condition that reports it: that of the first problem."""
        return self.problems[0].reason
