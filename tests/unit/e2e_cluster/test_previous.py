"""The release that the upgrade's test begins with."""

from __future__ import annotations

import re

import yaml

from tests.e2e.digits import previous
from tests.e2e.digits.installation import CHART


def test_the_release_before_has_all_that_its_image_is_made_of(tmp_path):
    options = previous.options(tmp_path / "sources")
    dockerfile = (options.context / "images" / "operator.Dockerfile").read_text(encoding="utf-8")
    copied = [name for names in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE) for name in names.split()]
    assert copied
    assert [name for name in copied if not (options.context / name).exists()] == []
    assert options.name("operator").endswith(f":{previous.VERSION}")


def test_it_is_not_this_release():
    assert yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["version"] != previous.VERSION
    assert previous.CHART.is_file()
