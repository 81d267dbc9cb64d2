"""Reads a DiffusionDeployment file, and says where it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from diffusion_api.build_job import BuildJob, Verification, build_job_for
from diffusion_api.deployment import DiffusionDeployment
from diffusion_api.parsing import InvalidSpecError, parse_deployment
from diffusionctl.errors import UsageError


def read_deployment(path: Path) -> DiffusionDeployment:
    """Read the one DiffusionDeployment of a YAML file.

    Raises:
        UsageError: no such file, no YAML, no DiffusionDeployment in it or more than one, or a wrong field (each is named).
    """
    found = [document for document in _documents(path) if isinstance(document, dict) and document.get("kind") == "DiffusionDeployment"]
    if len(found) != 1:
        raise UsageError(f"{path} holds {len(found)} objects of kind DiffusionDeployment; give a file with exactly one")
    try:
        return parse_deployment(found[0])
    except InvalidSpecError as error:
        raise UsageError(f"{path}: {error}") from None


def job_of_file(path: Path, *, simulate: bool) -> BuildJob:
    """Return the build job of a file's deployment; `simulate` checks quality in torch instead of on the engine.

    Raises:
        UsageError: See `read_deployment`.
    """
    return build_job_for(read_deployment(path).spec, verification=Verification.SIMULATED if simulate else Verification.ENGINE)


def _documents(path: Path) -> list[Any]:
    try:
        return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
