"""The reference: what the unoptimized model draws for fixed prompts and seeds, which all quality is measured against."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine_builder.errors import QualityBudgetError
from engine_builder.evaluation.metrics import Pictures, check_pictures, psnr
from engine_builder.evaluation.samples import Sample
from engine_runtime.arrays import to_numpy
from engine_runtime.errors import DegenerateOutputError
from engine_runtime.requests import GenerationRequest, GenerationResult, OnBody, OnStep

REFERENCE_FILE = "reference.json"
LATENTS_FILE = "latents.npz"
PICTURE_FOLDER = "pictures"


class Generator(Protocol):
    """What draws: `engine_runtime.generation.Engine`, over whatever runs its pieces."""

    def generate(
        self, requests: Sequence[GenerationRequest], on_step: OnStep | None = None, on_body: OnBody | None = None
    ) -> list[GenerationResult]:
        """Generate a batch of requests of one size."""


@dataclass(frozen=True)
class Drawing:
    """Pictures of a set of samples."""

    pictures: Pictures
    """UINT8 [N, H, W, 3]."""
    latents: dict[str, npt.NDArray[np.float32]]
    """Denoised latents by stream, FP32 [N, …]."""
    computed: npt.NDArray[np.bool_]
    """[N, steps]: False where the step cache left a step out."""

    @property
    def skip_ratio(self) -> float:
        """Share of steps left out."""
        return float(1 - self.computed.mean())


@dataclass(frozen=True)
class Reference:
    """The unoptimized model's drawing, and how far a second run of the same lies from it."""

    samples: tuple[Sample, ...]
    size: str
    """Name of the output size, for example `1024x1024`."""
    pictures: Pictures
    """UINT8 [N, H, W, 3]."""
    latents: dict[str, npt.NDArray[np.float32]]
    """Denoised latents by stream, FP32 [N, …]."""
    rerun_psnr: float
    """Noise floor: PSNR in dB between two identical runs; 100 where they are equal."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, one a picture."""
        return tuple(sample.prompt for sample in self.samples)


def draw(
    generator: Generator, samples: Sequence[Sample], *, size: str | None = None, batch_size: int = 8, on_body: OnBody | None = None
) -> Drawing:
    """Draw samples in order, in batches.

    Args:
        generator: The engine.
        samples: Prompts and seeds.
        size: Name of the output size; None is the engine's default.
        batch_size: Largest batch. Reference and candidate should use the same, for a batch's size may change its arithmetic.
        on_body: Called each time the transformer blocks ran.

    Raises:
        QualityBudgetError: Pictures that show nothing.
    """
    results: list[GenerationResult] = []
    for start in range(0, len(samples), batch_size):
        requests = [GenerationRequest(sample.prompt, sample.seed, size) for sample in samples[start : start + batch_size]]
        try:
            results += generator.generate(requests, on_body=on_body)
        except DegenerateOutputError as error:
            raise QualityBudgetError(f"the model draws nothing: {error}") from error
    pictures = np.stack([result.output for result in results])
    check_pictures(pictures)
    return Drawing(
        pictures=pictures.astype(np.uint8, copy=False),
        latents={stream: np.stack([to_numpy(result.latents[stream]) for result in results]) for stream in results[0].latents},
        computed=np.array([result.computed for result in results], dtype=np.bool_),
    )


def draw_reference(generator: Generator, samples: Sequence[Sample], *, size: str, batch_size: int = 8, rerun: int = 8) -> Reference:
    """Draw the reference, and its first `rerun` samples a second time for the noise floor.

    Raises:
        QualityBudgetError: The unoptimized model draws nothing.
    """
    first = draw(generator, samples, size=size, batch_size=batch_size)
    again = draw(generator, samples[:rerun], size=size, batch_size=batch_size)
    floor = float(psnr(first.pictures[: len(again.pictures)], again.pictures).mean())
    return Reference(tuple(samples), size, first.pictures, first.latents, floor)


def save_reference(reference: Reference, folder: Path) -> None:
    """Write a reference into an empty or missing folder: `reference.json`, `latents.npz` and one PNG a picture."""
    (folder / PICTURE_FOLDER).mkdir(parents=True)
    for index, picture in enumerate(reference.pictures):
        Image.fromarray(picture).save(folder / PICTURE_FOLDER / _picture_name(index))
    np.savez(folder / LATENTS_FILE, **reference.latents)  # type: ignore[arg-type]  # numpy 2.4 types `allow_pickle` into the names.
    facts = {"samples": [asdict(s) for s in reference.samples], "size": reference.size, "rerunPSNR": reference.rerun_psnr}
    (folder / REFERENCE_FILE).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_reference(folder: Path) -> Reference:
    """Read what `save_reference` wrote."""
    facts = json.loads((folder / REFERENCE_FILE).read_text(encoding="utf-8"))
    samples = tuple(Sample(**sample) for sample in facts["samples"])
    pictures = np.stack([np.asarray(Image.open(folder / PICTURE_FOLDER / _picture_name(i))) for i in range(len(samples))])
    with np.load(folder / LATENTS_FILE, allow_pickle=False) as stored:
        latents = {name: stored[name] for name in stored.files}
    return Reference(samples, facts["size"], pictures, latents, facts["rerunPSNR"])


def _picture_name(index: int) -> str:
    return f"{index:04d}.png"
