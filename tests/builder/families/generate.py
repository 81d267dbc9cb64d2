"""A generation in thirty lines: what the manifest and the graphs say, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from diffusion_api.engine_manifest import EngineManifest, GuidanceMode
from diffusion_api.model_spec import Sampling, Shape
from engine_builder.families.base import Family
from engine_builder.families.registry import family_for
from engine_runtime.tokenizer import PromptTokenizer


class Generator:
    """Runs a checkpoint by its graphs, in torch."""

    def __init__(self, folder: Path, sampling: Sampling, shape: Shape, dtype: torch.dtype = torch.float32) -> None:
        self.family: Family = family_for(folder)
        self.manifest: EngineManifest = self.family.manifest(folder, sampling, (shape,), max_batch_size=8)
        self.model = self.family.load(folder, dtype)
        self.graphs = {graph.name: graph for graph in self.family.graphs(self.model)}
        self.constants = self.family.constants(self.manifest)
        self._tokenize = PromptTokenizer(folder / "tokenizer" / "tokenizer.json", self.manifest.text)

    def run(self, graph: str, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        spec = self.graphs[graph]
        with torch.no_grad():
            outputs = spec.module(*(inputs[tensor.name] for tensor in spec.inputs))
        return dict(zip((tensor.name for tensor in spec.outputs), outputs if isinstance(outputs, tuple) else (outputs,), strict=True))

    def encode(self, prompts: list[str]) -> torch.Tensor:
        tokens = self._tokenize(prompts)
        return self.run(
            "text_encoder", input_ids=torch.from_numpy(tokens.input_ids), attention_mask=torch.from_numpy(tokens.attention_mask)
        )["prompt_embeds"]

    def velocity(self, latents: torch.Tensor, conditions: torch.Tensor, sigma: float) -> torch.Tensor:
        batch = len(latents)
        prelude = self.run(
            "transformer_prelude",
            hidden_states=latents,
            encoder_hidden_states=conditions,
            timestep=torch.full((batch,), sigma),
            guidance=torch.full((batch,), self.manifest.guidance.scale),
        )
        ids = self.constants[self.manifest.shapes[0].constants["position_ids"]]
        body = self.run("transformer_body", **prelude, position_ids=ids.expand(batch, -1, -1))
        return self.run("transformer_head", y=body["y"], temb=prelude["temb"])["sample"]

    def pictures(self, prompts: list[str], noise: torch.Tensor) -> np.ndarray:
        """Args: noise as the pipeline takes it, [B, C, h, w]. Returns: UINT8 [B, H, W, 3]."""
        plan, guidance = self.manifest.shapes[0], self.manifest.guidance
        x, conditions, negative = noise.flatten(2).transpose(1, 2), self.encode(prompts), self.encode([""] * len(prompts))
        for sigma, following in zip(plan.sigmas, plan.sigmas[1:], strict=False):
            velocity = self.velocity(x, conditions, sigma)
            if guidance.mode is GuidanceMode.CLASSIFIER_FREE:
                unguided = self.velocity(x, negative, sigma)
                velocity = unguided + guidance.scale * (velocity - unguided)
            x = x + (following - sigma) * velocity
        axes = [plan.dims[axis] if isinstance(axis, str) else axis for axis in self.manifest.decoders[0].reshape]
        return self.run("vae_decoder", latents=x.reshape(len(x), *axes))["image"].numpy()
