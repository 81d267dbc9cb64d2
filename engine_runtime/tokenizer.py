"""Prompts to token ids with the `tokenizers` library alone; template, length and padding come from the manifest.

Equal to diffusers' `apply_chat_template` followed by `tokenizer(text, padding="max_length", truncation=True, max_length=…)`: the
template's own tokens count toward the length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as HubTokenizer

from diffusion_api.engine_manifest import TextEncoding
from engine_runtime.errors import EngineFilesError


@dataclass(frozen=True)
class TokenBatch:
    """Prompts as tokens."""

    input_ids: npt.NDArray[np.int64]
    """[B, T]."""
    attention_mask: npt.NDArray[np.int64]
    """[B, T]; 1 for a token, 0 for padding."""
    was_cut: tuple[bool, ...]
    """For each prompt, True where tokens were left out."""


class Tokenizer(Protocol):
    """Turns prompts into tokens."""

    def __call__(self, prompts: Sequence[str]) -> TokenBatch:
        """Tokenize each prompt in the model's template, cut or padded to the model's length."""


class PromptTokenizer:
    """A `tokenizer.json` with the manifest's template, length and padding."""

    def __init__(self, source: str | Path, text: TextEncoding) -> None:
        """Load the tokenizer.

        Args:
            source: A `tokenizer.json` file, or its text.
            text: Template, length and padding. What the file says of truncation and padding is ignored.

        Raises:
            EngineFilesError: The file is not a tokenizer.
        """
        content = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
        try:
            self._tokenizer = HubTokenizer.from_str(content)
        except Exception as error:  # tokenizers raises no class of its own: whatever it is, the file is unusable.
            raise EngineFilesError(f"tokenizer.json cannot be read: {error}; build the engine again") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length=text.max_sequence_length)
        self._text = text

    def __call__(self, prompts: Sequence[str]) -> TokenBatch:
        """See `Tokenizer`."""
        texts = [f"{self._text.template_prefix}{prompt}{self._text.template_suffix}" for prompt in prompts]
        encodings = self._tokenizer.encode_batch(texts)
        shape = (len(prompts), self._text.max_sequence_length)
        input_ids = np.full(shape, self._text.pad_token_id, dtype=np.int64)
        attention_mask = np.zeros(shape, dtype=np.int64)
        for row, encoding in enumerate(encodings):
            place = self._place(len(encoding.ids))
            input_ids[row, place] = encoding.ids
            attention_mask[row, place] = 1
        return TokenBatch(input_ids, attention_mask, tuple(bool(encoding.overflowing) for encoding in encodings))

    def _place(self, length: int) -> slice:
        if self._text.padding_side == "right":
            return slice(0, length)
        return slice(self._text.max_sequence_length - length, self._text.max_sequence_length)
