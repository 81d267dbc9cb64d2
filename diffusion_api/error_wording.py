"""pydantic's findings in the words of somebody who writes YAML: a path, what is wrong, and what to write instead."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from diffusion_api.base import DNS_LABEL_PATTERN, DNS_SUBDOMAIN_PATTERN, LABEL_VALUE_PATTERN
from diffusion_api.model_spec import URI_EXAMPLES, URI_PATTERN
from diffusion_api.problems import Problem

LONGEST_VALUE = 60
# A YAML author's words for Python's types; bool before int, whose subclass it is.
KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a whole number"),
    (float, "a number"),
    (str, "text"),
    (Mapping, "a mapping"),
    (list, "a list"),
    (tuple, "a list"),
)
# What a pattern wants, in words.
PATTERN_SENTENCES = {
    URI_PATTERN: f"is no address that can be fetched; write it as one of {', '.join(URI_EXAMPLES)}",
    DNS_LABEL_PATTERN: "is no DNS label; use lower-case letters, digits and '-', and begin and end with a letter or digit",
    LABEL_VALUE_PATTERN: "is no value of a node label; use letters, digits, '-', '_' and '.', and begin and end with a letter or digit",
    DNS_SUBDOMAIN_PATTERN: "is no Kubernetes name; use lower-case letters, digits, '-' and '.'",
    r"^[1-7]g\.[0-9]+gb$": "is no MIG profile; write it as 1g.23gb",
    r"^[0-9]+\.[0-9]$": "is no compute capability; write it as 10.0, in quotes",
}


def problem_of(error: ErrorDetails, model: type[BaseModel]) -> Problem:
    """Say one of pydantic's findings about a value of `model` in our words."""
    location = tuple(part for part in error["loc"] if part != "[key]")
    wording = WORDINGS.get(error["type"])
    message = error["msg"] if wording is None else wording(error, _annotation_at(model, location))
    if error["type"] == "extra_forbidden":
        message = _unknown_field(str(location[-1]), _annotation_at(model, location[:-1]))
    return Problem(path_of(location), message)


def is_echo(error: ErrorDetails) -> bool:
    """True for "too short" of a list that is long enough: pydantic 2 counts only entries that are valid themselves."""
    return error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]


def path_of(location: Sequence[str | int]) -> str:
    """`("spec", "shapes", 0, "width")` as `spec.shapes[0].width`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def kind_of(value: object) -> str:
    """What a YAML author would call a value: `text`, `a list`, `a whole number`."""
    for kind, word in KINDS:
        if isinstance(value, kind):
            return word
    return "nothing" if value is None else f"a {type(value).__name__}"


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


Wording = Callable[[ErrorDetails, Any], str]


def _expected(what: str) -> Wording:
    def wording(error: ErrorDetails, annotation: Any) -> str:
        value = error["input"]
        found = kind_of(value) if isinstance(value, Mapping | list) else f"{kind_of(value)} ({_shown(value)})"
        hint = "; put it in quotes" if what == "text" and not isinstance(value, Mapping | list) else ""
        if isinstance(value, str) and what != "text":
            hint = "; leave out the quotes" if value.replace(".", "", 1).isdigit() or value in ("true", "false") else ""
        return f"expected {what}, not {found}{hint}"

    return wording


def _bound(words: str, key: str) -> Wording:
    def wording(error: ErrorDetails, annotation: Any) -> str:
        value = error["input"]
        return f"{_shown(value)} is {words} {error['ctx'][key]:.12g}" if value == value else "expected a finite number, not NaN"  # noqa: PLR0124

    return wording


def _size(words: str, key: str) -> Wording:
    def wording(error: ErrorDetails, annotation: Any) -> str:
        unit = "character" if isinstance(error["input"], str) else "entry"
        limit = int(error["ctx"][key])
        plural = unit if limit == 1 else {"character": "characters", "entry": "entries"}[unit]
        return f"needs at {words} {limit} {plural}, and has {len(error['input'])}"

    return wording


def _choice(error: ErrorDetails, annotation: Any) -> str:
    allowed = [str(item.value) for item in annotation] if isinstance(annotation, type) and issubclass(annotation, Enum) else []
    if get_origin(annotation) is Literal:
        allowed = [str(item) for item in get_args(annotation)]
    value = _shown(error["input"])
    close = _closest(value, allowed)
    guess = f"; did you mean {close}?" if close and len(allowed) > 1 else ""
    return f"{value} is not allowed; use {_any_of(allowed)}{guess}"


def _pattern(error: ErrorDetails, annotation: Any) -> str:
    pattern = str(error["ctx"]["pattern"])
    return f"{_shown(error['input'])} {PATTERN_SENTENCES.get(pattern, f'does not match {pattern}')}"


def _unknown_field(name: str, annotation: Any) -> str:
    known = [field.alias or name for name, field in annotation.model_fields.items()]
    close = _closest(name, known)
    return f"is not a field here; did you mean {close}?" if close else f"is not a field here; known are {', '.join(sorted(known))}"


def _closest(word: str, known: Sequence[str]) -> str | None:
    by_lower = {item.lower(): item for item in known}
    found = difflib.get_close_matches(word.lower().replace("_", "").replace("-", ""), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def _any_of(words: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "another value"


def _annotation_at(model: Any, location: Sequence[str | int]) -> Any:
    """Follow a wire path through models, lists and mappings to the type that is expected there; None where there is none."""
    here = model
    for part in location:
        if isinstance(here, type) and issubclass(here, BaseModel):
            by_wire_name = {field.alias or name: field.annotation for name, field in here.model_fields.items()}
            here = _bare(by_wire_name.get(str(part)))
        else:
            arguments = [item for item in get_args(here) if item is not Ellipsis]
            here = _bare(arguments[-1]) if arguments else None
    return here


def _bare(annotation: Any) -> Any:
    """Take `None` out of an optional type, and metadata out of an annotated one."""
    if get_origin(annotation) in (Union, UnionType):
        return next((_bare(item) for item in get_args(annotation) if item is not type(None)), None)
    return annotation.__origin__ if hasattr(annotation, "__metadata__") else annotation


WORDINGS: dict[str, Wording] = {
    "missing": lambda error, annotation: "is required",
    "extra_forbidden": lambda error, annotation: "is not a field here",
    "int_type": _expected("a whole number"),
    "int_from_float": _expected("a whole number"),
    "float_type": _expected("a number"),
    "bool_type": _expected("true or false"),
    "string_type": _expected("text"),
    "tuple_type": _expected("a list"),
    "dict_type": _expected("a mapping"),
    "model_type": _expected("a mapping of fields"),
    "datetime_type": _expected("a time such as 2026-01-31T12:00:00Z"),
    "datetime_from_date_parsing": _expected("a time such as 2026-01-31T12:00:00Z"),
    "greater_than_equal": _bound("too small; use at least", "ge"),
    "less_than_equal": _bound("too large; use at most", "le"),
    "string_too_short": _size("least", "min_length"),
    "string_too_long": _size("most", "max_length"),
    "too_short": _size("least", "min_length"),
    "too_long": _size("most", "max_length"),
    "enum": _choice,
    "literal_error": _choice,
    "string_pattern_mismatch": _pattern,
    "value_error": lambda error, annotation: str(error["ctx"]["error"]),
}
