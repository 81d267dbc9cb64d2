"""The commands of docs/first-deployment.md, as far as they can be held to the code without a cluster."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import typer
import yaml

from diffusion_api.parsing import parse_deployment
from diffusion_operator.settings_file import parse_settings
from diffusionctl.app import app

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/first-deployment.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
EXAMPLE = ROOT / "examples/digits.yaml"


def merged(wire: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A JSON merge patch that removes nothing. Source: RFC 7396."""
    changed = copy.deepcopy(wire)
    for key, value in patch.items():
        changed[key] = merged(changed.get(key, {}), value) if isinstance(value, dict) else value
    return changed


def test_every_patch_makes_another_valid_deployment() -> None:
    wire = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    patches = [json.loads(found) for found in re.findall(r"--patch '(.*)'", PAGE)]
    assert len(patches) == 2
    for patch in patches:
        assert parse_deployment(merged(wire, patch)).spec != parse_deployment(wire).spec


def test_the_file_that_is_applied_is_the_example() -> None:
    (named,) = [line.rpartition(" ")[2] for line in COMMANDS if line.startswith("$ kubectl apply")]
    assert ROOT / named == EXAMPLE


def test_every_command_of_diffusionctl_exists_with_its_options() -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    lines = [line.removeprefix("$ diffusionctl ") for line in COMMANDS if line.startswith("$ diffusionctl ")]
    assert {line.split()[0] for line in lines} == {"generate", "history", "undo"}
    for line in lines:
        options = {option for parameter in known[line.split()[0]].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", line)) <= options, line


def test_the_settings_for_a_small_cluster_are_settings() -> None:
    (small,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert parse_settings(yaml.safe_load(small)["settings"], source="small.yaml").serving.shm_size == "256Mi"
