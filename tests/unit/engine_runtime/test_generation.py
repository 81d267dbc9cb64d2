"""Claims about the denoising loop, checked against arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_api.engine_manifest import Guidance, GuidanceMode
from diffusion_api.recipe import FixedMaskStepCache, MonotoneTable, TeaCacheStepCache
from engine_runtime.errors import DegenerateOutputError, EngineFilesError, GenerationCancelledError, InvalidRequestError, NotFiniteError
from engine_runtime.generation import Engine
from engine_runtime.requests import BodyEvent, GenerationRequest, StepEvent
from tests.unit.engine_runtime import toy

LINE = MonotoneTable(x=(0.0, 1.0), y=(0.0, 1.0), r_squared=1.0, samples=2)


def engine(runners=None, *, sigmas=(1.0, 0.5, 0.0), **changes) -> Engine:
    return Engine(toy.manifest(sigmas, **changes), runners or toy.whole_runners(), toy.constants(), toy.LetterTokenizer())


def condition(prompt: str) -> np.float32:
    return toy.LetterTokenizer()([prompt]).input_ids.astype(np.float32).mean()


def test_the_loop_is_eulers_method():
    noise = np.arange(6, dtype=np.float32).reshape(3, 2)
    (result,) = engine().generate([GenerationRequest("ab", latents={"image": noise})])
    x = noise
    for sigma, following in ((1.0, 0.5), (0.5, 0.0)):
        x = x + np.float32(following - sigma) * (2 * x + condition("ab") + np.float32(sigma))
    np.testing.assert_array_equal(result.latents["image"], x)
    assert result.latents["image"].dtype == np.float32
    assert result.computed == (True, True)


def test_seeds_out_of_range_are_refused_with_the_range():
    with pytest.raises(InvalidRequestError, match="use 0 to 9223372036854775807"):
        engine().generate([GenerationRequest("a", seed=-1)])


def test_three_pieces_draw_the_same_as_one():
    request = GenerationRequest("abc", seed=3)
    (whole,) = engine().generate([request])
    (split,) = engine(toy.split_runners()).generate([request])
    np.testing.assert_array_equal(whole.latents["image"], split.latents["image"])


def test_a_batch_draws_what_each_request_draws_alone():
    requests = [GenerationRequest("ab", seed=1), GenerationRequest("c", seed=2), GenerationRequest("ab", seed=3)]
    together = engine().generate(requests)
    for request, result in zip(requests, together, strict=True):
        (alone,) = engine().generate([request])
        np.testing.assert_array_equal(result.latents["image"], alone.latents["image"])
        np.testing.assert_array_equal(result.output, alone.output)
        assert result.seed == request.seed


def test_equal_prompts_of_a_batch_are_encoded_once():
    runners = toy.whole_runners()
    engine(runners).generate([GenerationRequest("ab"), GenerationRequest("c"), GenerationRequest("ab")])
    assert runners["text_encoder"].batches == [2]


def test_cached_prompts_are_not_encoded_again():
    runners = toy.whole_runners()
    cached = Engine(toy.manifest(), runners, toy.constants(), toy.LetterTokenizer(), prompt_cache_size=2)
    for prompt in ("a", "b", "a", "c", "a", "b"):
        cached.encode([prompt])
    assert len(runners["text_encoder"].batches) == 4  # "a", "b", "c", and "b" again: it went when "c" came.
    assert (cached.prompt_cache.hits, cached.prompt_cache.misses) == (2, 4)


def test_no_piece_sees_more_rows_than_it_takes():
    runners = toy.whole_runners()
    requests = [GenerationRequest("ab", seed=seed) for seed in range(5)]
    small = engine(runners, max_batch_size=2).generate(requests)
    assert runners["transformer"].batches == [2, 2, 1] * 2
    for part, whole in zip(small, engine().generate(requests), strict=True):
        np.testing.assert_array_equal(part.latents["image"], whole.latents["image"])


def test_classifier_free_guidance_moves_away_from_the_empty_prompt():
    noise = np.ones((3, 2), np.float32)
    guidance = Guidance(mode=GuidanceMode.CLASSIFIER_FREE, scale=3.0)
    (result,) = engine(guidance=guidance, sigmas=(1.0, 0.0)).generate([GenerationRequest("ab", latents={"image": noise})])
    positive, negative = 2 * noise + condition("ab") + 1, 2 * noise + 1
    np.testing.assert_allclose(result.latents["image"], noise - (negative + 3 * (positive - negative)))


def test_only_guided_requests_cost_a_second_evaluation():
    runners = toy.whole_runners()
    guided = engine(runners, guidance=Guidance(mode=GuidanceMode.CLASSIFIER_FREE, scale=1.0), sigmas=(1.0, 0.0))
    requests = [GenerationRequest("a"), GenerationRequest("b", guidance_scale=2.0), GenerationRequest("c", guidance_scale=1.0)]
    results = guided.generate(requests)
    assert runners["transformer"].batches == [4]
    for request, result in zip(requests, results, strict=True):
        np.testing.assert_array_equal(result.latents["image"], guided.generate([request])[0].latents["image"])


def test_embedded_guidance_is_an_input_of_the_denoiser():
    seen = []

    def denoiser(inputs):
        seen.append(inputs["guidance"].tolist())
        return {"sample": inputs["hidden_states"]}

    embedded = Guidance(mode=GuidanceMode.EMBEDDED, scale=4.0)
    runners = toy.whole_runners() | {"transformer": denoiser}
    engine(runners, guidance=embedded, sigmas=(1.0, 0.0)).generate([GenerationRequest("a"), GenerationRequest("a", guidance_scale=2.5)])
    assert seen == [[4.0, 2.5]]


def test_a_step_left_out_adds_the_last_residual():
    runners = toy.split_runners()
    noise = np.ones((3, 2), np.float32)
    cached = engine(runners, step_cache=FixedMaskStepCache(mask=(True, False)))
    (result,) = cached.generate([GenerationRequest("ab", latents={"image": noise})])
    residual = noise + condition("ab")  # y − x of the first step.
    first = noise - np.float32(0.5) * (2 * noise + condition("ab") + 1)
    second = first - np.float32(0.5) * (first + residual + np.float32(0.5))
    np.testing.assert_array_equal(result.latents["image"], second)
    assert result.computed == (True, False)
    assert (result.steps_computed, result.steps_skipped) == (1, 1)
    assert [len(runners[name].batches) for name in ("transformer_prelude", "transformer_body", "transformer_head")] == [2, 1, 2]


def test_each_request_of_a_batch_has_its_own_step_cache():
    """The indicator's change is the prompt's: requests for which it is large are computed, the others are not."""

    def prelude(inputs):
        fast = inputs["condition"].mean((1, 2)) > 1
        indicator = np.where(fast, inputs["timestep"] + np.float32(0.01), np.float32(1)).reshape(-1, 1, 1)
        return {"x": inputs["hidden_states"], "temb": inputs["timestep"], "indicator": indicator}

    runners = toy.split_runners() | {"transformer_prelude": prelude}
    tea = TeaCacheStepCache(table=LINE, threshold=0.3)
    cached = engine(runners, sigmas=(1.0, 0.8, 0.6, 0.4, 0.0), step_cache=tea)
    requests = [GenerationRequest("a", seed=1), GenerationRequest("zz", seed=2), GenerationRequest("zzzz", seed=3)]
    together = cached.generate(requests)
    assert [result.computed for result in together] == [(True, False, False, False), (True, False, True, True), (True, False, True, True)]
    assert runners["transformer_body"].batches == [3, 2, 2]
    for request, result in zip(requests, together, strict=True):
        np.testing.assert_array_equal(result.latents["image"], cached.generate([request])[0].latents["image"])


def test_guided_requests_decide_once_for_both_of_their_rows():
    runners = toy.split_runners()
    guidance = Guidance(mode=GuidanceMode.CLASSIFIER_FREE, scale=2.0)
    engine(runners, guidance=guidance, step_cache=FixedMaskStepCache(mask=(True, False))).generate([GenerationRequest("a")])
    assert runners["transformer_body"].batches == [2]
    assert runners["transformer_head"].batches == [2, 2]


def test_the_body_can_be_observed_for_calibration():
    events: list[BodyEvent] = []
    engine(toy.split_runners()).generate([GenerationRequest("a"), GenerationRequest("b")], on_body=events.append)
    assert [(event.step, event.rows) for event in events] == [(0, (0, 1)), (1, (0, 1))]
    assert events[1].indicator.ravel().tolist() == [0.5, 0.5]
    assert events[0].residuals["image"].shape == (2, 3, 2)


def test_observing_the_body_needs_it_as_a_piece():
    with pytest.raises(ValueError, match="transformer_body"):
        engine().generate([GenerationRequest("a")], on_body=lambda event: None)


def test_the_last_prediction_is_the_picture():
    events: list[StepEvent] = []
    (result,) = engine().generate([GenerationRequest("a", seed=5)], on_step=events.append)
    assert [(event.step, event.steps) for event in events] == [(0, 2), (1, 2)]
    np.testing.assert_array_equal(events[-1].predictions["image"][0], result.latents["image"])
    np.testing.assert_array_equal(events[-1].latents["image"][0], result.latents["image"])


def test_a_step_observer_can_stop_the_generation():
    runners = toy.whole_runners()

    def stop(event):
        raise GenerationCancelledError("gone")

    with pytest.raises(GenerationCancelledError):
        engine(runners).generate([GenerationRequest("a")], on_step=stop)
    assert len(runners["transformer"].batches) == 1
    assert runners["vae_decoder"].batches == []


def test_nan_never_becomes_a_picture():
    runners = toy.whole_runners()
    runners["transformer"] = toy.Recorder(lambda inputs: {"sample": inputs["hidden_states"] * np.float32(np.nan)})
    with pytest.raises(NotFiniteError, match="request 0, 1 of the batch"):
        engine(runners).generate([GenerationRequest("a"), GenerationRequest("b")])
    assert runners["vae_decoder"].batches == []


def decoder(pictures):
    return toy.whole_runners() | {"vae_decoder": toy.Recorder(lambda inputs: {"image": pictures})}


def test_a_picture_of_one_value_is_an_error_not_a_result():
    pictures = np.arange(2 * 40 * 60 * 3).reshape(2, 40, 60, 3).astype(np.uint8)
    pictures[1] = 0
    with pytest.raises(DegenerateOutputError, match="one value everywhere, as NaN becomes, for request 1 of the batch"):
        engine(decoder(pictures)).generate([GenerationRequest("a"), GenerationRequest("b")])


def test_one_value_that_differs_makes_a_picture():
    pictures = np.zeros((1, 40, 60, 3), np.uint8)
    pictures[0, 17, 31, 1] = 1
    (result,) = engine(decoder(pictures)).generate([GenerationRequest("a")])
    assert result.output.sum() == 1


def test_nan_of_a_decoder_that_does_not_round_is_an_error():
    waves = np.zeros((1, 40, 2), np.float32)
    (result,) = engine(decoder(waves)).generate([GenerationRequest("a")])  # Silence is sound.
    assert result.output.shape == (40, 2)
    with pytest.raises(NotFiniteError, match="decoder of stream image gave NaN"):
        engine(decoder(np.where(np.arange(2) == 1, np.float32(np.nan), waves))).generate([GenerationRequest("a")])


def test_an_unknown_size_lists_those_there_are():
    with pytest.raises(InvalidRequestError, match="size 20x20 is not served; use one of 16x16, 32x16"):
        engine().generate([GenerationRequest("a", size="20x20")])


def test_a_batch_has_one_size():
    with pytest.raises(InvalidRequestError, match="one size"):
        engine().generate([GenerationRequest("a"), GenerationRequest("a", size="32x16")])


def test_latents_of_another_size_are_refused_with_the_axes_needed():
    with pytest.raises(InvalidRequestError, match=r"needs \(3, 2\)"):
        engine().generate([GenerationRequest("a", latents={"image": np.zeros((4, 2), np.float32)})])


def test_a_cut_prompt_is_told():
    results = engine().generate([GenerationRequest("abcde"), GenerationRequest("abcd")])
    assert [result.prompt_was_cut for result in results] == [True, False]


def test_a_step_cache_needs_the_transformer_in_pieces():
    with pytest.raises(EngineFilesError, match="the step cache needs transformer_prelude"):
        engine(step_cache=FixedMaskStepCache(mask=(True, False)))


def test_pictures_have_the_axes_of_the_size():
    (result,) = engine().generate([GenerationRequest("a", size="32x16")])
    assert result.size == "32x16"
    assert result.output.dtype == np.uint8
    assert result.output.shape == (1, 6, 3)
