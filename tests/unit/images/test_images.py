"""What the images' files promise and nothing else would notice; that the images build and run is claimed by tests with a cluster."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from diffusion_api.prepare_exit import PrepareExit
from engine_builder.fetch.local import FILES_VARIABLE
from images.build import IMAGES, ImageOptions, main

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/reference/images.md").read_text(encoding="utf-8")
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)


def dockerfile(image: str) -> str:
    return (ROOT / "images" / f"{image}.Dockerfile").read_text()


@pytest.mark.parametrize("image", IMAGES)
class TestDockerfile:
    def test_it_is_short(self, image):
        assert len(dockerfile(image).splitlines()) < 40

    def test_it_ends_as_a_user_without_rights(self, image):
        assert re.findall(r"^USER (\S+)$", dockerfile(image), re.MULTILINE) == ["1000:1000"]

    def test_every_argument_is_documented(self, image):
        for argument in {"BASE", "PREFIX", "INSTALL", "VERSION", *re.findall(r"^ARG (\w+)", dockerfile(image), re.MULTILINE)}:
            assert f"ARG {argument}" in dockerfile(image)
            assert f"| `{argument}` |" in PAGE

    def test_its_base_is_documented(self, image):
        (base,) = re.findall(r"^ARG BASE=(\S+)$", dockerfile(image), re.MULTILINE)
        assert re.search(rf"^\| `{image}` \|.*\| `{re.escape(base)}` \|$", PAGE, re.MULTILINE)

    def test_all_that_it_copies_is_there_and_let_through(self, image):
        let_through = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        for copied in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile(image), re.MULTILINE):
            for source in copied.split():
                assert (ROOT / source).exists(), source
                assert any(Path(source).is_relative_to(each) for each in let_through), source


def test_builder_and_triton_ask_for_one_tensorrt():
    wanted = {re.findall(r"^ARG TENSORRT=(\S+)$", dockerfile(image), re.MULTILINE)[0] for image in ("builder", "triton-gpu")}
    assert len(wanted) == 1


@pytest.mark.parametrize("name", ["builder", "serve", "triton-gpu"])
def test_whatever_reads_or_writes_an_engine_store_can_do_so_in_a_bucket(name):
    assert "boto3" in dict(PIN.findall((ROOT / f"requirements/{name}.txt").read_text()))


@pytest.mark.parametrize("name", ["operator", "builder"])
def test_images_get_the_versions_that_the_tests_ran_with(name):
    tested = set(PIN.findall((ROOT / "requirements/dev.txt").read_text()))
    assert set(PIN.findall((ROOT / f"requirements/{name}.txt").read_text())) <= tested, "run `make lock`"


@pytest.mark.parametrize("name", ["operator", "builder", "serve", "tritonserver", "triton-gpu"])
def test_every_package_of_an_image_is_pinned_with_a_hash_and_no_index_is_named(name):
    text = (ROOT / f"requirements/{name}.txt").read_text()
    requirements = [entry for entry in re.split(r"\n(?=\S)", text) if not entry.startswith("#")]
    assert all("==" in entry and "--hash=sha256:" in entry for entry in requirements)
    assert "://" not in text


@pytest.mark.parametrize("code", PrepareExit, ids=lambda code: code.name)
def test_every_exit_code_of_prepare_is_documented(code):
    assert f"| {code.value} | `{code.name}` |" in PAGE


def test_an_unknown_image_is_refused_with_those_there_are(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["gateway", "--output", str(tmp_path)])
    assert "no image is called gateway; use operator, builder, triton-cpu, triton-gpu" in capsys.readouterr().err


def test_names_are_those_that_pods_write():
    assert ImageOptions(tag="0.1.0").name("triton-cpu") == "localhost/diffusion-operator/triton-cpu:0.1.0"


def test_a_relative_file_uri_of_the_example_is_found_in_the_builder_image():
    uri = yaml.safe_load((ROOT / "examples/digits.yaml").read_text(encoding="utf-8"))["spec"]["model"]["uri"]
    (folder,) = re.findall(rf"^ENV {FILES_VARIABLE}=(\S+)$", dockerfile("builder"), re.MULTILINE)
    copied = dict(re.findall(r"^COPY (examples/\S+) (\S+)$", dockerfile("builder"), re.MULTILINE))
    source = "examples/" + uri.removeprefix("file://")
    assert copied[source] == f"{folder}/{uri.removeprefix('file://')}"
    assert (ROOT / source / "model_index.json").is_file()
