"""Resources and observations that many tests begin with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from diffusion_api.deployment import MeasuredQuality
from diffusion_api.engine import EngineResult, RecipeSummary
from diffusion_api.parsing import parse_deployment, parse_engine
from diffusion_operator.manifests.base import Owner
from diffusion_operator.settings import OperatorSettings

NOW = datetime(2026, 8, 1, 12, 0, tzinfo=UTC)
SETTINGS = OperatorSettings()
OWNER = Owner("DiffusionDeployment", "pictures", "klein", "uid-1")
B200 = {"product": "NVIDIA-B200"}
B200_LABELS = {"nvidia.com/gpu.product": "NVIDIA-B200", "nvidia.com/gpu.compute.major": "10", "nvidia.com/gpu.compute.minor": "0"}
RESULT = EngineResult(
    artifact="artifacts/engine-0123456789abcdef",
    family="flux2-klein",
    resolved_revision="0123abc",
    recipe=RecipeSummary(label="NVFP4 + BF16, no step cache"),
    quality=MeasuredQuality(psnr=33.1),
    quality_summary="33.1 dB (≥ 32)",
    size_mib=2048.0,
    verified_on_engine=True,
)


def spec_of(**changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "model": {"uri": "hf://owner/name", "revision": "0123abc"},
        "shapes": [{"width": 1024, "height": 1024}],
        "optimization": {"qualityBudget": {"minPSNR": 32}},
        "accelerator": dict(B200),
    }
    return {**spec, **changes}


def deployment(status: dict[str, Any] | None = None, generation: int = 1, **changes: Any):
    metadata = {"name": "klein", "namespace": "pictures", "generation": generation, "uid": "uid-1"}
    resource = {"apiVersion": "diffusionoperator.io/v1alpha1", "kind": "DiffusionDeployment", "metadata": metadata}
    resource["spec"] = spec_of(**changes)
    return parse_deployment(resource | ({"status": status} if status else {}))


def engine(status: dict[str, Any] | None = None, **changes: Any):
    metadata = {"name": "engine-0123456789abcdef", "namespace": "pictures", "generation": 1, "uid": "uid-2"}
    resource = {"apiVersion": "diffusionoperator.io/v1alpha1", "kind": "DiffusionEngine", "metadata": metadata}
    resource["spec"] = spec_of(**changes)
    return parse_engine(resource | ({"status": status} if status else {}))


def settings(**changes: Any) -> OperatorSettings:
    return OperatorSettings.model_validate(changes)


def paths(value: object, prefix: str = "") -> dict[str, object]:
    """Every leaf of a manifest by its path."""
    if isinstance(value, dict) and value:
        return {path: leaf for key, item in value.items() for path, leaf in paths(item, f"{prefix}.{key}").items()}
    if isinstance(value, list) and value:
        return {path: leaf for index, item in enumerate(value) for path, leaf in paths(item, f"{prefix}[{index}]").items()}
    return {prefix: value}
