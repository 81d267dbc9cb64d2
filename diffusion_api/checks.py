"""What a well-formed spec can still get wrong, and no schema sees: a format that the GPU cannot run, a budget that bounds nothing."""

from __future__ import annotations

from collections.abc import Iterator

from diffusion_api.accelerator import Accelerator, Compiler, runs_natively
from diffusion_api.build_job import BuildSpec
from diffusion_api.conditions import Reason
from diffusion_api.deployment import DiffusionDeploymentSpec
from diffusion_api.optimization import FormatChoice, Optimization, QuantizationFormat
from diffusion_api.problems import InvalidSpecError, Problem

# Compute capabilities that TensorRT-RTX compiles for. Source: `tensorrt_rtx.ComputeCapability` of release 1.7.
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")


def find_problems(spec: DiffusionDeploymentSpec | BuildSpec, *, root: str = "spec") -> tuple[Problem, ...]:
    """Return everything that keeps a well-formed spec from working; empty when all is well.

    Args:
        spec: A deployment's or an engine's spec, or a job.
        root: What paths begin with; empty for a job file.
    """
    prefix = f"{root}." if root else ""
    found = [*_format_problems(spec.optimization, spec.accelerator), *_accelerator_problems(spec.accelerator)]
    found += _budget_problems(spec.optimization)
    return tuple(Problem(prefix + problem.path, problem.message, problem.reason) for problem in found)


def require_workable(spec: DiffusionDeploymentSpec | BuildSpec, *, root: str = "spec") -> None:
    """Raise where `find_problems` finds one.

    Raises:
        InvalidSpecError: Its author must change it; lists every problem with its path.
    """
    problems = find_problems(spec, root=root)
    if problems:
        raise InvalidSpecError(problems)


def runnable_formats(accelerator: Accelerator) -> tuple[QuantizationFormat, ...]:
    """The formats that an explicit choice may name: those with kernels, and on the CPU all, for it simulates the others."""
    return tuple(item for item in QuantizationFormat if accelerator.is_cpu or runs_natively(item, accelerator))


def _format_problems(optimization: Optimization, accelerator: Accelerator) -> Iterator[Problem]:
    quantization = optimization.quantization
    named = {f"components.{name}.format": choice.format for name, choice in quantization.components.items()}
    if quantization.format is not FormatChoice.AUTO:
        named = {"format": QuantizationFormat(quantization.format), **named}
    runnable = runnable_formats(accelerator)
    for path, wanted in named.items():
        if wanted not in runnable:
            where = f"{accelerator.product} (compute capability {accelerator.resolved_compute_capability})"
            names = ", ".join(runnable)
            yield Problem(
                f"optimization.quantization.{path}", f"{where} cannot run {wanted}; it can run {names}", Reason.UNSUPPORTED_FORMAT
            )


def _accelerator_problems(accelerator: Accelerator) -> Iterator[Problem]:
    capability = accelerator.resolved_compute_capability
    if accelerator.compiler is Compiler.TENSORRT_RTX and capability not in RTX_CAPABILITIES:
        supported = ", ".join(RTX_CAPABILITIES)
        message = f"TensorRTRTX does not compile for compute capability {capability} (only {supported}); use TensorRT or leave it out"
        yield Problem("accelerator.compiler", message)
    if accelerator.mig_profile and "-MIG-" in accelerator.product and not accelerator.product.endswith(f"-MIG-{accelerator.mig_profile}"):
        message = f"{accelerator.mig_profile} is not the slice that product {accelerator.product} names; make them agree"
        yield Problem("accelerator.migProfile", message)


def _budget_problems(optimization: Optimization) -> Iterator[Problem]:
    limits = optimization.quality_budget.model_dump(exclude={"lpips_uri", "clip_uri"}, exclude_none=True)
    if not limits and optimization.quantization.format is FormatChoice.AUTO:
        message = "bounds nothing, so a search would take the fastest recipe however bad; set minPSNR, for example 32, or name a format"
        yield Problem("optimization.qualityBudget", message)
