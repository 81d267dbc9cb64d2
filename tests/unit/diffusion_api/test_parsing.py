"""A file that is wrong is answered with every place to mend, in words that need no knowledge of the parser."""

from __future__ import annotations

import copy
import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from diffusion_api.build_job import BuildJob, build_job_for
from diffusion_api.parsing import InvalidSpecError, parse_build_job, parse_deployment, parse_engine
from tests.unit.diffusion_api.strategies import EXAMPLE, deployments

WRITE_IT = "write it as one of file:///path, hf://owner/name, https://host/path, oci://host/name:tag, pvc://claim/path, s3://bucket/path"
INCOMPLETE_URIS = ("hf://owner", "hf:///name", "https:///path", "oci://host", "pvc:///path", "s3://", "ftp://host/path")
# (path in the spec, value, the whole line that is answered)
WRONG: list[tuple[str, object, str]] = [
    ("shapes.0.width", 1000, "spec.shapes[0].width: 1000 is not a multiple of 16; use 992 or 1008"),
    ("shapes.0.height", 8, "spec.shapes[0].height: 8 is too small; use at least 16"),
    ("shapes.0.height", "64", "spec.shapes[0].height: expected a whole number, not text (64); leave out the quotes"),
    ("shapes.0.framesPerSecond", 24, "spec.shapes[0]: framesPerSecond belongs to a video; set frames as well, or leave it out"),
    ("shapes", [], "spec.shapes: needs at least 1 entry, and has 0"),
    ("shapes", "64x64", "spec.shapes: expected a list, not text (64x64)"),
    ("shapes", [3], "spec.shapes[0]: expected a mapping of fields, not a whole number (3)"),
    ("shapes", [{"width": 64, "height": 64}] * 2, "spec.shapes: the same size is listed twice; leave one out"),
    ("model.uri", None, "spec.model.uri: is required"),
    (
        "model.uri",
        "black-forest-labs/FLUX.2",
        f"spec.model.uri: black-forest-labs/FLUX.2 is no address that can be fetched; {WRITE_IT}",
    ),
    *[("model.uri", uri, f"spec.model.uri: {uri} is no address that can be fetched; {WRITE_IT}") for uri in INCOMPLETE_URIS],
    ("model.uri", "hf://" + "x" * 3000, "spec.model.uri: needs at most 2048 characters, and has 3005"),
    ("model.revision", "", "spec.model.revision: needs at least 1 character, and has 0"),
    ("model.revision", 83, "spec.model.revision: expected text, not a whole number (83); put it in quotes"),
    ("model.secretName", "HF", "spec.model.secretName: HF is no Kubernetes name; use lower-case letters, digits, '-' and '.'"),
    (
        "accelerator.product",
        "NVIDIA B200",
        "spec.accelerator.product: NVIDIA B200 is no value of a node label; use letters, digits, '-', '_' and '.', and begin and end with "
        "a letter or digit",
    ),
    ("model.secretname", "hf", "spec.model.secretname: is not a field here; did you mean secretName?"),
    ("model.secret_name", "hf", "spec.model.secret_name: is not a field here; did you mean secretName?"),
    ("model.sampling.sigmas", [0.5, 1.0], "spec.model.sampling: sigmas must descend strictly, for example [1.0, 0.75, 0.5, 0.25]"),
    ("model.sampling.sigmas.0", 2, "spec.model.sampling.sigmas[0]: 2 is too large; use at most 1"),
    (
        "optimization.quantization.format",
        "Nvfp4",
        "spec.optimization.quantization.format: Nvfp4 is not allowed; use Auto, None, INT8, FP8, MXFP8 or NVFP4; did you mean NVFP4?",
    ),
    (
        "optimization.quantization.mode",
        "Static",
        "spec.optimization.quantization: mode and algorithm are chosen by the search when format is Auto; name a format or leave them out",
    ),
    (
        "optimization.quantization.components",
        {"vae": {"format": "INT9"}},
        "spec.optimization.quantization.components.vae.format: "
        "INT9 is not allowed; use None, INT8, FP8, MXFP8 or NVFP4; did you mean INT8?",
    ),
    ("optimization.qualityBudget.minPsnr", 3, "spec.optimization.qualityBudget.minPsnr: is not a field here; did you mean minPSNR?"),
    ("optimization.qualityBudget.minPSNR", [3], "spec.optimization.qualityBudget.minPSNR: expected a number, not a list"),
    (
        "optimization.qualityBudget.minPSNR",
        float("nan"),
        "spec.optimization.qualityBudget.minPSNR: expected a finite number, not NaN",
    ),
    ("accelerator.migProfile", "1g", "spec.accelerator.migProfile: 1g is no MIG profile; write it as 1g.23gb"),
    ("accelerator.computeCapability", 10.0, "spec.accelerator.computeCapability: expected text, not a number (10.0); put it in quotes"),
    ("serving.maxBatchSize", 4.5, "spec.serving.maxBatchSize: expected a whole number, not a number (4.5)"),
    ("autoscaling.minReplicas", 9, "spec.autoscaling: minReplicas 9 is above maxReplicas 8"),
    ("rollout.paused", "yes", "spec.rollout.paused: expected true or false, not text (yes)"),
    ("rollout", [], "spec.rollout: expected a mapping of fields, not a list"),
    (
        "gpu",
        1,
        "spec.gpu: is not a field here; known are accelerator, autoscaling, model, optimization, replicas, rollout, serving, shapes",
    ),
]


def changed(path: str, value: object) -> dict[str, Any]:
    resource = copy.deepcopy(EXAMPLE)
    here: Any = resource["spec"]
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        here = here.setdefault(part, [0.5]) if isinstance(here, dict) and part == "sigmas" else here[part]
    here[last] = value
    if "sigmas" in path:
        del resource["spec"]["model"]["sampling"]["steps"]
    return resource


@pytest.mark.parametrize(("path", "value", "line"), WRONG, ids=[line for *_, line in WRONG])
def test_a_wrong_value_is_answered_with_its_path_and_the_cure(path: str, value: object, line: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        parse_deployment(changed(path, value))
    assert str(caught.value) == line


def test_the_example_of_the_design_parses() -> None:
    deployment = parse_deployment(EXAMPLE)
    assert deployment.spec.optimization.quality_budget.min_psnr == 32
    assert deployment.spec.rollout.max_surge == 0


def test_every_problem_is_listed_at_once() -> None:
    resource = changed("shapes", [{"width": 1000, "height": 1001}])
    resource["spec"]["modell"] = resource["spec"].pop("model")
    with pytest.raises(InvalidSpecError) as caught:
        parse_deployment(resource)
    assert [problem.path for problem in caught.value.problems] == [
        "spec.model",
        "spec.shapes[0].width",
        "spec.shapes[0].height",
        "spec.modell",
    ]


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_a_file_that_is_no_mapping_says_so(value: object) -> None:
    with pytest.raises(InvalidSpecError, match="expected a mapping of fields, not "):
        parse_deployment(value)


def test_the_header_is_required_and_checked() -> None:
    with pytest.raises(InvalidSpecError, match="kind: is required; write kind: DiffusionDeployment"):
        parse_deployment({key: value for key, value in EXAMPLE.items() if key != "kind"})
    with pytest.raises(InvalidSpecError, match="kind: Deployment is not allowed; use DiffusionDeployment"):
        parse_deployment({**EXAMPLE, "kind": "Deployment"})


def test_a_mapping_that_holds_itself_is_refused() -> None:
    resource = copy.deepcopy(EXAMPLE)
    resource["spec"]["model"]["sampling"] = resource
    with pytest.raises(InvalidSpecError, match="cannot be written as JSON"):
        parse_deployment(resource)


def test_a_revision_that_yaml_reads_as_a_date_is_text() -> None:
    assert parse_deployment(changed("model.revision", datetime.date(2026, 1, 31))).spec.model.revision == "2026-01-31"


def test_an_empty_field_means_its_default_as_on_the_api_server() -> None:
    assert parse_deployment(changed("serving", None)).spec.serving.max_batch_size == 8


def test_a_status_of_another_release_does_not_stop_the_operator() -> None:
    newer = {**EXAMPLE, "status": {"replicas": 3, "inventedLater": {"a": 1}}}
    status = parse_deployment(newer).status
    assert status is not None
    assert status.replicas == 3
    assert parse_deployment({**EXAMPLE, "status": {"conditions": [{"type": "InventedLater"}]}}).status is None


def test_a_build_job_parses_without_a_header_and_with_one() -> None:
    job = build_job_for(parse_deployment(EXAMPLE).spec)
    wire = job.to_wire()
    assert parse_build_job(wire) == job
    assert parse_build_job({key: value for key, value in wire.items() if key not in ("apiVersion", "kind")}) == job


def test_an_engine_hands_its_job_to_the_builder_with_the_revision_pinned() -> None:
    job = build_job_for(parse_deployment(EXAMPLE).spec)
    spec = {key: value for key, value in job.to_wire().items() if key not in ("apiVersion", "kind")}
    header = {"apiVersion": EXAMPLE["apiVersion"], "kind": "DiffusionEngine", "metadata": {"name": "engine-1"}}
    engine = parse_engine({**header, "spec": {**spec, "resolvedRevision": "fedcba"}})
    assert isinstance(engine.spec.job, BuildJob)
    assert engine.spec.job.model.revision == "fedcba"
    assert engine.spec.job.shapes == job.shapes


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(deployments)
def test_any_valid_deployment_survives_the_way_to_the_wire_and_back(resource: dict[str, Any]) -> None:
    deployment = parse_deployment(resource)
    assert parse_deployment(deployment.to_wire()) == deployment
