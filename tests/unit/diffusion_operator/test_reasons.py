"""Every reason that the API names is one that a plan can give, so that no entry of the troubleshooting page is dead."""

from __future__ import annotations

import re
from pathlib import Path

import diffusion_api.checks
import diffusion_operator.planning
from diffusion_api.conditions import Reason
from diffusion_operator.planning.plan import USUAL


def used_reasons() -> set[str]:
    files = [*Path(diffusion_operator.planning.__file__).parent.glob("*.py"), Path(diffusion_api.checks.__file__)]
    return {name for file in files if file.name != "plan.py" for name in re.findall(r"Reason\.([A-Z_]+)", file.read_text())}


def test_every_reason_is_given_somewhere():
    # INVALID_SPEC is what a problem has where it names no other.
    assert {reason.name for reason in Reason} - used_reasons() == {"INVALID_SPEC"}


def test_no_usual_reason_is_one_of_trouble():
    assert not {reason for reason in USUAL if "FAILED" in reason.name or "MISSING" in reason.name or "UNAVAILABLE" in reason.name}
