"""The engine key: SHA-256 of everything that decides an engine's bits or its validity, and of nothing else.

Defaults that are spelled out and defaults that are left out give the same key; so do two ways to say the same thing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from diffusion_api.build_job import BuildJob
from diffusion_api.optimization import MODES, Optimization, QuantizationAlgorithm, QuantizationFormat, ScaleMode

KEY_VERSION = 1  # Raise it when an old engine would be wrong under the same inputs.
# Fields of the job that stay out of the key, and why. What they stand for comes in as an argument of `engine_key`.
NOT_IN_KEY: Mapping[str, str] = {
    "model.revision": "a moving name; resolved_revision decides",
    "model.secretName": "credentials change no weights",
    "optimization.calibration.prompts": "prompts_digest decides",
    "optimization.calibration.promptsConfigMap": "prompts_digest decides",
    "accelerator.computeCapability": "resolved from the product where unset, and in the key as resolved",
    "accelerator.compiler": "resolved from the product where unset, and in the key as resolved",
    "optimization.quantization.mode": "in the key with the format's usual one filled in",
    "optimization.quantization.algorithm": "in the key with the format's plain one filled in",
    "optimization.quantization.components": "in the key with usual modes and algorithms filled in and unquantized ones left out",
    "model.sampling.steps": "in the key as the number of sigmas where these are explicit",
}


def engine_key(
    job: BuildJob,
    *,
    resolved_revision: str,
    prompts_digest: str,
    compiler_version: str,
    builder: str,
    student_digest: str | None = None,
    instruction_set: str | None = None,
    builder_flags: Mapping[str, str] | None = None,
) -> str:
    """Return the key, 64 hexadecimal digits.

    The GPU's driver is not in it: it is a minimum, recorded with the engine and checked on the node.

    Args:
        job: What to build.
        resolved_revision: Commit or digest of the checkpoint.
        prompts_digest: `prompts_digest` of the calibration prompts, wherever they come from.
        compiler_version: Full version of what compiles, for example `11.4.0.106`.
        builder: Digest of the builder image; outside a cluster the version of this package.
        student_digest: Digest of the student's weights; None without a student.
        instruction_set: Widest instruction set of the CPU, for example `avx512_vnni`, where the compiler bakes it in.
        builder_flags: Further switches of the builder that change its output.
    """
    inputs = {
        "version": KEY_VERSION,
        **job_inputs(job),
        "resolvedRevision": resolved_revision,
        "promptsDigest": prompts_digest,
        "compilerVersion": compiler_version,
        "builder": builder,
        "studentDigest": student_digest,
        "instructionSet": instruction_set,
        "builderFlags": dict(builder_flags or {}),
    }
    return _sha256(inputs)


def job_inputs(job: BuildJob) -> dict[str, object]:
    """Return what of a job itself goes into its key, by name: `job` is its wire form without `NOT_IN_KEY`, the rest stands for these."""
    wire = job.to_wire()
    for path in NOT_IN_KEY:
        _remove(wire, path.split("."))
    sampling = job.model.sampling
    return {
        "job": wire,
        "steps": sampling.steps if sampling.sigmas is None else len(sampling.sigmas),
        "quantization": _quantization(job.optimization),
        "compiler": job.accelerator.resolved_compiler,
        "computeCapability": job.accelerator.resolved_compute_capability,
        "memoryClass": job.accelerator.memory_class,
    }


def engine_name(key: str) -> str:
    """The name of the DiffusionEngine and of its folder: `engine-` and the key's first 16 digits (64 bit: no clash to expect)."""
    return f"engine-{key[:16]}"


def prompts_digest(prompts: Sequence[str]) -> str:
    """Digest of calibration prompts, in order."""
    return _sha256(list(prompts))


def _sha256(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _remove(wire: dict[str, object], path: list[str]) -> None:
    inner = wire.get(path[0])
    if len(path) == 1:
        wire.pop(path[0], None)
    elif isinstance(inner, dict):
        _remove(inner, path[1:])


def _quantization(optimization: Optimization) -> dict[str, list[str | None]]:
    wanted = optimization.quantization
    filled = {
        name: _filled(choice.format, choice.mode, choice.algorithm)
        for name, choice in wanted.components.items()
        if choice.format is not QuantizationFormat.NONE
    }
    return {"transformer": _filled(wanted.format, wanted.mode, wanted.algorithm), **filled}


def _filled(format: str, mode: ScaleMode | None, algorithm: QuantizationAlgorithm | None) -> list[str | None]:
    if format not in set(QuantizationFormat) - {QuantizationFormat.NONE}:
        return [str(format), mode, algorithm]
    return [str(format), mode or MODES[QuantizationFormat(format)][0], algorithm or QuantizationAlgorithm.MAX]
