"""One stage, in a process of its own: `python -m benchmarks.true_size.worker STAGE ARGUMENTS RESULT`."""

from __future__ import annotations

import json
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.true_size.sizes import Bench, Facts


def work(stage: str, arguments: Any) -> Facts:
    """Run a stage, importing what it needs alone; its arguments are JSON values."""
    facts: Facts
    match stage:
        case "model":
            facts = import_module("benchmarks.true_size.checkpoint").write_model(*arguments)
        case "quantize" | "export":
            facts = getattr(import_module("benchmarks.true_size.stages"), stage)(Bench(**arguments[0]), arguments[1])
        case "compile":
            facts = import_module("benchmarks.true_size.compilation").compile_piece(Bench(**arguments[0]), arguments[1])
        case _:
            raise ValueError(f"no stage {stage}")
    return facts


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # The table is the output.
    Path(sys.argv[3]).write_text(json.dumps(work(sys.argv[1], json.loads(sys.argv[2]))))
