"""The chart as Helm renders it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.chart.lint import helm_path

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/diffusion-operator"
VALUES = ROOT / "tests/chart/values"
RELEASE, NAMESPACE = "painter", "pictures-system"
VARIANTS = ("default", "minimal", "everything", "bucket")

Manifest = dict[str, Any]


def helm() -> str:
    """The Helm to test with; without one the test is skipped and says so."""
    path = helm_path()
    if path is None:
        pytest.skip("no Helm: put it on PATH, or build it with `.venv/bin/python -m tests.e2e.cluster build`")
    return str(path)


@cache
def render(variant: str = "default", *settings: str, release: str = RELEASE) -> tuple[Manifest, ...]:
    """Render with a file of `values/` (or none: "default") and `--set` expressions."""
    done = run_template(variant, *settings, release=release)
    assert done.returncode == 0, done.stderr
    return tuple(each for each in yaml.safe_load_all(done.stdout) if each)


def run_template(variant: str = "default", *settings: str, release: str = RELEASE) -> subprocess.CompletedProcess[str]:
    """Run `helm template`."""
    command = [helm(), "template", release, str(CHART), "--namespace", NAMESPACE]
    command += ["--values", str(VALUES / f"{variant}.yaml")] if variant != "default" else []
    command += [part for setting in settings for part in ("--set", setting)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def of_kind(manifests: tuple[Manifest, ...], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def one(manifests: tuple[Manifest, ...], kind: str) -> Manifest:
    (found,) = of_kind(manifests, kind)
    return found


def pods(manifests: tuple[Manifest, ...]) -> Iterator[tuple[str, Manifest]]:
    """Name and spec of every pod template, wherever in a manifest it stands."""
    for manifest in manifests:
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        yield from ((name, spec) for spec in _pod_specs(manifest))


def containers(pod: Mapping[str, Any]) -> list[Manifest]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def _pod_specs(value: Any) -> Iterator[Manifest]:
    if isinstance(value, dict):
        if isinstance(value.get("containers"), list):
            yield value
        for item in value.values():
            yield from _pod_specs(item)
    elif isinstance(value, list):
        for item in value:
            yield from _pod_specs(item)
