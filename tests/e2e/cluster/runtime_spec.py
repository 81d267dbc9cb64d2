"""What every container of the cluster gets besides its image: this checkout's Python environments, read-only, where they lie here.

Images then need not carry 6 GB of torch, and hold the project's own code and nothing else. The environments' interpreters come with them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.e2e.cluster import layout

ENVIRONMENTS = (".venv", ".venv-serve", ".venv-tritonserver")
_SYSTEM_PREFIXES = (Path("/"), Path("/usr"))
"""Interpreters of the system cannot be lent: the image has files of its own there."""


def base_runtime_spec() -> dict[str, Any]:
    """Return containerd's default OCI runtime specification with the environments mounted.

    They may lie below a folder that is closed to others here, such as `/root`: in a container the images' own folder counts, which is
    open, and must not be covered, for a checkout's code lies below it too.

    Source: https://github.com/opencontainers/runtime-spec/blob/main/config.md.
    """
    spec: dict[str, Any] = json.loads(subprocess.run(["ctr", "oci", "spec"], capture_output=True, text=True, check=True).stdout)
    # Raising a limit wants CAP_SYS_RESOURCE, which this machine's root may lack: containers keep containerd's.
    spec["process"].pop("rlimits", None)
    spec["mounts"] += [_read_only(folder) for folder in mounted_folders()]
    return spec


def mounted_folders() -> list[Path]:
    """Return the environments that exist, and the interpreters that they were made from."""
    environments = [folder for name in ENVIRONMENTS if (folder := layout.REPOSITORY / name).is_dir()]
    interpreters = {Path(sys.base_prefix), *(prefix for folder in environments for prefix in _interpreters(folder))}
    return sorted({*environments, *(prefix.resolve() for prefix in interpreters)} - set(_SYSTEM_PREFIXES))


def _interpreters(environment: Path) -> Iterator[Path]:
    settings = environment / "pyvenv.cfg"
    for line in settings.read_text().splitlines() if settings.is_file() else ():
        name, _, value = line.partition("=")
        if name.strip() == "home":
            yield Path(value.strip()).parent


def _read_only(folder: Path) -> dict[str, Any]:
    return {"destination": str(folder), "type": "bind", "source": str(folder), "options": ["rbind", "ro", "nosuid", "nodev"]}
