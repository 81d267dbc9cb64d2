"""Reads `OperatorSettings` from the YAML file that the chart mounts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from diffusion_operator.settings import OperatorSettings

SETTINGS_VARIABLE = "DIFFUSION_OPERATOR_SETTINGS"
"""Names the file."""
REGISTRY_VARIABLE = "DIFFUSION_OPERATOR_REGISTRY"
"""Replaces `images.registry`."""
DEFAULT_PATH = "/etc/diffusion-operator/settings.yaml"


class SettingsError(ValueError):
    """Whoever installs the operator must change the file; the operator does not start."""


def load_settings(environment: Mapping[str, str]) -> OperatorSettings:
    """Read the settings; without a file at the default path every default holds.

    Raises:
        SettingsError: The file is missing where it was named, is no YAML, or has a wrong field; each is named.
    """
    named = environment.get(SETTINGS_VARIABLE)
    path = Path(named or DEFAULT_PATH)
    if named is None and not path.exists():
        document: object = {}
    else:
        document = _read(path)
    return parse_settings(document, source=str(path), registry=environment.get(REGISTRY_VARIABLE))


def parse_settings(document: object, *, source: str, registry: str | None = None) -> OperatorSettings:
    """Check a file's content.

    Args:
        document: What the YAML holds; None, as an empty file does, stands for no field.
        source: Name of the file, for messages.
        registry: Replaces `images.registry`.

    Raises:
        SettingsError: As `load_settings`.
    """
    try:
        settings = OperatorSettings.model_validate(document if document is not None else {}, by_alias=True, by_name=False)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'file'}: {each['msg']}" for each in error.errors())
        raise SettingsError(f"{source}: {problems}") from None
    if registry:
        settings = settings.model_copy(update={"images": settings.images.model_copy(update={"registry": registry})})
    return settings


def _read(path: Path) -> object:
    try:
        document: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}; mount it or unset {SETTINGS_VARIABLE}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return document
