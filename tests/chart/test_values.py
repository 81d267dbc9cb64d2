"""The values: every key described, every misspelt or mistyped one refused, generated files current."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from diffusion_operator.settings import OperatorSettings
from tests.chart.rendering import CHART, ROOT, VARIANTS, run_template
from tools.chart.__main__ import generated_files, main
from tools.chart.values import CommentError, read_values

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


def test_generated_files_are_current():
    assert main(["check"]) == 0, "run `make generate` and commit"


def test_a_stale_file_is_found_and_written_anew(tmp_path, capsys):
    shutil.copytree(CHART, tmp_path / "charts/diffusion-operator")
    crd = tmp_path / "charts/diffusion-operator/files/crds/diffusionengines.yaml"
    crd.unlink()
    assert main(["check", "--root", str(tmp_path)]) == 1
    assert "diffusionengines.yaml is not current; run `make generate`" in capsys.readouterr().err
    assert main(["generate", "--root", str(tmp_path)]) == 0
    assert main(["check", "--root", str(tmp_path)]) == 0
    assert crd.read_bytes() == (ROOT / "crds/diffusionengines.yaml").read_bytes()


def test_a_value_without_a_comment_is_named():
    with pytest.raises(CommentError, match=r"image\.tag has no comment"):
        read_values("# Image.\nimage:\n  tag: ''\n")


def test_a_broken_schema_line_is_named():
    with pytest.raises(CommentError, match="@schema line of a is no JSON object"):
        read_values("# A.\n# @schema {minimum: 1}\na: 1\n")


def test_every_field_of_the_settings_is_in_the_schema_and_the_readme():
    properties = SCHEMA["$defs"]["OperatorSettings"]["properties"]
    assert set(properties) == {field.alias for field in OperatorSettings.model_fields.values()}
    readme = generated_files(ROOT)[(CHART / "README.md").relative_to(ROOT)]
    for name in properties:
        assert f"`settings.{name}" in readme


def test_chart_and_images_are_of_one_release():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    images = OperatorSettings().images
    assert {image.rpartition(":")[2] for image in (images.builder, images.triton_cpu, images.triton_gpu)} == {chart["appVersion"]}


def test_helm_lints_the_chart_with_every_file_of_values(capsys):
    assert main(["lint"]) == 0, capsys.readouterr().err


def test_without_helm_lint_says_that_it_was_left_out(monkeypatch, capsys):
    monkeypatch.setattr("tools.chart.lint.helm_path", lambda: None)
    assert main(["lint"]) == 0
    assert "LEFT OUT" in capsys.readouterr().err


@pytest.mark.parametrize("variant", VARIANTS)
def test_good_values_render(variant):
    assert run_template(variant).returncode == 0


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("replica=2", "replica"),
        ("image.tags=x", "tags"),
        ("replicas=-1", "replicas"),
        ("image.digest=sha256:12", "digest"),
        ("operator.logLevel=chatty", "logLevel"),
        ("settings.images.bulder=x", "bulder"),
        ("settings.build.backoffLimit=101", "backoffLimit"),
        ("settings.build.resources.memory=much", "memory"),
        ("settings.engineStore.size=1Ti", "engineStore"),  # `kind` is missing.
        ("settings.engineStore.kind=NFS", "engineStore"),
        ("settings.engineRetentionSeconds=soon", "engineRetentionSeconds"),
        ("metrics.serviceMonitor.interval=often", "interval"),
        ("watchNamespaces={Pictures}", "watchNamespaces"),
        ("networkPolicy.apiServerPorts={70000}", "apiServerPorts"),
        ("nameOverride=Painter", "nameOverride"),
        ("nameOverride=1-painter", "nameOverride"),
        ("nameOverride=painter.example", "nameOverride"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(setting, said):
    done = run_template("default", setting)
    assert done.returncode
    assert "values don't meet the specifications of the schema" in done.stderr
    assert said in done.stderr


def test_a_parent_chart_may_pass_its_own_globals():
    assert run_template("default", "global.imageRegistry=other.example").returncode == 0
