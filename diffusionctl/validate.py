"""`diffusionctl validate`."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from diffusionctl.files import read_deployment


def validate_file(file: Path, *, as_json: bool) -> None:
    """Print that a file is right, or raise `UsageError` with every reason why not."""
    deployment = read_deployment(file)
    if as_json:
        print(json.dumps({"valid": True, "name": deployment.metadata.name}))
    else:
        Console().print(f"{file}: DiffusionDeployment {deployment.metadata.name} is valid", highlight=False)
