"""The CustomResourceDefinitions, as values, from the models.

pydantic's JSON Schema is rewritten into a structural OpenAPI v3 schema: references laid open, optional fields plain instead of "or null",
defaults as small as the API server can complete them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusion_api.base import GROUP, VERSION, ApiModel
from diffusion_api.deployment import DiffusionDeployment
from diffusion_api.engine import DiffusionEngine

Schema = dict[str, Any]
RULES = "x-kubernetes-validations"
DROPPED = ("title", "discriminator", "$defs")
KEY_ORDER = ("description", "type", "format", "pattern", "enum", "default", "minimum", "maximum", "required", "properties")
# The API server describes `metadata` itself and refuses a description here.
OBJECT_META = {
    "apiVersion": {"type": "string", "description": "Version of this object's schema."},
    "kind": {"type": "string", "description": "Kind of this object."},
    "metadata": {"type": "object"},
}


@dataclass(frozen=True)
class Column:
    """One column of `kubectl get`."""

    name: str
    """Heading."""
    json_path: str
    """Where its value is."""
    type: str = "string"
    """`string`, `integer`, `number` or `date`."""
    description: str = ""
    """What it shows."""
    priority: int = 0
    """0: always; 1: with `-o wide`."""

    def to_wire(self) -> dict[str, object]:
        """One entry of `additionalPrinterColumns`."""
        column: dict[str, object] = {"name": self.name, "type": self.type, "jsonPath": self.json_path}
        if self.description:
            column["description"] = self.description
        return column | ({"priority": self.priority} if self.priority else {})


READY = Column("Ready", '.status.conditions[?(@.type=="Ready")].status', description="Whether it works.")
AGE = Column("Age", ".metadata.creationTimestamp", "date")
DEPLOYMENT_COLUMNS = (
    READY,
    Column("Engine", ".status.engine.name", description="The engine in use."),
    Column("Recipe", ".status.recipe", description="How the model was optimized."),
    Column("Quality", ".status.qualitySummary", description="Quality against budget."),
    Column("Replicas", ".status.readyReplicas", "integer", "Serving pods that are ready."),
    Column("Accelerator", ".spec.accelerator.product", description="Where it runs."),
    AGE,
    Column("Phase", ".status.phase", description="The state in a few words.", priority=1),
    Column("Latency (ms)", ".status.latencyMilliseconds", "number", "Median latency of one picture.", priority=1),
    Column("Message", '.status.conditions[?(@.type=="Ready")].message', description="Why it is ready or not.", priority=1),
)
ENGINE_COLUMNS = (
    READY,
    Column("Phase", ".status.phase", description="The state in a few words."),
    Column("Recipe", ".status.result.recipe.label", description="How the model was optimized."),
    Column("Quality", ".status.result.qualitySummary", description="Quality against budget."),
    Column("Latency (ms)", ".status.result.latency.medianMs", "number", "Median latency of one generation."),
    Column("Accelerator", ".spec.accelerator.product", description="What it is compiled for."),
    Column("Users", ".status.users", "integer", "Deployments that use it."),
    AGE,
    Column("Model", ".spec.model.uri", description="The checkpoint.", priority=1),
    Column("Message", '.status.conditions[?(@.type=="Ready")].message', description="Why it is ready or not.", priority=1),
)
SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}


def all_crds() -> dict[str, Schema]:
    """Every CustomResourceDefinition by file name."""
    return {
        "diffusiondeployments.yaml": _crd(DiffusionDeployment, "dd", DEPLOYMENT_COLUMNS, {"status": {}, "scale": SCALE}),
        "diffusionengines.yaml": _crd(DiffusionEngine, "de", ENGINE_COLUMNS, {"status": {}}),
    }


def structural_schema(model: type[ApiModel]) -> Schema:
    """Return the OpenAPI v3 schema of a kind, as the API server accepts it."""
    generated = model.model_json_schema(by_alias=True, mode="validation")
    schema = _structural(generated, generated.get("$defs", {}))
    schema["properties"] = {**OBJECT_META, **{name: schema["properties"][name] for name in ("spec", "status")}}
    schema["required"] = ["spec"]
    return schema


def _crd(model: type[ApiModel], short_name: str, columns: tuple[Column, ...], subresources: Schema) -> Schema:
    kind = model.__name__
    singular = kind.lower()
    plural = f"{singular}s"
    names = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": singular,
        "shortNames": [short_name],
        "categories": ["diffusion"],
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [column.to_wire() for column in columns],
        "subresources": subresources,
        "schema": {"openAPIV3Schema": structural_schema(model)},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def _structural(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    schema = _laid_open(node, definitions)
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    for key in DROPPED:
        schema.pop(key, None)
    if schema.get("additionalProperties") in (False, True):
        del schema["additionalProperties"]
    for key in ("items", "additionalProperties"):
        if key in schema:
            schema[key] = _structural(schema[key], definitions)
    if "properties" in schema:
        schema["properties"] = {name: _structural(inner, definitions) for name, inner in schema["properties"].items()}
    if "default" in schema:
        schema["default"] = _smallest(schema["default"], schema)
    wanted = {key: value for key, value in schema.items() if value is not None}
    return {key: wanted[key] for key in sorted(wanted, key=_position)}


def _laid_open(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """Put what a reference or an optional type stands for in its place; what is said beside it goes before."""
    beside = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
    if "$ref" in node:
        inner = _laid_open(definitions[node["$ref"].rpartition("/")[2]], definitions)
    elif "anyOf" in node:
        (only,) = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
        inner = _laid_open(only, definitions)
    else:
        return dict(node)
    rules = [*inner.get(RULES, ()), *beside.get(RULES, ())]
    return {**inner, **beside, **({RULES: rules} if rules else {})}


def _smallest(default: Any, schema: Mapping[str, Any]) -> Any:
    """Leave out of a default what the defaults of its own fields say already; the API server fills these in after it.

    A default under a rule is kept whole, for the API server checks the rule on the default as it is written.
    """
    if isinstance(default, list):
        return [_smallest(item, schema.get("items", {})) for item in default]
    if not isinstance(default, dict) or "properties" not in schema:
        return default
    kept = {}
    for name, value in default.items():
        field = schema["properties"][name]
        small = _smallest(value, field)
        if small is not None and (RULES in schema or small != field.get("default")):
            kept[name] = small
    return kept


def _position(key: str) -> tuple[int, str]:
    return (KEY_ORDER.index(key) if key in KEY_ORDER else len(KEY_ORDER), key)
