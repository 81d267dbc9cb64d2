from __future__ import annotations

import pytest

from diffusion_operator.settings import OperatorSettings, S3Store
from diffusion_operator.settings_file import SettingsError, load_settings, parse_settings


def test_without_a_file_every_default_holds(monkeypatch, tmp_path):
    monkeypatch.setattr("diffusion_operator.settings_file.DEFAULT_PATH", str(tmp_path / "absent.yaml"))
    assert load_settings({}) == OperatorSettings()


def test_the_file_of_the_chart_is_read(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("engineStore: {kind: S3, uri: 's3://models/engines'}\nbuild: {queueName: gpu}\n")
    settings = load_settings({"DIFFUSION_OPERATOR_SETTINGS": str(file)})
    assert settings.engine_store == S3Store(uri="s3://models/engines")
    assert settings.build.queue_name == "gpu"


def test_an_empty_file_is_all_defaults(tmp_path):
    assert parse_settings(None, source="settings.yaml") == OperatorSettings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("build: {backoff: 3}", "build.backoff"),
        ("build: {backoffLimit: many}", "build.backoffLimit"),
        ("env: [{value: x}]", "has no name"),
        ("a: [", "is not YAML"),
        ("engineStore: {kind: NFS}", "engineStore"),
    ],
)
def test_a_wrong_file_is_refused_with_its_field(tmp_path, text, said):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=said):
        load_settings({"DIFFUSION_OPERATOR_SETTINGS": str(file)})


def test_a_named_file_must_be_there(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings({"DIFFUSION_OPERATOR_SETTINGS": str(tmp_path / "absent.yaml")})


@pytest.mark.parametrize(
    ("image", "resolved"),
    [
        ("diffusion-operator/builder:1", "mirror.example/nvidia/diffusion-operator/builder:1"),
        ("ghcr.io/owner/builder@sha256:12", "mirror.example/nvidia/owner/builder@sha256:12"),
        ("localhost/builder:1", "mirror.example/nvidia/builder:1"),
        ("registry:5000/builder:1", "mirror.example/nvidia/builder:1"),
    ],
)
def test_a_mirror_replaces_the_registry_of_every_image(image, resolved):
    settings = parse_settings({}, source="", registry="mirror.example/nvidia/")
    assert settings.images.resolved(image) == resolved


def test_the_grace_period_covers_leaving_and_finishing():
    settings = OperatorSettings.model_validate({"serving": {"preStopSeconds": 20, "exitTimeoutSeconds": 300}})
    assert settings.grace_period_seconds == 340
