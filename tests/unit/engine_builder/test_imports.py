"""What a build imports before it knows what is left to do: a rebuild whose stages are mostly in the store spends its time on imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="the workflow needs the builder's packages")

HEAVY = ("modelopt", "onnxscript", "onnxruntime", "sklearn", "diffusers", "transformers", "torch.distributed.checkpoint")


def test_the_workflow_imports_a_library_only_in_the_stage_that_needs_it() -> None:
    code = f"import sys, engine_builder.workflow; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
