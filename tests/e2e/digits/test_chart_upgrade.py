"""An upgrade of chart and operator leaves alone what serves."""

from __future__ import annotations

import pytest
import yaml

from diffusion_api.crd import all_crds
from tests.e2e.definitions import fields_of
from tests.e2e.digits import previous
from tests.e2e.digits.installation import CHART, RELEASE, install, values
from tests.e2e.digits.team import Team
from tests.e2e.digits.upgrade import Upgrade

pytestmark = pytest.mark.timeout(1200)


def test_an_upgrade_from_the_release_before_brings_its_definitions_and_restarts_no_triton_pod(upgraded: Upgrade) -> None:
    before, after = upgraded.before, upgraded.after
    wanted = {field for crd in all_crds().values() for field in fields_of(crd)}
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["version"]
    assert before.chart == f"{RELEASE}-{previous.VERSION}"
    assert wanted - before.fields, "the release before has every field of this one: nothing is upgraded"
    assert after.chart == f"{RELEASE}-{version}"
    assert after.fields == wanted
    assert after.engine == before.engine
    assert after.pods == before.pods
    assert upgraded.failures == ()


def test_settings_that_pods_do_not_see_restart_none(served: Team) -> None:
    before = served.pod_names()
    changed = {**values(build={"ttlSeconds": 4321}), "operator": {"resyncSeconds": 45}, "podAnnotations": {"changed": "yes"}}
    install(served.kubectl, changed)
    served.look_again()
    install(served.kubectl)
    assert served.pod_names() == before
