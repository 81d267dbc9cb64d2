"""The one base of every contract: camelCase on the wire, snake_case in Python, unknown fields refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic.alias_generators import to_camel

GROUP = "diffusionoperator.io"
VERSION = "v1alpha1"
API_VERSION: Literal["diffusionoperator.io/v1alpha1"] = "diffusionoperator.io/v1alpha1"
DNS_SUBDOMAIN_PATTERN = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"
DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
LABEL_VALUE_PATTERN = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"


@dataclass(frozen=True)
class CelRule:
    """A rule that the API server checks, in the Common Expression Language; the Python validator beside it says the same sentence."""

    rule: str
    """Expression over `self` that holds for a good value."""
    message: str
    """What to say where it does not hold; with `%s` and `%d` where it quotes `values`."""
    values: tuple[str, ...] = ()
    """Expressions over `self`. They are put in by `format`, whose cost the API server can bound, unlike that of `string(…) + …`."""
    field_path: str = ""
    """The field to blame, for example `.mask`; empty: the value as a whole."""

    def to_wire(self) -> dict[str, JsonValue]:
        """One entry of `x-kubernetes-validations`."""
        wire: dict[str, JsonValue] = {"rule": self.rule, "message": self.message}
        if self.values:
            wire = {"rule": self.rule, "messageExpression": f"{json.dumps(self.message)}.format([{', '.join(self.values)}])"}
        return wire | ({"fieldPath": self.field_path} if self.field_path else {})


def cel_rules(*rules: CelRule) -> dict[str, JsonValue]:
    """The rules as a `json_schema_extra` of a model or a field."""
    return {"x-kubernetes-validations": [rule.to_wire() for rule in rules]}


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


class StatusModel(ApiModel):
    """A part of a status. Fields that a newer release wrote are passed over, so that a downgraded operator still reads the object."""

    model_config = ConfigDict(extra="ignore")
