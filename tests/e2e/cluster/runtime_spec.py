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

    Source: https://github.com/opencontainers/runtime-spec/blob/main/config.md.
    """
    spec: dict[str, Any] = json.loads(subprocess.run(["ctr", "oci", "spec"], capture_output=True, text=True, check=True).stdout)
    # Raising a limit wants CAP_SYS_RESOURCE, which this machine's root may lack: containers keep containerd's.
    spec["process"].pop("rlimits", None)
    folders = mounted_folders()
    spec["mounts"] += [_passage(folder) for folder in closed_ancestors(folders)]
    spec["mounts"] += [_read_only(folder) for folder in folders]
    return spec


def mounted_folders() -> list[Path]:
    """Return the environments that exist, and the interpreters that they were made from."""
    environments = [folder for name in ENVIRONMENTS if (folder := layout.REPOSITORY / name).is_dir()]
    interpreters = {Path(sys.base_prefix), *(prefix for folder in environments for prefix in _interpreters(folder))}
    return sorted({*environments, *(prefix.resolve() for prefix in interpreters)} - set(_SYSTEM_PREFIXES))


def closed_ancestors(folders: list[Path]) -> list[Path]:
    """Return the outermost folders above `folders` that only their owner may enter, such as `/root`.

    A container's user is another, so an empty folder which all may enter takes the place of such an ancestor.
    """
    closed = {next((parent for parent in reversed(folder.parents) if not parent.stat().st_mode & 0o001), None) for folder in folders}
    return sorted(folder for folder in closed if folder)


def _interpreters(environment: Path) -> Iterator[Path]:
    settings = environment / "pyvenv.cfg"
    for line in settings.read_text().splitlines() if settings.is_file() else ():
        name, _, value = line.partition("=")
        if name.strip() == "home":
            yield Path(value.strip()).parent


def _passage(folder: Path) -> dict[str, Any]:
    options = ["nosuid", "nodev", "mode=0755", "size=1m"]
    return {"destination": str(folder), "type": "tmpfs", "source": "tmpfs", "options": options}


def _read_only(folder: Path) -> dict[str, Any]:
    return {"destination": str(folder), "type": "bind", "source": str(folder), "options": ["rbind", "ro", "nosuid", "nodev"]}
