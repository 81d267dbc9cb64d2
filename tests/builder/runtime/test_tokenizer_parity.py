"""The runtime's tokenizer gives what diffusers' pipeline feeds to its text encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from diffusion_api.engine_manifest import TextEncoding
from engine_runtime.tokenizer import PromptTokenizer

FOLDER = Path(__file__).parents[3] / "examples/digits/digits-klein/tokenizer"
PROMPT = "\0prompt\0"


@pytest.fixture(scope="module")
def reference():
    return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


def template(reference, prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    return reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)


@pytest.mark.parametrize("length", [16, 64])
@pytest.mark.parametrize("prompt", ["a red digit seven", "blue 3", "", "Ünïcode – 数字 🙂 " * 9, "  spaces\n and lines "])
def test_tokens_are_those_of_the_diffusers_pipeline(reference, prompt, length):
    expected = reference(template(reference, prompt), padding="max_length", truncation=True, max_length=length, return_tensors="np")
    prefix, suffix = template(reference, PROMPT).split(PROMPT)
    text = TextEncoding(
        template_prefix=prefix,
        template_suffix=suffix,
        max_sequence_length=length,
        pad_token_id=reference.pad_token_id,
        padding_side="right",
    )
    batch = PromptTokenizer(FOLDER / "tokenizer.json", text)([prompt])
    np.testing.assert_array_equal(batch.input_ids, expected["input_ids"])
    np.testing.assert_array_equal(batch.attention_mask, expected["attention_mask"])
