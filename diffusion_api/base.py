"""The one base of every contract: camelCase on the wire, snake_case in Python, unknown fields refused."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

GROUP = "diffusionoperator.io"
VERSION = "v1alpha1"
API_VERSION: Literal["diffusionoperator.io/v1alpha1"] = "diffusionoperator.io/v1alpha1"


def to_wire_name(name: str) -> str:
    """Turn `min_psnr` into `minPSNR`: acronyms of the field keep their capitals, as Kubernetes API conventions ask."""
    wire = to_camel(name)
    for plain, acronym in (("Psnr", "PSNR"), ("Ssim", "SSIM"), ("Flip", "FLIP"), ("Lpips", "LPIPS"), ("Clip", "CLIP")):
        if wire.endswith(plain):
            return wire.removesuffix(plain) + acronym
    return wire


class ApiModel(BaseModel):
    """An immutable value; `model_dump(mode="json", by_alias=True, exclude_none=True)` is its wire form."""

    model_config = ConfigDict(
        alias_generator=to_wire_name,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def to_wire(self) -> dict[str, object]:
        """Return the JSON form: camelCase keys, unset optional fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
