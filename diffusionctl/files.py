"""Reads a DiffusionDeployment file, and says where it is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from diffusion_api.build_job import BuildJob, Verification, build_job_for
from diffusion_api.checks import require_workable
from diffusion_api.deployment import DiffusionDeployment
from diffusion_api.parsing import InvalidSpecError, parse_deployment
from diffusionctl.errors import UsageError

KIND = "DiffusionDeployment"


def read_deployment(path: Path) -> DiffusionDeployment:
    """Read the one DiffusionDeployment of a YAML file.

    Raises:
        UsageError: no such file, no YAML, no DiffusionDeployment in it or more than one, a wrong field, or one that asks for
            what cannot be done, such as a format that the GPU has no kernels for (each is named).
    """
    documents = [document for document in _documents(path) if document is not None]
    found = [document for document in documents if _kind(document) == KIND]
    if len(found) != 1:
        raise UsageError(_not_one(path, documents, len(found)))
    try:
        deployment = parse_deployment(found[0])
        require_workable(deployment.spec)
    except InvalidSpecError as error:
        raise UsageError(_problems(path, error)) from None
    return deployment


def job_of_file(path: Path, *, simulate: bool) -> BuildJob:
    """Return the build job of a file's deployment; `simulate` checks quality in torch instead of on the engine.

    Raises:
        UsageError: See `read_deployment`.
    """
    return build_job_for(read_deployment(path).spec, verification=Verification.SIMULATED if simulate else Verification.ENGINE)


def _not_one(path: Path, documents: Sequence[object], count: int) -> str:
    """Say what is in a file instead of one DiffusionDeployment, and what to do."""
    if count > 1:
        return f"{path} holds {count} objects of kind {KIND}; give each a file of its own"
    if not documents:
        return f"{path} is empty; write one {KIND} into it, for example a copy of examples/digits.yaml"
    kinds = [_kind(document) for document in documents]
    near = next((kind for kind in kinds if get_close_matches(kind, [KIND])), None)
    if near is not None:
        return f"{path}: kind {near} is not known; did you mean {KIND}?"
    named = ", ".join(kind or "something without a kind" for kind in kinds)
    return f"{path} holds {named}, and no object of kind {KIND}; give a file with one"


def _kind(document: object) -> str:
    return str(document.get("kind") or "") if isinstance(document, dict) else ""


def _problems(path: Path, error: InvalidSpecError) -> str:
    """Put one problem on the file's line, several on a line each."""
    if len(error.problems) == 1:
        return f"{path}: {error}"
    return "\n  ".join((f"{path} has {len(error.problems)} mistakes:", *map(str, error.problems)))


def _yaml_problem(path: Path, error: yaml.YAMLError) -> str:
    """Say where YAML ends to be YAML; its own text also shows the lines, which do not fit into a sentence."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"{path} is not YAML: {' '.join(str(error).split())}"
    mark, problem = error.problem_mark, error.problem or error.context or "unreadable"
    cure = "YAML takes no tabs, indent with spaces" if r"\t" in problem else "check indentation, brackets and quotes there and just before"
    return f"{path} is not YAML: line {mark.line + 1}, column {mark.column + 1}: {problem}; {cure}"


def _documents(path: Path) -> list[Any]:
    try:
        return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None
    except yaml.YAMLError as error:
        raise UsageError(_yaml_problem(path, error)) from None
