"""Renders a tokenizer's chat template ahead of time, so that serving needs no template engine.

The template comes with the checkpoint and is not trusted: it runs in Jinja's immutable sandbox, as transformers runs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from diffusion_api.engine_manifest import TextEncoding
from engine_builder.errors import InvalidModelError
from engine_builder.families.diffusers_folder import read_json

PROMPT_MARK = "\ue000prompt\ue000"
"""Stands for the prompt while the template is rendered; a private-use character, so no template holds it."""

_SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


class TokenizerFolder:
    """A checkpoint's `tokenizer/`, read without transformers."""

    def __init__(self, folder: Path) -> None:
        """Read it.

        Raises:
            InvalidModelError: A file is missing, or there is no `tokenizer.json` that the tokenizers library reads.
        """
        self.folder = folder
        self.config = read_json(folder / "tokenizer_config.json")
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise InvalidModelError("tokenizer/tokenizer.json is missing; save the tokenizer with transformers' fast tokenizer class")
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # The library raises bare Exception for any malformed file: refuse the checkpoint.
            raise InvalidModelError(f"tokenizer/tokenizer.json cannot be read: {error}") from None
        self.tokenizer.no_padding()  # The file may hold settings of the last call before it was saved.
        self.tokenizer.no_truncation()
        self.special_tokens = self._special_tokens()

    @property
    def model_max_length(self) -> int:
        """Tokens that the tokenizer allows; transformers writes 10³⁰ for no limit."""
        return int(self.config.get("model_max_length") or 10**30)

    def text_encoding(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_sequence_length: int,
        outputs: Mapping[str, str],
        **template_arguments: object,
    ) -> TextEncoding:
        """Render the chat template around a prompt.

        Args:
            messages: A conversation with `PROMPT_MARK` where the prompt goes.
            max_sequence_length: Tokens.
            outputs: The text encoder's outputs to the denoiser's inputs.
            template_arguments: As given to `apply_chat_template`, for example `add_generation_prompt`.

        Raises:
            InvalidModelError: There is no template, it fails, or it changes the prompt.
        """
        rendered = self._render(messages, template_arguments)
        if rendered.count(PROMPT_MARK) != 1:
            raise InvalidModelError("the tokenizer's chat template does not hold the prompt exactly once")
        prefix, suffix = rendered.split(PROMPT_MARK)
        return TextEncoding(
            template_prefix=self._without_added_bos(prefix),
            template_suffix=suffix,
            max_sequence_length=max_sequence_length,
            pad_token_id=self._pad_token_id(),
            padding_side=self._padding_side(),
            outputs=dict(outputs),
        )

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens, with those that the tokenizer adds itself."""
        return len(self.tokenizer.encode(text).ids)

    def _special_tokens(self) -> dict[str, str]:
        found: dict[str, str] = {}
        sources = [self.config]
        if (self.folder / "special_tokens_map.json").is_file():
            sources.insert(0, read_json(self.folder / "special_tokens_map.json"))
        for source in sources:
            for name in _SPECIAL_TOKENS:
                value = source.get(name)
                text = value.get("content") if isinstance(value, dict) else value
                if isinstance(text, str):
                    found[name] = text
        return found

    def _template(self) -> str:
        if (self.folder / "chat_template.jinja").is_file():
            return (self.folder / "chat_template.jinja").read_text(encoding="utf-8")
        sources = [self.config]
        if (self.folder / "chat_template.json").is_file():
            sources.insert(0, read_json(self.folder / "chat_template.json"))
        for source in sources:
            if isinstance(source.get("chat_template"), str):
                return str(source["chat_template"])
        raise InvalidModelError("the tokenizer has no chat template (tokenizer/chat_template.jinja)")

    def _render(self, messages: Sequence[Mapping[str, Any]], arguments: Mapping[str, object]) -> str:
        def refuse(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.globals["raise_exception"] = refuse
        try:
            return environment.from_string(self._template()).render(messages=messages, **self.special_tokens, **arguments)
        except TemplateError as error:
            raise InvalidModelError(f"the tokenizer's chat template fails: {error}") from None

    def _without_added_bos(self, prefix: str) -> str:
        """Drop a leading token that the tokenizer adds to every text anyway; transformers then tells it to add none."""
        bos = self.special_tokens.get("bos_token")
        if bos is None or not prefix.startswith(bos):
            return prefix
        added = self.tokenizer.encode("").ids
        return prefix[len(bos) :] if added and added[0] == self.tokenizer.token_to_id(bos) else prefix

    def _pad_token_id(self) -> int:
        token = self.special_tokens.get("pad_token")
        number = None if token is None else self.tokenizer.token_to_id(token)
        if number is None:
            raise InvalidModelError("the tokenizer has no padding token (pad_token in tokenizer/tokenizer_config.json)")
        return int(number)

    def _padding_side(self) -> Literal["left", "right"]:
        return "left" if self.config.get("padding_side") == "left" else "right"
