"""One stage, in a process of its own: `python -m benchmarks.true_size.worker STAGE ARGUMENTS RESULT`."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

from benchmarks.true_size import stages
from benchmarks.true_size.sizes import Bench


def work(stage: str, arguments: list[Any]) -> dict[str, Any]:
    """Run a stage; its arguments are JSON values."""
    match stage:
        case "model":
            return stages.write_model(*arguments)
        case "quantize":
            return stages.quantize(Bench(**arguments[0]), arguments[1])
        case "export":
            return stages.export(Bench(**arguments[0]), arguments[1])
        case "compile":
            return stages.compile_piece(Bench(**arguments[0]), arguments[1])
        case _:
            raise ValueError(f"no stage {stage}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # The table is the output.
    Path(sys.argv[3]).write_text(json.dumps(work(sys.argv[1], json.loads(sys.argv[2]))))
