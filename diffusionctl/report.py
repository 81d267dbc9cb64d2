"""`diffusionctl report`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from diffusionctl.errors import UsageError
from diffusionctl.files import job_of_file
from engine_builder.build import BuildSettings, find_engine
from engine_builder.report.html import render_frontier
from engine_builder.store import Store


def write_report(files: Sequence[Path], store_folder: Path, out: Path | None, *, simulate: bool) -> None:
    """Copy one build's `report.html`, or write one page that compares several builds.

    Raises:
        UsageError: a file's engine is not in the store yet, or there is no folder for the page.
    """
    target = out or Path("report.html")
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent} to write {target.name} into; make it, or name another with --out")
    store = Store(store_folder)
    engines = []
    for file in files:
        engine = find_engine(job_of_file(file, simulate=simulate), store, BuildSettings(base_folder=file.parent))
        if engine is None:
            flag = " --simulate-verification" if simulate else ""
            raise UsageError(
                f"{file} is not built yet in {store_folder}; run `diffusionctl build {file}{flag} --store {store_folder}` first"
            )
        engines.append(engine)
    if len(engines) == 1:
        shutil.copyfile(engines[0].path / "report.html", target)
    else:
        target.write_text(render_frontier([engine.report for engine in engines]), encoding="utf-8")
    Console().print(str(target), highlight=False, soft_wrap=True)
