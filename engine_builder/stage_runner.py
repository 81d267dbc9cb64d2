"""Runs a stage once: its result is an artifact named by the digest of what decides it, and comes with what it cost."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from diffusion_api.build_report import StageTiming
from engine_builder.progress import BuildProgress
from engine_builder.store import CHECKSUMS, Store, digest_of
from engine_builder.store.checksums import measure, read_checksums, write_checksums

COST_FILE = "stage.json"
# Raise when a stage's code writes something else for the same inputs, so that no old artifact is taken for a new one.
STAGE_VERSIONS = {
    "fetch": 1,
    "reference": 1,
    "quantize": 2,
    "candidate": 3,
    "step-cache": 3,
    "export": 2,
    "compile": 1,
    "verify": 2,
    "engine": 1,
}
# What else decides a result: the packages that compute it. A download stays what it is, and a compiler's version is among its inputs.
_DRAWS = ("diffusion-operator", "torch", "diffusers", "transformers")
_QUANTIZES = (*_DRAWS, "nvidia-modelopt")
TOOLS: Mapping[str, tuple[str, ...]] = {
    "reference": _DRAWS,
    "quantize": _QUANTIZES,
    "candidate": _QUANTIZES,
    "step-cache": _QUANTIZES,
    "export": (*_QUANTIZES, "onnx", "onnxscript"),
    "compile": ("diffusion-operator",),
    "verify": _QUANTIZES,
}


@dataclass(frozen=True)
class StageResult:
    """A finished stage."""

    path: Path
    """Its artifact; do not write to it."""
    digest: str
    """What decides it, for the stages that build on it."""
    reused: bool


class StageRunner:
    """Runs stages against a store and keeps their timings in order."""

    def __init__(self, store: Store, progress: BuildProgress) -> None:
        self.store = store
        self.progress = progress
        self.timings: list[StageTiming] = []

    def run(
        self, stage: str, inputs: tuple[object, ...], work: Callable[[Path], None], *, label: str = "", resume: bool = False
    ) -> StageResult:
        """Return a stage's result, doing `work(partial_folder)` only where the store lacks it.

        Args:
            stage: Stage name, a key of `STAGE_VERSIONS`.
            inputs: JSON values or contracts that decide the result, digests of earlier stages included.
            work: Writes the result into an empty folder.
            label: What is worked on, for people.
            resume: Keep what a killed run left in the folder.
        """
        digest = digest_of(stage, STAGE_VERSIONS[stage], tool_versions(TOOLS.get(stage, ())), *inputs)
        self.progress.stage_started(stage, label)
        begin = time.perf_counter()
        built = self.store.obtain(stage, digest, lambda folder: _measured(work, folder), resume=resume, on_wait=self._wait)
        timing = _read_cost(stage, built.path, reused=built.reused)
        self.timings.append(timing.model_copy(update={"name": f"{stage} {label}".strip(), "artifact": built.path.name}))
        self.progress.stage_finished(stage, time.perf_counter() - begin, reused=built.reused)
        return StageResult(built.path, digest, built.reused)

    def _wait(self, holder: str) -> None:
        self.progress.message(f"another builder ({holder}) is at this stage; waiting for its result")


@cache
def tool_versions(names: tuple[str, ...]) -> Mapping[str, str]:
    """Return the versions of packages, as far as they are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # `engine_builder.build.builder_version` refuses to build without those that are needed.
    return found


def _measured(work: Callable[[Path], None], folder: Path) -> None:
    begin = time.perf_counter()
    _reset_peak_memory()
    work(folder)
    cost = {"seconds": round(time.perf_counter() - begin, 3), "peakMemoryMib": round(peak_memory_mib(), 1)}
    (folder / COST_FILE).write_text(json.dumps(cost) + "\n")
    if (folder / CHECKSUMS).is_file():  # A download knows its checksums; hashing gigabytes again would only take time.
        write_checksums(folder, measure(folder, read_checksums(folder)))


def _read_cost(stage: str, folder: Path, *, reused: bool) -> StageTiming:
    cost = json.loads((folder / COST_FILE).read_text())
    return StageTiming(name=stage, seconds=cost["seconds"], peak_memory_mib=cost["peakMemoryMib"], reused=reused)


def _reset_peak_memory() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # 5 resets VmHWM. Source: proc(5).
    except OSError:
        return  # Not allowed here: the peak is then the process's so far.


def peak_memory_mib() -> float:
    """Return the peak resident memory of this process since the last stage began, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
