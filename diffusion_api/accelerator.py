"""Where the engine runs, and what that hardware can compute."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from diffusion_api.base import LABEL_VALUE_PATTERN, ApiModel, CelRule, cel_rules
from diffusion_api.optimization import QuantizationFormat

CPU = "CPU"
# Compute capability by the product name that NVIDIA's GPU feature discovery puts on a node (`nvidia.com/gpu.product`), sharing and
# MIG suffixes removed. Source: developer.nvidia.com/cuda-gpus.
COMPUTE_CAPABILITIES = {
    "NVIDIA-A10": "8.6",
    "NVIDIA-A100-SXM4-40GB": "8.0",
    "NVIDIA-A100-SXM4-80GB": "8.0",
    "NVIDIA-A100-80GB-PCIe": "8.0",
    "NVIDIA-L4": "8.9",
    "NVIDIA-L40S": "8.9",
    "NVIDIA-GeForce-RTX-4090": "8.9",
    "NVIDIA-H100-80GB-HBM3": "9.0",
    "NVIDIA-H100-PCIe": "9.0",
    "NVIDIA-H200": "9.0",
    "NVIDIA-B200": "10.0",
    "NVIDIA-GB200": "10.0",
    "NVIDIA-B300": "10.3",
    "NVIDIA-GeForce-RTX-5090": "12.0",
    "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition": "12.0",
}
# Memory of these products in GB, as they are sold. Source: NVIDIA's data sheets.
MEMORY_GB = {
    "NVIDIA-A10": 24,
    "NVIDIA-A100-SXM4-40GB": 40,
    "NVIDIA-A100-SXM4-80GB": 80,
    "NVIDIA-A100-80GB-PCIe": 80,
    "NVIDIA-L4": 24,
    "NVIDIA-L40S": 48,
    "NVIDIA-GeForce-RTX-4090": 24,
    "NVIDIA-H100-80GB-HBM3": 80,
    "NVIDIA-H100-PCIe": 80,
    "NVIDIA-H200": 141,
    "NVIDIA-B200": 180,
    "NVIDIA-GB200": 186,
    "NVIDIA-B300": 288,
    "NVIDIA-GeForce-RTX-5090": 32,
    "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition": 96,
}


class Compiler(StrEnum):
    """What compiles the engine."""

    TENSORRT = "TensorRT"
    TENSORRT_RTX = "TensorRTRTX"
    OPENVINO = "OpenVINO"


GPU_FIELDS_SENTENCE = "migProfile and computeCapability belong to a GPU; leave them out for CPU"
OPENVINO_SENTENCE = "compiler OpenVINO needs product CPU"
KNOWN_PRODUCTS = ", ".join([*sorted(COMPUTE_CAPABILITIES), CPU])
SHARING_SUFFIX = "-(SHARED|MIG-[0-9a-z.]+)"
MIG_MEMORY = re.compile(r"\.([0-9]+)gb$")


class Accelerator(ApiModel):
    """The GPU, exactly, or `CPU`."""

    model_config = ConfigDict(
        json_schema_extra=cel_rules(
            CelRule(f"self.product != '{CPU}' || (!has(self.migProfile) && !has(self.computeCapability))", GPU_FIELDS_SENTENCE),
            CelRule(
                f"self.product != '{CPU}' || !has(self.compiler) || self.compiler == 'OpenVINO'",
                "compiler %s needs a GPU product; for CPU use OpenVINO or leave it out",
                ("self.compiler",),
                field_path=".compiler",
            ),
            CelRule(
                f"self.product == '{CPU}' || !has(self.compiler) || self.compiler != 'OpenVINO'", OPENVINO_SENTENCE, field_path=".compiler"
            ),
            CelRule(
                f"self.product == '{CPU}' || has(self.computeCapability)"
                f" || self.product.matches('^({'|'.join(sorted(COMPUTE_CAPABILITIES))})({SHARING_SUFFIX})?$')",
                f"product %s is not known; set computeCapability (known products: {KNOWN_PRODUCTS})",
                ("self.product",),
                field_path=".product",
            ),
        )
    )

    product: str = Field(min_length=1, max_length=63, pattern=LABEL_VALUE_PATTERN)
    """Value of the node label `nvidia.com/gpu.product`, for example `NVIDIA-B200`, or `CPU`."""
    count: int = Field(default=1, ge=1, le=1)
    """GPUs per replica."""
    mig_profile: str | None = Field(default=None, pattern=r"^[1-7]g\.[0-9]+gb$")
    """MIG slice, for example `1g.23gb`; unset: the whole GPU."""
    compute_capability: str | None = Field(default=None, pattern=r"^[0-9]+\.[0-9]$")
    """Needed only for a product that is not in the built-in table."""
    compiler: Compiler | None = None
    """Unset: TensorRT on a GPU, OpenVINO on the CPU."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.product == CPU:
            if self.mig_profile or self.compute_capability:
                raise ValueError(GPU_FIELDS_SENTENCE)
            if self.compiler not in (None, Compiler.OPENVINO):
                raise ValueError(f"compiler {self.compiler} needs a GPU product; for CPU use OpenVINO or leave it out")
            return self
        if self.compiler is Compiler.OPENVINO:
            raise ValueError(OPENVINO_SENTENCE)
        if self.resolved_compute_capability is None:
            raise ValueError(f"product {self.product} is not known; set computeCapability (known products: {KNOWN_PRODUCTS})")
        return self

    @property
    def is_cpu(self) -> bool:
        """True where no GPU is asked for."""
        return self.product == CPU

    @property
    def resolved_compiler(self) -> Compiler:
        """The compiler that is used, default filled in."""
        return self.compiler or (Compiler.OPENVINO if self.is_cpu else Compiler.TENSORRT)

    @property
    def resolved_compute_capability(self) -> str | None:
        """`10.0` for B200; None on the CPU or where unknown."""
        return None if self.is_cpu else self.compute_capability or COMPUTE_CAPABILITIES.get(self._whole_product)

    @property
    def memory_class(self) -> str | None:
        """`180GB` for B200, `23GB` for its slice `1g.23gb`; None on the CPU or where unknown."""
        if slice_gb := MIG_MEMORY.search(self.mig_profile or self.product):
            return f"{slice_gb[1]}GB"
        gigabytes = MEMORY_GB.get(self._whole_product)
        return None if gigabytes is None else f"{gigabytes}GB"

    @property
    def _whole_product(self) -> str:
        return re.sub(f"{SHARING_SUFFIX}$", "", self.product)


# The least compute capability whose tensor cores run a format. Source: NVIDIA TensorRT support matrix, "hardware and precision".
MINIMUM_CAPABILITY = {
    QuantizationFormat.INT8: (7, 5),
    QuantizationFormat.FP8: (8, 9),
    QuantizationFormat.MXFP8: (10, 0),
    QuantizationFormat.NVFP4: (10, 0),
}


def runs_natively(format: QuantizationFormat, accelerator: Accelerator) -> bool:
    """Tell whether the accelerator has kernels for a format; a CPU runs INT8, and simulates every other low-precision format."""
    if format is QuantizationFormat.NONE:
        return True
    capability = accelerator.resolved_compute_capability
    if capability is None:
        return format is QuantizationFormat.INT8
    major, minor = capability.split(".")
    return (int(major), int(minor)) >= MINIMUM_CAPABILITY[format]
