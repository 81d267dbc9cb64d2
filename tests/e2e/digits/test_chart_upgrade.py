"""An upgrade of the chart leaves alone what serves."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.e2e.digits.installation import CHART, RELEASE, SYSTEM, helm, install, values

PREVIOUS = Path(__file__).parent / "charts" / "diffusion-operator-0.1.0.tgz"

pytestmark = pytest.mark.timeout(900)


def test_an_upgrade_from_the_release_before_restarts_no_triton_pod(served):
    install(served.kubectl, chart=PREVIOUS)
    served.look_again()
    before = served.pod_names()
    with served.load() as load:
        install(served.kubectl)
        served.look_again()
    (release,) = yaml.safe_load(helm(served.kubectl, "list", "--namespace", SYSTEM, "--output", "yaml"))
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["version"]
    assert release["chart"] == f"{RELEASE}-{version}"
    assert version not in PREVIOUS.name
    assert served.pod_names() == before
    assert load.failures == []


def test_settings_that_pods_do_not_see_restart_none(served):
    before = served.pod_names()
    changed = {**values(build={"ttlSeconds": 4321}), "operator": {"resyncSeconds": 45}, "podAnnotations": {"changed": "yes"}}
    install(served.kubectl, changed)
    served.look_again()
    install(served.kubectl)
    assert served.pod_names() == before
