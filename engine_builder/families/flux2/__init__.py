"""FLUX.2 klein and FLUX.2 dev: one transformer, two text encoders. Imports torch only to load, trace or make constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_api.engine_manifest import EngineManifest
from diffusion_api.model_spec import Sampling, Shape
from engine_builder.families.base import Family, GraphModule, LoadedModel
from engine_builder.families.flux2 import plan
from engine_builder.families.flux2.checkpoint import check_weights, read_checkpoint
from engine_builder.families.flux2.variant import DEV, KLEIN, Flux2Variant
from engine_builder.families.prompts import calibration_prompts

if TYPE_CHECKING:
    import torch

# In names of the transformer's modules. They are small, or the quality is sensitive to them.
_SENSITIVE_TRANSFORMER_LAYERS = (
    "*x_embedder*",
    "*context_embedder*",
    "*time_guidance_embed*",
    "*modulation*",
    "*norm*",
    "proj_out*",
)


class Flux2:
    """Both adapters; the variant says what differs."""

    components: tuple[str, ...] = ("textEncoder", "transformer", "vae")

    def __init__(self, variant: Flux2Variant) -> None:
        self.variant = variant
        self.name = variant.name

    def matches(self, model_index: Mapping[str, Any]) -> bool:
        """Tell by `_class_name`."""
        return bool(model_index.get("_class_name") == self.variant.pipeline)

    def check(self, folder: Path, sampling: Sampling, shapes: Sequence[Shape]) -> None:
        """Check configurations, tensor headers, sampling and shapes; see `Family.check`."""
        checkpoint = read_checkpoint(folder, self.variant)
        check_weights(folder, checkpoint, self.variant)
        plan.check_request(checkpoint, self.variant, sampling, shapes)

    def manifest(self, folder: Path, sampling: Sampling, shapes: Sequence[Shape], max_batch_size: int) -> EngineManifest:
        """Return the manifest without pieces; see `Family.manifest`."""
        checkpoint = read_checkpoint(folder, self.variant)
        plan.check_request(checkpoint, self.variant, sampling, shapes)
        return plan.manifest(checkpoint, self.variant, sampling, shapes, max_batch_size)

    def load(self, folder: Path, dtype: torch.dtype, student: Path | None = None) -> LoadedModel:
        """Load the components; see `Family.load`."""
        from engine_builder.families.flux2.load import load_components  # noqa: PLC0415 - imports torch.

        checkpoint = read_checkpoint(folder, self.variant)
        check_weights(folder, checkpoint, self.variant)
        return LoadedModel(
            family=self.name,
            components=load_components(folder, self.variant, dtype, student),
            config={"is_distilled": checkpoint.is_distilled, "guidance_embeds": checkpoint.transformer.guidance_embeds},
            folder=folder,
        )

    def graphs(self, model: LoadedModel) -> tuple[GraphModule, ...]:
        """Return the pieces; see `Family.graphs`."""
        from engine_builder.families.flux2.graphs import graph_modules  # noqa: PLC0415 - imports torch.

        return graph_modules(model.components, self.variant.text_layers)

    def constants(self, manifest: EngineManifest) -> Mapping[str, torch.Tensor]:
        """Return the position ids of every shape, FP32 [text_tokens + image_tokens, 4]."""
        from engine_builder.families.flux2.graphs import position_ids  # noqa: PLC0415 - imports torch.

        return position_ids(manifest)

    def sensitive_layers(self, component: str) -> tuple[str, ...]:
        """Return globs of layers that keep high precision; see `Family.sensitive_layers`."""
        match component:
            case "transformer":
                return _SENSITIVE_TRANSFORMER_LAYERS
            case "textEncoder":
                return ("*embed_tokens*", "*norm*", "*lm_head*", "*vision_tower*", "*multi_modal_projector*")
            case "vae":
                return ("encoder*", "quant_conv*", "bn*", "*norm*", "decoder.conv_in*", "decoder.conv_out*")
            case _:
                return ()

    def prompts(self, folder: Path) -> tuple[str, ...]:
        """Return calibration prompts; see `Family.prompts`."""
        return calibration_prompts(folder)


class Flux2Klein(Flux2):
    """FLUX.2 klein: Qwen3 conditions, step-distilled or with classifier-free guidance."""

    def __init__(self) -> None:
        super().__init__(KLEIN)


class Flux2Dev(Flux2):
    """FLUX.2 dev: Mistral 3 conditions, guidance embedded in the transformer."""

    def __init__(self) -> None:
        super().__init__(DEV)


FAMILIES: tuple[Family, ...] = (Flux2Klein(), Flux2Dev())
