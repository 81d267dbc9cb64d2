"""The CRDs are structural, described throughout, and say what the parser says."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffusion_api.__main__ import generated_files, main, stale_files
from diffusion_api.crd import all_crds, structural_schema
from diffusion_api.deployment import DiffusionDeployment
from diffusion_api.engine import IMMUTABLE_SENTENCE, DiffusionEngine
from diffusion_api.parsing import InvalidSpecError, parse_deployment
from diffusion_api.yaml_text import yaml_text
from tests.unit.diffusion_api.api_server import RULES, broken_rules, evaluate, with_defaults
from tests.unit.diffusion_api.strategies import EXAMPLE, deployments

ROOT = Path(__file__).parents[3]
SCHEMAS = {model.__name__: structural_schema(model) for model in (DiffusionDeployment, DiffusionEngine)}
DEPLOYMENT = SCHEMAS["DiffusionDeployment"]
FORBIDDEN = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "not", "const", "prefixItems", "discriminator", "title", "patternProperties"}
FORBIDDEN |= {"exclusiveMinimum", "exclusiveMaximum", "definitions", "dependencies", "examples", "propertyNames"}
# (what is laid over the example's spec, the one line that both the parser and the API server's rules answer)
BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"shapes": [{"width": 1000, "height": 64}]}, "spec.shapes[0].width: 1000 is not a multiple of 16; use 992 or 1008"),
    ({"shapes": [{"width": 64, "height": 1001}]}, "spec.shapes[0].height: 1001 is not a multiple of 16; use 992 or 1008"),
    (
        {"shapes": [{"width": 64, "height": 64, "framesPerSecond": 24}]},
        "spec.shapes[0]: framesPerSecond belongs to a video; set frames as well, or leave it out",
    ),
    ({"shapes": [{"width": 64, "height": 64}] * 2}, "spec.shapes: the same size is listed twice; leave one out"),
    (
        {"shapes": [{"width": 64, "height": 64}, {"width": 64, "height": 64, "frames": 9}]},
        "spec.shapes: pictures and videos are mixed; an engine serves one or the other, so make two deployments",
    ),
    (
        {"model": {"uri": "hf://a/b", "sampling": {"sigmas": [0.5, 1]}}},
        "spec.model.sampling: sigmas must descend strictly, for example [1.0, 0.75, 0.5, 0.25]",
    ),
    (
        {"model": {"uri": "hf://a/b", "sampling": {"sigmas": [0.5, 0.5]}}},
        "spec.model.sampling: sigmas must descend strictly, for example [1.0, 0.75, 0.5, 0.25]",
    ),
    (
        {"model": {"uri": "hf://a/b", "sampling": {"sigmas": [1, 0.5], "steps": 3}}},
        "spec.model.sampling: steps is 3 but sigmas has 2 levels; leave steps out or make them agree",
    ),
    (
        {"optimization": {"quantization": {"algorithm": "Max"}}},
        "spec.optimization.quantization: mode and algorithm are chosen by the search when format is Auto; name a format or leave them out",
    ),
    (
        {"optimization": {"quantization": {"components": {"transformer": {"format": "FP8"}}}}},
        "spec.optimization.quantization: the transformer's own format is quantization.format; leave transformer out of components",
    ),
    *(
        (
            {"optimization": {"quantization": {"format": named, field: value}}},
            f"spec.optimization.quantization: {field} {value} does not exist for {named}; use {usable}",
        )
        for named, field, value, usable in (
            ("None", "mode", "Static", "no mode"),
            ("None", "algorithm", "Max", "no algorithm"),
            ("INT8", "mode", "Dynamic", "Static"),
            ("INT8", "algorithm", "AWQ", "Max or SmoothQuant"),
            ("FP8", "algorithm", "SmoothQuant", "Max"),
            ("MXFP8", "mode", "Static", "Dynamic"),
            ("MXFP8", "algorithm", "SVDQuant", "Max"),
            ("NVFP4", "algorithm", "SmoothQuant", "Max or AWQ or SVDQuant"),
        )
    ),
    (
        {"optimization": {"quantization": {"components": {"vae": {"format": "INT8", "mode": "Dynamic"}}}}},
        "spec.optimization.quantization.components.vae: mode Dynamic does not exist for INT8; use Static",
    ),
    ({"optimization": {"stepCache": {"threshold": 1}}}, "spec.optimization.stepCache: threshold belongs to policy TeaCache"),
    ({"optimization": {"stepCache": {"mask": [True] * 4}}}, "spec.optimization.stepCache: mask belongs to policy FixedMask"),
    (
        {"model": {"uri": "hf://a/b"}, "optimization": {"stepCache": {"policy": "FixedMask", "mask": [False, True]}}},
        "spec.optimization.stepCache: mask[0] must be true: the first step has no earlier residual to reuse",
    ),
    (
        {"optimization": {"stepCache": {"policy": "FixedMask", "mask": [True, False]}}},
        "spec: stepCache.mask has 2 entries, and model.sampling has 4 steps; give one entry for each step",
    ),
    (
        {
            "model": {"uri": "hf://a/b", "sampling": {"sigmas": [1, 0.5]}},
            "optimization": {"stepCache": {"policy": "FixedMask", "mask": [True]}},
        },
        "spec: stepCache.mask has 1 entries, and model.sampling has 2 steps; give one entry for each step",
    ),
    (
        {"optimization": {"calibration": {"prompts": ["a"], "promptsConfigMap": {"name": "b"}}}},
        "spec.optimization.calibration: give prompts or promptsConfigMap, not both",
    ),
    (
        {"optimization": {"qualityBudget": {"maxLPIPS": 0.1}}},
        "spec.optimization.qualityBudget: maxLPIPS needs lpipsUri, the weights to measure it with",
    ),
    (
        {"optimization": {"qualityBudget": {"maxClipDrop": 1}}},
        "spec.optimization.qualityBudget: maxClipDrop needs clipUri, the model to measure it with",
    ),
    (
        {"accelerator": {"product": "CPU", "computeCapability": "8.9"}},
        "spec.accelerator: migProfile and computeCapability belong to a GPU; leave them out for CPU",
    ),
    (
        {"accelerator": {"product": "CPU", "compiler": "TensorRT"}},
        "spec.accelerator: compiler TensorRT needs a GPU product; for CPU use OpenVINO or leave it out",
    ),
    ({"accelerator": {"product": "NVIDIA-L4", "compiler": "OpenVINO"}}, "spec.accelerator: compiler OpenVINO needs product CPU"),
    (
        {"accelerator": {"product": "NVIDIA-L4-Next"}},
        "spec.accelerator: product NVIDIA-L4-Next is not known; set computeCapability (known products: ",
    ),
    ({"autoscaling": {"minReplicas": 3}}, "spec.autoscaling: minReplicas 3 is above maxReplicas 1"),
    (
        {"rollout": {"maxUnavailable": 0}},
        "spec.rollout: maxSurge and maxUnavailable are both 0: no pod could ever be replaced; raise one of them",
    ),
]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if inner in schema:
            yield from nodes(schema[inner], f"{path}.{inner}")


NODES = [pytest.param(path, node, id=kind + path) for kind, schema in SCHEMAS.items() for path, node in nodes(schema)]


@pytest.mark.parametrize(("overlay", "line"), BROKEN, ids=[line for _, line in BROKEN])
def test_the_api_server_refuses_with_the_parsers_sentence(overlay: dict[str, Any], line: str) -> None:
    resource = copy.deepcopy(EXAMPLE)
    resource["spec"] |= overlay
    with pytest.raises(InvalidSpecError) as caught:
        parse_deployment(resource)
    assert str(caught.value).startswith(line)
    (answered,) = broken_rules(DEPLOYMENT, with_defaults(DEPLOYMENT, resource))
    assert answered == str(caught.value)


def test_every_rule_has_an_example_that_breaks_it() -> None:
    seen: set[str] = set()
    for overlay, _ in BROKEN:
        resource = copy.deepcopy(EXAMPLE)
        resource["spec"] |= overlay
        seen |= {line.split(": ", 1)[1] for line in broken_rules(DEPLOYMENT, with_defaults(DEPLOYMENT, resource))}
    rules = {rule["rule"]: rule for _, node in nodes(DEPLOYMENT["properties"]["spec"]) for rule in node.get(RULES, ())}
    unbroken = [
        text
        for text, rule in rules.items()
        if not any(sentence_start(rule) in sentence or rule.get("message") == sentence for sentence in seen)
    ]
    assert not unbroken


def sentence_start(rule: dict[str, Any]) -> str:
    """The longest piece of a rule's sentence that quotes no value."""
    expression = rule.get("messageExpression", "")
    template = json.loads(expression.rpartition(".format(")[0]) if expression else rule["message"]
    return max(template.replace("%d", "%s").split("%s"), key=len)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(deployments)
def test_the_api_server_completes_a_deployment_as_the_parser_does_and_accepts_it(resource: dict[str, Any]) -> None:
    completed = with_defaults(DEPLOYMENT, resource)
    assert completed["spec"] == parse_deployment(resource).to_wire()["spec"]
    assert not list(broken_rules(DEPLOYMENT, completed))


@pytest.mark.parametrize(("path", "node"), NODES)
def test_every_node_is_structural(path: str, node: dict[str, Any]) -> None:
    assert not FORBIDDEN & set(node)
    assert node["type"] in ("object", "array", "string", "integer", "number", "boolean")
    assert not {"properties", "additionalProperties"} <= set(node)
    assert node["type"] != "object" or path.endswith(".metadata") or {"properties", "additionalProperties"} & set(node)
    assert node["type"] != "array" or "items" in node
    assert node.get("default", "set") is not None
    assert all(isinstance(node.get(bound, 0), int | float) for bound in ("minimum", "maximum"))


@pytest.mark.parametrize(("path", "node"), [item for item in NODES if not item.values[0].endswith((".items", ".additionalProperties"))])  # type: ignore[union-attr]
def test_every_field_is_described(path: str, node: dict[str, Any]) -> None:
    if not path.endswith(".metadata"):  # The API server describes this one itself and refuses another description.
        assert len(node.get("description", "")) >= 5


@pytest.mark.parametrize(("path", "node"), [item for item in NODES if str(item.values[0]).startswith(".spec")])
def test_every_size_in_a_spec_is_bounded_so_that_the_cost_of_rules_is(path: str, node: dict[str, Any]) -> None:
    match node["type"]:
        case "string":
            assert "maxLength" in node or "enum" in node or len(node["pattern"]) < 30
        case "array":
            assert "maxItems" in node
        case "integer" | "number":
            assert {"minimum", "maximum"} <= set(node)
        case "object":
            assert "properties" in node or "maxProperties" in node


def test_an_engines_spec_never_changes_and_a_deployments_may() -> None:
    (rule,) = [rule for rule in SCHEMAS["DiffusionEngine"]["properties"]["spec"][RULES] if "oldSelf" in rule["rule"]]
    assert rule["message"] == IMMUTABLE_SENTENCE
    assert evaluate(rule["rule"], {"a": [1]}, {"a": [1]})
    assert not evaluate(rule["rule"], {"a": [1]}, {"a": [2]})
    assert "oldSelf" not in json.dumps(DEPLOYMENT)


@pytest.mark.parametrize(("name", "cure"), [("a" * 53, "shorten it"), ("a.b", "write '-' instead")])
def test_a_name_that_services_cannot_carry_is_refused(name: str, cure: str) -> None:
    resource = {**EXAMPLE, "metadata": {"name": name}}
    (answered,) = broken_rules(DEPLOYMENT, with_defaults(DEPLOYMENT, resource))
    assert cure in answered
    with pytest.raises(InvalidSpecError, match=r"metadata\.name"):
        parse_deployment(resource)


def test_conditions_merge_by_type_under_server_side_apply() -> None:
    for schema in SCHEMAS.values():
        conditions = schema["properties"]["status"]["properties"]["conditions"]
        assert conditions["x-kubernetes-list-type"] == "map"
        assert conditions["x-kubernetes-list-map-keys"] == ["type"]
        assert set(conditions["items"]["required"]) >= {"type", "status", "reason", "lastTransitionTime"}
        assert "enum" not in conditions["items"]["properties"]["reason"]


def test_what_kubectl_shows_exists_in_the_schema() -> None:
    for crd in all_crds().values():
        (version,) = crd["spec"]["versions"]
        schema = version["schema"]["openAPIV3Schema"]
        paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]] + list(
            version["subresources"].get("scale", {}).values()
        )
        known = {path for path, _ in nodes(schema)} | {".metadata.creationTimestamp"}
        assert not [path for path in paths if path.partition("[?")[0] not in known]


def test_the_columns_tell_the_story() -> None:
    (version,) = all_crds()["diffusiondeployments.yaml"]["spec"]["versions"]
    shown = [column["name"] for column in version["additionalPrinterColumns"] if "priority" not in column]
    assert shown == ["Ready", "Engine", "Recipe", "Quality", "Replicas", "Accelerator", "Age"]


def test_the_generated_files_are_current() -> None:
    assert not stale_files(ROOT), "run `make generate` and commit what it writes"


def test_generate_writes_what_check_then_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--root", str(tmp_path)]) == 1
    assert "run `make generate`" in capsys.readouterr().err
    assert main(["generate", "--root", str(tmp_path)]) == 0
    assert main(["check", "--root", str(tmp_path)]) == 0


def test_the_written_crds_read_back_equal() -> None:
    files = generated_files()
    for name, crd in all_crds().items():
        assert yaml.safe_load(files[f"crds/{name}"]) == crd


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="\ufeff\ufffe\uffff")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "yes", "b c", "1", "x: y", "- z"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(json_values)
def test_any_value_is_written_so_that_it_reads_back_equal(value: Any) -> None:
    assert yaml.safe_load(yaml_text(value)) == value


@pytest.mark.parametrize("text", ["yes", "Null", "1e3", "0x1f", "a: b", "a #b", "- a", "é", "", " a", "2026-01-31", "a.", "=", "~"])
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    assert yaml.safe_load(yaml_text({text: [text]})) == {text: [text]}
