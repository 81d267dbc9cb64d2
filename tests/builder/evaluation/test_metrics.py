from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from diffusion_api.optimization import QualityBudget
from engine_builder.errors import InvalidJobError, QualityBudgetError
from engine_builder.evaluation.metrics import PerceptualModels, check_pictures, clip_score, lpips, measure, psnr, worst_first

RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)


class TinyLpips(torch.nn.Module):
    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return (first - second).abs().mean(dim=(1, 2, 3), keepdim=True)


def off_by(pictures, amount: int):
    return np.where(pictures > 127, pictures - amount, pictures + amount).astype(np.uint8)


@pytest.fixture(scope="module")
def lpips_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("lpips") / "lpips.pt"
    torch.jit.script(TinyLpips()).save(path)
    return path


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    text = {"vocab_size": len(words), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"max_position_embeddings": 12, "bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def test_psnr_of_identical_pictures_is_100() -> None:
    assert psnr(PICTURES, PICTURES).tolist() == [100.0] * 3


def test_psnr_follows_its_definition() -> None:
    assert psnr(PICTURES, off_by(PICTURES, 5)) == pytest.approx(20 * np.log10(255 / 5))


def test_the_worst_picture_is_measured_beside_the_mean() -> None:
    candidate = PICTURES.copy()
    candidate[1] = off_by(PICTURES[1], 32)
    found = measure(PICTURES, candidate, QualityBudget())
    assert found.worst_psnr == pytest.approx(20 * np.log10(255 / 32))
    assert found.psnr == pytest.approx((200 + found.worst_psnr) / 3)


def test_psnr_does_not_wrap_around_in_eight_bits() -> None:
    black, white = np.zeros((1, 8, 8, 3), np.uint8), np.full((1, 8, 8, 3), 255, np.uint8)
    assert psnr(black, white) == psnr(white, black) == pytest.approx(0)


def test_only_cheap_metrics_are_measured_unless_the_budget_asks() -> None:
    quality = measure(PICTURES, off_by(PICTURES, 5), QualityBudget(min_psnr=30))
    assert quality.psnr == pytest.approx(34.15, abs=0.01)
    assert quality.ssim is not None
    assert 0.9 < quality.ssim < 1
    assert quality.flip is quality.lpips is quality.clip_drop is None


def test_flip_is_zero_for_identical_pictures_and_grows_with_the_difference() -> None:
    budget = QualityBudget(max_flip=0.1)
    same, near, far = (measure(PICTURES, off_by(PICTURES, amount), budget).flip for amount in (0, 5, 50))
    assert same == 0
    assert near is not None
    assert far is not None
    assert 0 < near < far


def test_lpips_comes_from_the_module_that_the_user_names(lpips_file: Path) -> None:
    budget = QualityBudget(max_lpips=0.1, lpips_uri="file:///lpips.pt")
    quality = measure(PICTURES, off_by(PICTURES, 5), budget, models=PerceptualModels(lpips=lpips_file))
    assert quality.lpips == pytest.approx(5 / 127.5, rel=1e-4)


def test_a_file_that_is_no_lpips_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(b"no archive")
    with pytest.raises(InvalidJobError, match=r"lpipsUri: broken\.pt"):
        lpips(PICTURES, PICTURES, path)


def test_the_fall_of_the_clip_score_is_zero_for_identical_pictures(clip_folder: Path) -> None:
    budget = QualityBudget(max_clip_drop=1, clip_uri="file:///clip")
    prompts = ("a red digit", "a blue digit with a prompt that is far too long", "green")
    quality = measure(PICTURES, PICTURES, budget, prompts=prompts, models=PerceptualModels(clip=clip_folder))
    assert quality.clip_drop == 0


def test_clip_scores_depend_on_picture_and_prompt(clip_folder: Path) -> None:
    scores = clip_score(np.stack([PICTURES[0], 255 - PICTURES[0], PICTURES[0]]), ("red", "red", "blue"), clip_folder)
    assert len(set(scores.tolist())) > 1
    assert (scores >= 0).all()
    assert (scores <= 100).all()


def test_a_folder_that_is_no_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidJobError, match="clipUri"):
        clip_score(PICTURES, ("a", "b", "c"), tmp_path)


def test_a_limit_without_its_weights_is_an_error_and_not_a_pass() -> None:
    with pytest.raises(InvalidJobError, match="lpipsUri"):
        measure(PICTURES, PICTURES, QualityBudget(max_lpips=0.1, lpips_uri="file:///lpips.pt"))


def test_pictures_of_different_sizes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        measure(PICTURES, PICTURES[:, :8], QualityBudget())


def test_the_worst_pair_comes_first() -> None:
    candidate = PICTURES.copy()
    candidate[1] = off_by(PICTURES[1], 40)
    candidate[2] = off_by(PICTURES[2], 10)
    assert worst_first(PICTURES, candidate) == [1, 2, 0]


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (np.full((8, 8, 3), np.nan, np.float32), "NaN"),
        (np.full((8, 8, 3), np.inf, np.float32), "infinite"),
        (np.zeros((8, 8, 3), np.uint8), "have the value 0"),
        (np.full((8, 8, 3), 0.5, np.float32), "have the value 0.5"),
    ],
)
def test_a_model_that_draws_nothing_fails_the_build(picture, words: str) -> None:
    with pytest.raises(QualityBudgetError, match=f"the model draws nothing.*{words}"):
        check_pictures(picture[None])


def test_an_almost_constant_picture_fails_the_build_too() -> None:
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    picture[0, 3, 3] = 255
    with pytest.raises(QualityBudgetError, match="almost constant"):
        check_pictures(picture)


def test_the_bad_picture_of_a_batch_is_named() -> None:
    pictures = PICTURES.copy()
    pictures[2] = 7
    with pytest.raises(QualityBudgetError, match="picture 2"):
        check_pictures(pictures)
    check_pictures(PICTURES)
