"""What docs say by hand about names in the code, held to the code."""

import re
from pathlib import Path

import pytest
import typer
import yaml

from diffusion_api.parsing import parse_build_job, parse_deployment
from diffusion_operator.reconciling import execution
from diffusion_operator.settings import Images
from diffusionctl.app import app
from engine_builder import errors
from engine_builder.stage_runner import STAGE_VERSIONS
from engine_runtime.triton.config import PENDING_METRIC, PIPELINE_INPUTS, PIPELINE_OUTPUTS

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def yaml_blocks(page: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", text(page), re.DOTALL)


def test_the_first_picture_shows_digits_yaml_as_it_is() -> None:
    shown = [block for block in yaml_blocks("first-picture.md") if "digits-klein" in block]
    assert [yaml.safe_load(block) for block in shown] == [yaml.safe_load((ROOT / "examples/digits.yaml").read_text(encoding="utf-8"))]


def test_the_readme_example_is_the_example_file() -> None:
    """It leaves out what has a default, so the two are compared as what they mean."""
    (shown,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    example = (ROOT / "examples/digits.yaml").read_text(encoding="utf-8")
    assert parse_deployment(yaml.safe_load(shown)) == parse_deployment(yaml.safe_load(example))


def test_the_index_says_of_nothing_that_exists_that_it_is_not_there_yet() -> None:
    (missing,) = re.findall(r"^\| (.*) \| not yet", text("index.md"), re.MULTILINE)
    folders = {"operator": "operator", "chart": "charts", "images": "images", "diffusionctl": "diffusionctl"}
    assert [word for word, folder in folders.items() if (ROOT / folder).is_dir() and word in missing] == []


@pytest.mark.parametrize("page", ["index.md", "first-picture.md"])
def test_deployments_in_docs_are_valid(page: str) -> None:
    for block in yaml_blocks(page):
        assert parse_deployment(yaml.safe_load(block)).spec


def test_the_job_file_in_docs_is_valid() -> None:
    (block,) = yaml_blocks("reference/builder.md")
    assert parse_build_job(yaml.safe_load(block)).accelerator.is_cpu


def test_every_exit_code_is_documented() -> None:
    page = text("reference/builder.md")
    leaves = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.BuildError)]
    for error in set(leaves) - {errors.BuildError}:
        assert re.search(rf"^\| {error.exit_code} \| `{error.__name__}`", page, re.MULTILINE), (
            f"add {error.__name__} to reference/builder.md"
        )


@pytest.mark.parametrize("stage", STAGE_VERSIONS)
def test_every_stage_is_documented(stage: str) -> None:
    assert f"\n| {stage} |" in text("how-it-works.md")
    assert f"`{stage}`" in text("reference/builder.md")


@pytest.mark.parametrize("field", [*PIPELINE_INPUTS, *PIPELINE_OUTPUTS], ids=lambda field: field.name)
def test_every_input_and_output_of_the_pipeline_is_documented_with_its_type(field) -> None:
    data_type = field.data_type.removeprefix("TYPE_").replace("STRING", "BYTES")
    row = re.search(rf"^\| `{field.name}` \| {data_type} \| (.*)", text("reference/serving.md"), re.MULTILINE)
    assert row, f"add {field.name} {data_type} to reference/serving.md"
    assert row.group(1).startswith("optional") == field.optional


def test_every_metric_of_the_pipeline_is_documented() -> None:
    source = (ROOT / "engine_runtime/triton/metrics.py").read_text(encoding="utf-8")
    names = {PENDING_METRIC, *re.findall(r'"(diffusion_\w+)"', source)}
    assert len(names) > 1
    assert names == set(re.findall(r"`(diffusion_\w+)`", text("reference/serving.md").split("## Metrics")[1].split("##")[0]))


COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_documented(command: str) -> None:
    page = text("reference/diffusionctl.md")
    section = page.split(f"\n## {command}\n")[1].split("\n## ")[0] + page.split("\n## ")[0]
    options = {option for parameter in COMMANDS[command].params for option in parameter.opts if option.startswith("--")}
    assert {option for option in options - {"--help"} if f"`{option}" not in section} == set()


def test_every_decision_is_listed() -> None:
    pages = sorted(path.name for path in (DOCS / "decisions").glob("0*.md"))
    assert pages == re.findall(r"\]\((0.*?\.md)\)", text("decisions/index.md"))
    assert [int(page[:4]) for page in pages] == list(range(1, len(pages) + 1))


def test_the_upgrade_page_says_to_which_images_pods_roll_and_how_one_replica_answers_throughout() -> None:
    page = text("upgrade.md")
    releases = page.split("## By release")[1].split("\n## ")[0]
    (newest, *_) = [row for row in releases.splitlines() if row.startswith("| chart")]
    for image in (Images().triton_cpu, Images().triton_gpu):
        assert f"Triton images of tag {image.rpartition(':')[2]}" in newest
    assert "`spec.rollout.maxUnavailable: 0` and `maxSurge: 1`" in page


def test_the_operator_s_page_has_the_steps_of_a_plan_in_their_order() -> None:
    steps = " ".join(text("reference/operator.md").split()).split("carrying the plan out:")[1].split("Users'")[0]
    places = [steps.index(step) for step in ("deletions", "apply of what differs", "patch of the status", "events")]
    assert places == sorted(places)
    assert re.search(r"deletes, applies what differs, writes the status if it changed, tells events", execution.__doc__ or "")
