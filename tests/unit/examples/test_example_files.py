from pathlib import Path

import pytest
import yaml

from diffusion_api.accelerator import CPU
from diffusion_api.checks import find_problems
from diffusion_api.deployment import DiffusionDeployment
from diffusion_api.optimization import ALGORITHMS, MODES, FormatChoice, QuantizationAlgorithm, QuantizationFormat, StepCachePolicy
from diffusion_api.parsing import parse_deployment

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = sorted(EXAMPLES.rglob("*.yaml"))
FORMATS = sorted((EXAMPLES / "formats").glob("*.yaml"))


def read(path: Path) -> DiffusionDeployment:
    return parse_deployment(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_example_is_valid(path: Path) -> None:
    deployment = read(path)
    assert deployment.metadata.name
    assert not find_problems(deployment.spec)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_checkpoints_that_an_example_names_by_file_are_beside_it(path: Path) -> None:
    uri = read(path).spec.model.uri
    if uri.startswith("file://"):
        assert (path.parent / uri.removeprefix("file://") / "model_index.json").is_file()


def test_names_are_unique_so_that_all_examples_fit_one_namespace() -> None:
    names = [read(path).metadata.name for path in FILES]
    assert len(set(names)) == len(names)


def test_the_formats_folder_has_every_format_mode_and_algorithm() -> None:
    chosen = set()
    for path in FORMATS:
        quantization = read(path).spec.optimization.quantization
        chosen.add(
            (QuantizationFormat(quantization.format), quantization.mode, quantization.algorithm or default_algorithm(quantization.format))
        )
    formats = [each for each in QuantizationFormat if each is not QuantizationFormat.NONE]
    usual = {(each, MODES[each][0], algorithm) for each in formats for algorithm in ALGORITHMS[each]}
    plain = {(each, mode, QuantizationAlgorithm.MAX) for each in formats for mode in MODES[each]}
    assert chosen == {(QuantizationFormat.NONE, None, None)} | usual | plain


def default_algorithm(format: FormatChoice) -> QuantizationAlgorithm | None:
    return None if format is FormatChoice.NONE else QuantizationAlgorithm.MAX


@pytest.mark.parametrize("path", FORMATS, ids=lambda path: path.stem)
def test_a_format_example_differs_from_its_neighbours_in_nothing_but_the_recipe_and_its_budget(path: Path) -> None:
    spec, other = read(path).spec, read(FORMATS[0]).spec
    assert spec.optimization.step_cache.policy is StepCachePolicy.NONE
    assert spec.accelerator.product == CPU
    assert (spec.model, spec.shapes, spec.optimization.calibration) == (other.model, other.shapes, other.optimization.calibration)


def test_the_file_name_says_format_and_variant() -> None:
    for path in FORMATS:
        quantization = read(path).spec.optimization.quantization
        words = path.stem.split("-")
        assert words[0] == quantization.format.value.lower()
        if words[1:]:
            assert words[1] in {variant.value.lower() for variant in (quantization.algorithm, quantization.mode) if variant}
