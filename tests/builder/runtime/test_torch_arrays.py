"""The loop takes torch tensors from its runners, as it does from a GPU, and draws the same as with numpy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from diffusion_api.engine_manifest import Guidance, GuidanceMode
from diffusion_api.recipe import MonotoneTable, NoStepCache, TeaCacheStepCache
from engine_runtime.errors import NotFiniteError
from engine_runtime.generation import Engine
from engine_runtime.pieces import Array, PieceRunner
from engine_runtime.requests import GenerationRequest
from tests.unit.engine_runtime import toy

LINE = MonotoneTable(x=(0.0, 1.0), y=(0.0, 1.0), r_squared=1.0, samples=2)
GUIDED = Guidance(mode=GuidanceMode.CLASSIFIER_FREE, scale=1.0)
REQUESTS = [GenerationRequest("ab", seed=1), GenerationRequest("c", seed=2, guidance_scale=2.0), GenerationRequest("ab", seed=3)]


class ReturnsTorch:
    """A runner whose outputs are torch tensors; inputs may be of either kind."""

    def __init__(self, runner: PieceRunner) -> None:
        self._runner = runner

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        outputs = self._runner({name: np.asarray(array) for name, array in inputs.items()})
        return {name: torch.from_numpy(np.array(array)) for name, array in outputs.items()}


def engine(step_cache, *, in_torch: bool) -> Engine:
    runners = toy.split_runners() if not isinstance(step_cache, NoStepCache) else toy.whole_runners()
    if in_torch:
        runners = {name: ReturnsTorch(runner) for name, runner in runners.items()}
    manifest = toy.manifest((1.0, 0.8, 0.6, 0.3, 0.0), step_cache=step_cache, guidance=GUIDED, max_batch_size=3)
    return Engine(manifest, runners, toy.constants(), toy.LetterTokenizer(), prompt_cache_size=2)


@pytest.mark.parametrize("step_cache", [NoStepCache(), TeaCacheStepCache(table=LINE, threshold=0.4)], ids=["computed", "cached"])
def test_torch_runners_draw_what_numpy_runners_draw(step_cache):
    expected = engine(step_cache, in_torch=False).generate(REQUESTS)
    results = engine(step_cache, in_torch=True).generate(REQUESTS)
    for result, wanted in zip(results, expected, strict=True):
        assert isinstance(result.latents["image"], torch.Tensor)
        np.testing.assert_array_equal(result.latents["image"].numpy(), wanted.latents["image"])
        np.testing.assert_array_equal(result.output, wanted.output)
        assert result.computed == wanted.computed


def test_nan_of_torch_runners_never_becomes_a_picture():
    nan = engine(NoStepCache(), in_torch=True)
    with pytest.raises(NotFiniteError):
        nan.generate([GenerationRequest("a", latents={"image": np.full((3, 2), np.nan, np.float32)})])
