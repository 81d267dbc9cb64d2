"""Labels of children. Selectors never change after creation, so they are the smallest sets that tell pods apart."""

from __future__ import annotations

from diffusion_api.base import GROUP

PREFIX = GROUP
DEPLOYMENT = f"{PREFIX}/deployment"
REVISION = f"{PREFIX}/revision"
ENGINE = f"{PREFIX}/engine"
RETRY_ANNOTATION = f"{PREFIX}/retry"
"""On a DiffusionEngine; another text asks for another attempt."""
COMPONENT = "app.kubernetes.io/component"
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "diffusion-operator"
SERVING = "serving"
BUILDER = "builder"


def serving_labels(deployment: str) -> dict[str, str]:
    """Labels of an object that serves a deployment."""
    return {**_common("triton", deployment, SERVING), DEPLOYMENT: deployment}


def revision_labels(deployment: str, revision: str, engine: str) -> dict[str, str]:
    """Labels of a revision and of its pods."""
    return {**serving_labels(deployment), REVISION: revision, ENGINE: engine}


def engine_labels(engine: str) -> dict[str, str]:
    """Labels of a builder's objects and pods."""
    return {**_common("engine-builder", engine, BUILDER), ENGINE: engine}


def managed_labels() -> dict[str, str]:
    """Labels of an object that the operator makes, is shared, and belongs to nobody."""
    return {MANAGED_BY: MANAGER, "app.kubernetes.io/part-of": MANAGER}


def serving_selector(deployment: str) -> dict[str, str]:
    """Selects the serving pods of every revision of a deployment."""
    return {DEPLOYMENT: deployment, COMPONENT: SERVING}


def revision_selector(deployment: str, revision: str) -> dict[str, str]:
    """Selects the serving pods of one revision."""
    return {**serving_selector(deployment), REVISION: revision}


def builder_selector(engine: str) -> dict[str, str]:
    """Selects the builder pods of an engine."""
    return {ENGINE: engine, COMPONENT: BUILDER}


def selector_text(selector: dict[str, str]) -> str:
    """`a=b,c=d`, as the scale subresource wants it."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items()))


def _common(name: str, instance: str, component: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/instance": instance, COMPONENT: component, **managed_labels()}
