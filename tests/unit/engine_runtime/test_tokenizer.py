"""Claims about tokenization, on a tokenizer made here; equality with transformers is claimed in tests/builder/runtime."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from diffusion_api.engine_manifest import TextEncoding
from engine_runtime.errors import EngineFilesError
from engine_runtime.tokenizer import PromptTokenizer

WORDS = {word: number for number, word in enumerate(["<pad>", "user", "a", "red", "seven", "done", "?"])}


def tokenizer(*, stored_padding: bool = False, **changes) -> PromptTokenizer:
    source = Tokenizer(models.WordLevel(WORDS, unk_token="?"))
    source.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if stored_padding:
        source.enable_padding(length=12, pad_id=6)
        source.enable_truncation(2)
    settings = {"template_prefix": "user ", "template_suffix": " done", "max_sequence_length": 6, "pad_token_id": 0} | changes
    return PromptTokenizer(source.to_str(), TextEncoding(**settings))


def test_the_template_goes_around_the_prompt():
    batch = tokenizer()(["red seven", "a red seven"])
    assert batch.input_ids.tolist() == [[1, 3, 4, 5, 0, 0], [1, 2, 3, 4, 5, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]]
    assert batch.was_cut == (False, False)


def test_a_long_prompt_is_cut_with_its_template_and_told():
    batch = tokenizer()(["a red red red seven"])
    assert batch.input_ids.tolist() == [[1, 2, 3, 3, 3, 4]]
    assert batch.was_cut == (True,)


def test_padding_goes_where_the_manifest_says():
    batch = tokenizer(padding_side="left")(["red"])
    assert batch.input_ids.tolist() == [[0, 0, 0, 1, 3, 5]]
    assert batch.attention_mask.tolist() == [[0, 0, 0, 1, 1, 1]]


def test_what_the_file_says_of_length_and_padding_is_ignored():
    assert tokenizer(stored_padding=True)(["red seven"]).input_ids.tolist() == [[1, 3, 4, 5, 0, 0]]


def test_a_broken_file_is_named():
    with pytest.raises(EngineFilesError, match=r"tokenizer\.json cannot be read"):
        PromptTokenizer("{}", TextEncoding(max_sequence_length=4, pad_token_id=0))
