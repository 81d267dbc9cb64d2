from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from diffusion_api.accelerator import Accelerator
from diffusion_api.deployment import MeasuredQuality
from diffusion_api.recipe import Recipe
from engine_builder.report.html import render_frontier, render_report
from engine_builder.report.pictures import MAX_SHOWN, MAX_SIDE, ReportPictures, data_uri, difference, picture_rows

VOID = {"meta", "img", "line", "circle", "polyline", "br"}


class Page(HTMLParser):
    """Checks that tags are balanced and gathers what tests ask for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action", "poster")]
        if tag == "img":
            assert dict(attrs)["alt"]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data + " "


@pytest.fixture(scope="module")
def html(report, pictures) -> str:
    return render_report(report, pictures)


def test_the_report_works_offline(html: str) -> None:
    page = Page(html)
    assert page.references
    assert all(reference.startswith("data:image/") for reference in page.references)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not re.search(r"url\(|@import|https?:", html)


def test_the_report_says_what_was_chosen_and_what_it_costs(html: str, report) -> None:
    words = Page(html).words
    for expected in (report.recipe.label, "41.2 dB", "budget ≥ 38 dB", "31 ms", "2.68×", "2.3 MiB", "0.031", "held", report.engine_key):
        assert expected in words, expected
    for stage in report.stages:
        assert stage.name in words
    for piece in report.pieces:
        assert piece.name in words
    assert "R² 0.830 over 648 pairs" in words
    assert "1 min 37 s" in words


@pytest.mark.parametrize(
    ("product", "said"), [("CPU", "Weights: of the checkpoint"), ("NVIDIA-B200", "the engine&#39;s plans, which hold weights and kernels")]
)
def test_the_report_says_what_it_compares_sizes_of(report, product: str, said: str) -> None:
    job = report.job.model_copy(update={"accelerator": Accelerator(product=product)})
    assert said in render_report(report.model_copy(update={"job": job}), None)


def test_the_report_names_the_noise_floor_and_the_machine_that_speed_was_measured_on(report, pictures) -> None:
    comparison = report.comparison.model_copy(update={"measured_on": "Zen 9, 16 cores"})
    page = render_report(report.model_copy(update={"rerun_psnr": 61.5, "comparison": comparison}), pictures)
    assert "61.5 dB" in page
    assert "on Zen 9, 16 cores" in page


def test_every_recipe_is_in_the_table(html: str, report) -> None:
    words = Page(html).words
    assert all(candidate.label in words for candidate in report.candidates)
    assert "not scored" in words
    assert html.count("<svg") == 3


def test_a_report_says_when_it_is_simulated_or_unverified(report, pictures, html: str) -> None:
    assert "Simulated." not in html
    assert "Not verified" not in html
    words = Page(
        render_report(report.model_copy(update={"simulated": True, "verified_on_engine": False, "comparison": None}), pictures)
    ).words
    assert "Simulated." in words
    assert "Not verified on an engine." in words
    assert "Its speed was not measured" in words


def test_the_worst_pair_comes_first_and_is_marked(report, pictures, html: str) -> None:
    rows = picture_rows(pictures)
    assert rows[0].prompt == "a red digit 6"
    assert [row.is_worst for row in rows] == [True, *[False] * 9]
    assert Page(html).words.count("worst pair") == 1
    assert html.count("<img") == 30


def test_a_hostile_prompt_is_shown_and_not_run(report, pictures) -> None:
    prompt = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    hostile = ReportPictures((prompt,) * 10, pictures.seeds, pictures.reference, pictures.optimized)
    page = Page(render_report(report.model_copy(update={"warnings": (prompt,), "versions": {prompt: prompt}}), hostile))
    assert prompt in page.words
    assert "script" not in page.tags
    assert all(reference.startswith("data:") for reference in page.references)


def test_a_hostile_recipe_note_is_escaped_in_plot_and_table(report, pictures) -> None:
    label = "</svg><script>alert(1)</script>"
    candidate = report.candidates[0].model_copy(update={"label": label, "note": label})
    page = Page(render_report(report.model_copy(update={"candidates": (candidate,)}), pictures))
    assert "script" not in page.tags
    assert label in page.words


def test_a_report_of_the_least_there_can_be_renders(report) -> None:
    bare = report.model_copy(
        update={
            "candidates": (),
            "pieces": (),
            "stages": (),
            "checksums": {},
            "versions": {},
            "quality": MeasuredQuality(),
            "comparison": None,
        }
    )
    page = Page(render_report(bare, None))
    assert "img" not in page.tags
    assert "not measured" in page.words


def test_the_frontier_compares_builds_fastest_first(report) -> None:
    slow = report.model_copy(update={"recipe": Recipe(), "candidates": (), "comparison": None})
    bad = report.model_copy(update={"quality": MeasuredQuality(psnr=20, flip=0.5), "simulated": True, "verified_on_engine": False})
    words = Page(render_frontier([slow, report, bad], title="Every format")).words
    assert "3 builds; 2 hold their quality budget." in words
    assert words.index("2.40×") < words.index("1.00×")
    assert "quantized model in torch, simulated" in words
    assert "broken" in words


def test_large_pictures_are_made_small_enough_to_mail() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1024, 768, 3), dtype=np.uint8)
    uri = data_uri(picture)
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < MAX_SIDE * MAX_SIDE * 3


def test_no_more_than_twelve_pairs_are_shown(report) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    many = ReportPictures(tuple("p" * 20), tuple(range(20)), noise, noise)
    assert len(picture_rows(many)) == MAX_SHOWN
    assert "8 more were measured" in render_report(report, many)


def test_the_difference_is_amplified_and_cut_at_white() -> None:
    black = np.zeros((1, 1, 3), np.uint8)
    assert difference(black, black + np.uint8(3)).max() == 24
    assert difference(black + np.uint8(200), black).max() == 255
