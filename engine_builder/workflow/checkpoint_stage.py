"""The `fetch` stage: the checkpoint, and the student laid ready as one safetensors file."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from diffusion_api.model_spec import ModelSource
from engine_builder.build import BuildSettings, EnginePlan, metric_uris
from engine_builder.evaluation.metrics import PerceptualModels
from engine_builder.fetch import check_tensor_files, fetch_checkpoint, fetch_files
from engine_builder.stage_runner import StageRunner
from engine_builder.store.checksums import measure, write_checksums

CHECKPOINT_FOLDER = "checkpoint"
STUDENT_FILE = "student.safetensors"
FACTS_FILE = "source.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is here, whole and safe to load."""

    folder: Path
    """The diffusers folder."""
    student: Path | None
    """Safetensors file that is laid over the transformer."""
    revision: str
    """Commit or digest."""
    licence: str
    size_mib: float
    digest: str
    """What decides every later stage."""


def checkpoint_stage(plan: EnginePlan, runner: StageRunner, settings: BuildSettings) -> Checkpoint:
    """Bring the checkpoint, going on where a killed download stopped; check its tensor files before anything loads them."""
    # Pinned to what the plan found: a branch that moves meanwhile must not bring other bytes under this engine's key.
    model = plan.job.model.model_copy(update={"revision": plan.revision})

    def work(folder: Path) -> None:
        fetched = fetch_checkpoint(
            model,
            folder / CHECKPOINT_FOLDER,
            base_folder=settings.base_folder,
            credentials=settings.credentials,
            progress=lambda done, total: runner.progress.advance("fetch", done, total),
        )
        check_tensor_files(folder / CHECKPOINT_FOLDER)
        if model.student is not None:
            _bring_student(model, plan.student_revision, folder, settings)
        size = sum(entry.size for path, entry in fetched.files.items() if path.endswith(".safetensors"))
        facts = {"revision": fetched.revision, "licence": fetched.licence, "weightBytes": size}
        (folder / FACTS_FILE).write_text(json.dumps(facts, indent=2) + "\n")
        known = {f"{CHECKPOINT_FOLDER}/{path}": entry for path, entry in fetched.files.items()}
        write_checksums(folder, measure(folder, known))

    student = model.student.to_wire() if model.student else None
    inputs = (place_of(model.uri), plan.revision, student, plan.student_revision)
    result = runner.run("fetch", inputs, work, label=model.uri, resume=True)
    facts = json.loads((result.path / FACTS_FILE).read_text())
    return Checkpoint(
        folder=result.path / CHECKPOINT_FOLDER,
        student=result.path / STUDENT_FILE if student else None,
        revision=facts["revision"],
        licence=facts["licence"],
        size_mib=facts["weightBytes"] / 2**20,
        digest=result.digest,
    )


def place_of(uri: str) -> str | None:
    """Return what of a URI decides the bytes beside the revision: nothing on a volume, where the revision is the digest of all bytes.

    Elsewhere it does: two folders of one repository have the same commit, and a server may know nothing of a file but its size.
    """
    return None if uri.startswith(("file://", "pvc://")) else uri


def perceptual_models(plan: EnginePlan, runner: StageRunner, settings: BuildSettings) -> PerceptualModels:
    """Bring the weights that the quality budget needs to measure LPIPS and CLIP."""
    found: dict[str, Path] = {}
    for name, uri in metric_uris(plan.job).items():
        source = ModelSource(uri=uri, revision=plan.metric_revisions[name])

        def work(folder: Path, source: ModelSource = source) -> None:
            fetch_files(source, folder / "files", base_folder=settings.base_folder, credentials=settings.credentials)

        result = runner.run("fetch", (uri, plan.metric_revisions[name]), work, label=name.upper())
        files = sorted((result.path / "files").iterdir())
        found[name] = files[0] if len(files) == 1 else result.path / "files"
    return PerceptualModels(lpips=found.get("lpips"), clip=found.get("clip"))


def _bring_student(model: ModelSource, revision: str | None, folder: Path, settings: BuildSettings) -> None:
    """Fetch the student's weights and write those of this transformer, checked by name and shape, as safetensors."""
    assert model.student is not None
    source = model.model_copy(update={"uri": model.student.uri, "revision": revision, "student": None})
    from engine_builder.fetch.overlay import write_student  # noqa: PLC0415  # Imports torch's distributed checkpoints, for seconds.

    raw, _ = fetch_files(source, folder / "student", base_folder=settings.base_folder, credentials=settings.credentials)
    write_student(raw, model.student.format, folder / CHECKPOINT_FOLDER / "transformer", folder / STUDENT_FILE)
    shutil.rmtree(folder / "student")
