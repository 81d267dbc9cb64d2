"""The key changes with everything that decides an engine, and with nothing else."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from diffusion_api.accelerator import COMPUTE_CAPABILITIES, MEMORY_GB, Accelerator
from diffusion_api.build_job import BuildJob, build_job_for
from diffusion_api.engine_key import NOT_IN_KEY, engine_key, engine_name, prompts_digest
from diffusion_api.parsing import parse_build_job, parse_deployment
from tests.unit.diffusion_api.strategies import EXAMPLE

INPUTS: dict[str, Any] = {
    "resolved_revision": "0123abc",
    "prompts_digest": prompts_digest(["a red digit seven"]),
    "compiler_version": "11.4.0.106",
    "builder": "sha256:aa",
}
JOB: dict[str, Any] = {
    "model": {"uri": "hf://owner/name", "student": {"uri": "s3://bucket/student.pth"}},
    "shapes": [{"width": 1024, "height": 1024, "frames": 9, "framesPerSecond": 24}],
    "accelerator": {"product": "NVIDIA-B200"},
    "optimization": {"quantization": {"format": "FP8"}},
}
# Another good value for every field of the job: what to lay over JOB.
CHANGES: dict[str, dict[str, Any]] = {
    "model.uri": {"model": {"uri": "hf://owner/other"}},
    "model.student": {"model": {"student": None}},
    "model.student.uri": {"model": {"student": {"uri": "s3://bucket/other.pth"}}},
    "model.student.format": {"model": {"student": {"format": "Diffusers"}}},
    "model.sampling.steps": {"model": {"sampling": {"steps": 5}}},
    "model.sampling.sigmas": {"model": {"sampling": {"sigmas": [1.0, 0.5]}}},
    "model.sampling.guidanceScale": {"model": {"sampling": {"guidanceScale": 3.5}}},
    "model.sampling.maxSequenceLength": {"model": {"sampling": {"maxSequenceLength": 128}}},
    "shapes.width": {"shapes": [{"width": 512, "height": 1024, "frames": 9, "framesPerSecond": 24}]},
    "shapes.height": {"shapes": [{"width": 1024, "height": 512, "frames": 9, "framesPerSecond": 24}]},
    "shapes.frames": {"shapes": [{"width": 1024, "height": 1024, "frames": 17, "framesPerSecond": 24}]},
    "shapes.framesPerSecond": {"shapes": [{"width": 1024, "height": 1024, "frames": 9, "framesPerSecond": 25}]},
    "optimization.quantization.format": {"optimization": {"quantization": {"format": "NVFP4"}}},
    "optimization.quantization.mode": {"optimization": {"quantization": {"mode": "Dynamic"}}},
    "optimization.quantization.algorithm": {"optimization": {"quantization": {"format": "NVFP4", "algorithm": "AWQ"}}},
    "optimization.quantization.components": {"optimization": {"quantization": {"components": {"vae": {"format": "INT8"}}}}},
    "optimization.stepCache.policy": {"optimization": {"stepCache": {"policy": "None"}}},
    "optimization.stepCache.threshold": {"optimization": {"stepCache": {"policy": "TeaCache", "threshold": 0.1}}},
    "optimization.stepCache.mask": {"optimization": {"stepCache": {"policy": "FixedMask", "mask": [True, False]}}},
    "optimization.calibration.samples": {"optimization": {"calibration": {"samples": 8}}},
    "optimization.calibration.seed": {"optimization": {"calibration": {"seed": 1}}},
    "optimization.qualityBudget.minPSNR": {"optimization": {"qualityBudget": {"minPSNR": 40}}},
    "optimization.qualityBudget.minSSIM": {"optimization": {"qualityBudget": {"minSSIM": 0.9}}},
    "optimization.qualityBudget.maxFLIP": {"optimization": {"qualityBudget": {"maxFLIP": 0.1}}},
    "optimization.qualityBudget.maxLPIPS": {"optimization": {"qualityBudget": {"maxLPIPS": 0.1, "lpipsUri": "file:///a"}}},
    "optimization.qualityBudget.lpipsUri": {"optimization": {"qualityBudget": {"lpipsUri": "file:///a"}}},
    "optimization.qualityBudget.maxClipDrop": {"optimization": {"qualityBudget": {"maxClipDrop": 1, "clipUri": "file:///a"}}},
    "optimization.qualityBudget.clipUri": {"optimization": {"qualityBudget": {"clipUri": "file:///a"}}},
    "accelerator.product": {"accelerator": {"product": "NVIDIA-GB200"}},
    "accelerator.migProfile": {"accelerator": {"migProfile": "1g.23gb"}},
    "accelerator.computeCapability": {"accelerator": {"computeCapability": "10.3"}},
    "accelerator.compiler": {"accelerator": {"compiler": "TensorRTRTX"}},
    "maxBatchSize": {"maxBatchSize": 4},
    "verification": {"verification": "Simulated"},
    # Kept out of the key: the change must not be seen.
    "model.revision": {"model": {"revision": "main"}},
    "model.secretName": {"model": {"secretName": "token"}},
    "optimization.calibration.prompts": {"optimization": {"calibration": {"prompts": ["a red digit seven"]}}},
    "optimization.calibration.promptsConfigMap": {"optimization": {"calibration": {"promptsConfigMap": {"name": "prompts"}}}},
}
UNSEEN = ("model.revision", "model.secretName", "optimization.calibration.prompts", "optimization.calibration.promptsConfigMap")
# One value is allowed, so there is nothing to change.
CONSTANT = {"apiVersion", "kind", "accelerator.count"}
# Their insides are covered by the field itself.
OPAQUE = {"optimization.quantization.components", "optimization.calibration.promptsConfigMap"}


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(base)
    for key, value in change.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
    return result


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner = next((item for item in model_types(field.annotation)), None)
        if inner is None or path in OPAQUE:
            yield path
        else:
            yield from leaves(inner, f"{path}.")


def model_types(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, tuple) or hasattr(annotation, "__metadata__"):
        for item in get_args(annotation):
            yield from model_types(item)


def key_of(job: dict[str, Any], **inputs: Any) -> str:
    return engine_key(parse_build_job(job), **{**INPUTS, **inputs})


@pytest.mark.parametrize("path", [path for path in leaves(BuildJob) if path not in CONSTANT])
def test_every_field_of_the_job_is_weighed(path: str) -> None:
    assert path in CHANGES, f"{path} is new: give another value for it in CHANGES, and decide in engine_key.py whether it is in the key"
    same = key_of(merged(JOB, CHANGES[path])) == key_of(JOB)
    assert same == (path in UNSEEN)


def test_leaving_the_student_out_changes_the_key() -> None:
    assert key_of(merged(JOB, CHANGES["model.student"])) != key_of(JOB)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resolved_revision", "fedcba"),
        ("prompts_digest", prompts_digest(["a blue digit one"])),
        ("compiler_version", "11.4.0.107"),
        ("builder", "sha256:bb"),
        ("student_digest", "sha256:cc"),
        ("instruction_set", "avx512_vnni"),
        ("builder_flags", {"calibrator": "2"}),
    ],
)
def test_every_other_input_is_weighed(name: str, value: object) -> None:
    assert key_of(JOB, **{name: value}) != key_of(JOB)


def test_the_gpus_memory_is_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(merged(JOB, {"accelerator": {"product": "NVIDIA-B200"}}))
    monkeypatch.setitem(MEMORY_GB, "NVIDIA-B200", 192)
    assert key_of(merged(JOB, {"accelerator": {"product": "NVIDIA-B200"}})) != before


@pytest.mark.parametrize(
    ("accelerator", "memory"),
    [
        ({"product": "NVIDIA-B200"}, "180GB"),
        ({"product": "NVIDIA-B200-SHARED"}, "180GB"),
        ({"product": "NVIDIA-B200-MIG-1g.23gb"}, "23GB"),
        ({"product": "NVIDIA-B200", "migProfile": "2g.45gb"}, "45GB"),
        ({"product": "Another", "computeCapability": "10.0"}, None),
        ({"product": "CPU"}, None),
    ],
)
def test_the_memory_class_is_that_of_the_product_or_of_its_slice(accelerator: dict[str, str], memory: str | None) -> None:
    assert Accelerator.model_validate(accelerator).memory_class == memory


def test_every_known_product_has_a_memory_class() -> None:
    assert MEMORY_GB.keys() == COMPUTE_CAPABILITIES.keys()


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 5},
        {"autoscaling": {"minReplicas": 2, "maxReplicas": 9, "targetPendingRequests": 7}},
        {"rollout": {"strategy": "Recreate", "paused": True}},
        {"serving": {"maxQueueDelayMicroseconds": 5, "maxPendingRequests": 5, "startupTimeoutSeconds": 50}},
        {"model": {"secretName": "another"}},
    ],
)
def test_a_serving_only_change_builds_nothing(change: dict[str, Any]) -> None:
    before = build_job_for(parse_deployment(EXAMPLE).spec)
    after = build_job_for(parse_deployment(merged(EXAMPLE, {"spec": change})).spec)
    assert engine_key(after, **INPUTS) == engine_key(before, **INPUTS)


def test_the_largest_batch_is_the_engines_own() -> None:
    after = build_job_for(parse_deployment(merged(EXAMPLE, {"spec": {"serving": {"maxBatchSize": 2}}})).spec)
    assert engine_key(after, **INPUTS) != engine_key(build_job_for(parse_deployment(EXAMPLE).spec), **INPUTS)


@pytest.mark.parametrize(
    "spelled",
    [
        {"accelerator": {"computeCapability": "10.0", "compiler": "TensorRT", "count": 1}},
        {"optimization": {"quantization": {"mode": "Static", "algorithm": "Max", "components": {"vae": {"format": "None"}}}}},
        {"optimization": {"qualityBudget": {"minPSNR": 30}, "stepCache": {"policy": "Auto"}}},
        {"model": {"sampling": {"maxSequenceLength": 512}}, "maxBatchSize": 8, "verification": "Engine"},
    ],
)
def test_a_default_spelled_out_is_the_default_left_out(spelled: dict[str, Any]) -> None:
    assert key_of(merged(JOB, spelled)) == key_of(JOB)


def test_the_whole_job_spelled_out_has_the_same_key() -> None:
    wire = parse_build_job(JOB).model_dump(mode="json", by_alias=True)
    assert key_of(wire) == key_of(JOB)


def test_steps_that_only_repeat_the_sigmas_change_nothing() -> None:
    sigmas = merged(JOB, {"model": {"sampling": {"sigmas": [1.0, 0.5]}}})
    assert key_of(merged(sigmas, {"model": {"sampling": {"steps": 2}}})) == key_of(sigmas)


@pytest.mark.parametrize(
    ("product", "key"),
    [
        ("NVIDIA-B200", "283e1f931dc8171f3157aa73104f1556a681b972fca937de6397cb8bf4e686d2"),
        ("CPU", "dcb8dfafc2f742e9b400112e524f6853daa973d6d7310b81797ccd7b41e7db39"),
    ],
)
def test_the_key_of_a_known_job_stays(product: str, key: str) -> None:
    """An accidental change of the canonical form would rebuild every engine of every cluster.

    Where old engines would be wrong, KEY_VERSION is raised; a change that concerns some jobs alone keeps the keys of the others.
    """
    assert key_of(merged(JOB, {"accelerator": {"product": product}})) == key


def test_a_name_is_a_dns_label() -> None:
    assert engine_name("ab" * 32) == "engine-abababababababab"


def test_every_field_kept_out_exists_and_says_why() -> None:
    paths = set(leaves(BuildJob))
    assert set(NOT_IN_KEY) <= paths
    assert all(NOT_IN_KEY.values())
