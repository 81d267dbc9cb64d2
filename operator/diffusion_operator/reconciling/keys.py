"""What is reconciled."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from diffusion_operator.cluster import kinds
from diffusion_operator.cluster.kinds import Kind


class Controller(StrEnum):
    """One for each kind of the API."""

    DEPLOYMENT = "diffusiondeployment"
    ENGINE = "diffusionengine"

    @property
    def kind(self) -> Kind:
        """The kind that it reconciles."""
        return kinds.DEPLOYMENT if self is Controller.DEPLOYMENT else kinds.ENGINE


@dataclass(frozen=True, order=True)
class Key:
    """Names an object to look at."""

    controller: Controller
    namespace: str
    name: str

    def __str__(self) -> str:
        """`diffusiondeployment/pictures/klein`."""
        return f"{self.controller}/{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Outcome:
    """What a reconcile came to."""

    changed: bool = False
    """Whether it wrote anything beside the status, so that another look is due."""
    repeated: bool = False
    """Whether it wrote again what it had written before, so that somebody else must have changed it."""
    requeue_seconds: float | None = None
    """When to look again where nothing happens before."""
