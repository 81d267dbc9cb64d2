"""`python -m tools.chart generate | check | lint`: write the chart's generated files, tell whether they are current, lint by Helm."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from diffusion_api.__main__ import CRD_HEADER
from diffusion_api.crd import all_crds
from diffusion_api.yaml_text import yaml_text
from tools.chart.dashboards import dashboards
from tools.chart.lint import lint
from tools.chart.readme import readme
from tools.chart.schema import schema_text
from tools.chart.values import CommentError, read_values

ROOT = Path(__file__).parents[2]
CHART = Path("charts/diffusion-operator")


def generated_files(root: Path) -> dict[Path, str]:
    """Text of each generated file by its path below `root`."""
    values = read_values((root / CHART / "values.yaml").read_text(encoding="utf-8"))
    chart = yaml.safe_load((root / CHART / "Chart.yaml").read_text(encoding="utf-8"))
    crds = {CHART / "files/crds" / name: CRD_HEADER + yaml_text(crd) for name, crd in all_crds().items()}
    boards = {CHART / "files/dashboards" / name: text for name, text in dashboards().items()}
    return {**crds, **boards, CHART / "values.schema.json": schema_text(values), CHART / "README.md": readme(chart, values)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; 1 says that a file is stale, that values.yaml lacks a comment, or what Helm refuses."""
    parser = argparse.ArgumentParser(prog="python -m tools.chart", description=__doc__)
    parser.add_argument("command", choices=("generate", "check", "lint"))
    parser.add_argument("--root", type=Path, default=ROOT, help="root of the repository")
    options = parser.parse_args(arguments)
    root: Path = options.root
    if options.command == "lint":
        return lint(root / CHART, root / "tests/chart/values")
    try:
        files = generated_files(root)
    except CommentError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    stale = [path for path, text in files.items() if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text]
    if options.command == "check":
        for path in stale:
            sys.stderr.write(f"{path} is not current; run `make generate` and commit it\n")
        return 1 if stale else 0
    for path in stale:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(files[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
