"""Changes under load: no request fails, and only what must change restarts."""

from __future__ import annotations

import pytest

from tests.e2e.digits.installation import install, values
from tests.e2e.digits.team import changed, digits

DEADLINE_SECONDS = 60

pytestmark = pytest.mark.timeout(1500)


def test_a_changed_recipe_rolls_out_and_no_request_fails(served):
    before = served.status("dd")["engine"]["name"]
    with served.load() as load:
        served.apply(digits(quantization={"format": "INT8"}))
        served.wait_ready()
        drawn = load.drawn
        served.wait("pictures of the new pods", lambda: load.drawn > drawn + 5, 60)
    assert served.status("dd")["engine"]["name"] != before
    assert load.failures == []


def test_a_revision_that_cannot_load_is_given_up_and_the_last_good_one_serves_on(served):
    # No revision is given up within the time that its pods have to load.
    impatient = {"rollout": {"progressDeadlineSeconds": DEADLINE_SECONDS}, "serving": {"startupTimeoutSeconds": DEADLINE_SECONDS}}
    served.patch("dd", "digits", {"spec": impatient})
    served.wait_ready()
    good = served.status("dd")["lastGoodRevision"]
    current = served.get("dd")["spec"]
    try:
        with served.load() as load:
            install(served.kubectl, values(images={"tritonCpu": "localhost/diffusion-operator/absent:1"}))
            said = served.wait_for_reason("dd", "digits", "RolloutAbandoned", "Progressing", seconds=180)
            served.wait("its pods to go", lambda: all(good in each["metadata"]["name"] for each in served.pods()), 120)
    finally:
        install(served.kubectl)
    served.wait_ready()
    assert f"no pod of it became ready within {DEADLINE_SECONDS} s: an image cannot be pulled" in said["message"]
    assert served.status("dd")["lastGoodRevision"] == good
    assert served.get("dd")["spec"]["model"] == current["model"]
    assert load.failures == []


def test_a_paused_rollout_waits_and_goes_on_when_it_may(served):
    deployment = changed(digits(quantization={"format": "INT8"}), maxQueueDelayMicroseconds=500)
    deployment["spec"]["rollout"]["paused"] = True
    before = served.pod_names()
    served.apply(deployment)
    served.wait_for_reason("dd", "digits", "RolloutPaused", "Progressing")
    assert served.pod_names() == before
    deployment["spec"]["rollout"]["paused"] = False
    served.apply(deployment)
    served.wait_ready()
    assert not served.pod_names() & before
