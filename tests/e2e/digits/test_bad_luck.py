"""What goes wrong between an engine's build and its pods, and what a user is told. Real Jobs, real kubelet, real volumes."""

from __future__ import annotations

import shutil

import pytest

from diffusion_operator.manifests.labels import ENGINE
from tests.e2e.cluster import layout
from tests.e2e.digits.installation import install, values
from tests.e2e.digits.team import BUILD_SECONDS, digits

pytestmark = pytest.mark.timeout(1500)
DEADLINE_SECONDS = 60  # The least that the settings take.
SEED = 100
"""Seeds of calibration make engines of their own, so that nothing is reused where a build is wanted."""


def other(name, seed):
    """A deployment whose engine nobody has built."""
    return digits(name, calibration={"samples": 8, "seed": SEED + seed})


def engine_of(team, name):
    team.wait(f"the engine of {name}", lambda: "engine" in team.status("dd", name), 60)
    return team.status("dd", name)["engine"]["name"]


def wait_for_builder(team, engine):
    team.wait("the builder to run", lambda: "Building:" in team.status("de", engine).get("phase", ""), 120)


@pytest.fixture
def named(team, request):
    """The name of a deployment of the test's own, deleted with what it made."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:20].strip("-")
    yield name
    engine = team.status("dd", name).get("engine", {}).get("name")
    team.delete("dd", name)
    if engine and not any(each.get("status", {}).get("engine", {}).get("name") == engine for each in team.items("dd")):
        team.delete("de", engine)


@pytest.fixture
def settings(team):
    """Installs with other settings, and afterwards with the usual ones."""
    yield lambda **parts: install(team.kubectl, values(**parts))
    install(team.kubectl)


def test_two_deployments_with_one_key_share_an_engine(served, named):
    jobs = len(served.items("jobs"))
    served.apply(digits(named))
    served.wait_ready(named, 180)
    assert engine_of(served, named) == engine_of(served, "digits")
    assert len(served.items("jobs")) == jobs
    assert served.status("de", engine_of(served, named))["users"] == 2


def test_engine_files_that_are_deleted_are_built_again(served):
    engine = engine_of(served, "digits")
    artifact = served.status("de", engine)["result"]["artifact"]
    (folder,) = layout.VOLUMES.glob(f"*/**/{artifact}")
    shutil.rmtree(folder)
    for pod in served.pods():
        served.delete("pod", pod["metadata"]["name"], "--wait=false")
    served.wait("the files", folder.is_dir, BUILD_SECONDS)
    served.wait_ready()
    assert served.draw("a red digit seven")


def test_a_damaged_engine_file_is_noticed_before_it_serves(served):
    engine = engine_of(served, "digits")
    artifact = served.status("de", engine)["result"]["artifact"]
    (weights,) = layout.VOLUMES.glob(f"*/**/{artifact}/model_repository/transformer/1/*.bin")
    weights.chmod(0o644)
    weights.write_bytes(b"\0" * weights.stat().st_size)
    for pod in served.pods():
        served.delete("pod", pod["metadata"]["name"], "--wait=false")
    served.wait("the weights", lambda: weights.is_file() and weights.read_bytes()[-64:] != b"\0" * 64, BUILD_SECONDS)
    served.wait_ready()
    assert served.draw("a red digit seven")


def test_a_missing_checkpoint_claim_is_named(team, named):
    deployment = other(named, 1)
    deployment["spec"]["model"]["uri"] = "pvc://nowhere/digits-klein"
    team.apply(deployment)
    said = team.wait_for_reason("de", engine_of(team, named), "VolumeUnavailable")
    assert 'persistentvolumeclaim "nowhere" not found' in said["message"]


def test_a_claim_that_nobody_binds_is_named(team, named):
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "nowhere", "resources": {"requests": {"storage": "1Mi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "unbound"}, "spec": spec}
    team.kubectl.apply(claim, namespace=team.namespace)
    deployment = other(named, 8)
    deployment["spec"]["model"]["uri"] = "pvc://unbound/digits-klein"
    team.apply(deployment)
    said = team.wait_for_reason("de", engine_of(team, named), "VolumeUnavailable")
    assert "unbound immediate PersistentVolumeClaims" in said["message"]


def test_a_missing_secret_is_named(team, named):
    deployment = other(named, 7)
    deployment["spec"]["model"]["secretName"] = "nowhere"
    team.apply(deployment)
    said = team.wait_for_reason("de", engine_of(team, named), "VolumeUnavailable")
    assert 'secret "nowhere" not found' in said["message"]


def test_a_missing_builder_image_is_named(team, named, settings):
    settings(images={"builder": "localhost/diffusion-operator/absent:1"})
    team.apply(other(named, 2))
    said = team.wait_for_reason("de", engine_of(team, named), "ImageUnavailable")
    assert "absent:1" in said["message"]


def test_a_builder_without_enough_memory_says_so(team, named, settings):
    settings(build={"resources": {"cpu": "250m", "memory": "200Mi"}, "backoffLimit": 0})
    team.apply(other(named, 3))
    said = team.wait_for_reason("de", engine_of(team, named), "OutOfMemory", seconds=180)
    assert "raise resources.memory" in said["message"]


def test_a_build_beyond_its_deadline_is_stopped_and_says_which_setting_to_raise(team, named, settings):
    settings(build={"deadlineSeconds": DEADLINE_SECONDS})
    team.apply(digits(named, calibration={"samples": 1024, "seed": SEED}, quantization={"format": "NVFP4", "algorithm": "SVDQuant"}))
    engine = engine_of(team, named)
    said = team.wait_for_reason("de", engine, "BuildDeadlineExceeded", seconds=3 * DEADLINE_SECONDS)
    assert f"longer than {DEADLINE_SECONDS} s; raise build.deadlineSeconds" in said["message"]
    # It ends when it is told to, and not after the 30 s that Kubernetes gives it.
    team.wait("its pod to end", lambda: not team.items("pods", f"{ENGINE}={engine}"), 20)


def test_an_evicted_builder_goes_on_where_it_was(team, named):
    team.apply(other(named, 4))
    engine = engine_of(team, named)
    wait_for_builder(team, engine)
    (pod,) = team.items("pods", f"{ENGINE}={engine}")
    team.evict(pod["metadata"]["name"])
    team.wait_for_reason("de", engine, "EngineReady", seconds=BUILD_SECONDS)
    (job,) = team.items("jobs", f"{ENGINE}={engine}")
    assert job["status"]["succeeded"] == 1
    assert job["status"].get("failed", 0) == 0, "an eviction is not the builder's failure"


def test_a_spec_changed_in_the_middle_of_a_build_gets_the_engine_it_asks_for_last(team, named):
    team.apply(other(named, 5))
    first = engine_of(team, named)
    wait_for_builder(team, first)
    team.apply(other(named, 4))
    team.wait("the other engine", lambda: engine_of(team, named) != first, 60)
    team.wait_ready(named)
    assert team.status("de", first).get("users", 0) == 0
    team.delete("de", first)


def test_a_deployment_deleted_in_the_middle_of_a_build_leaves_nothing_that_runs_for_ever(team):
    team.apply(other("short", 6))
    engine = engine_of(team, "short")
    wait_for_builder(team, engine)
    team.delete("dd", "short")
    team.wait("the engine to be unused", lambda: "unusedSince" in team.status("de", engine), 60)
    team.delete("de", engine)
    team.wait("its pods to go", lambda: not team.items("pods", f"{ENGINE}={engine}"), 90)
    assert team.items("jobs", f"{ENGINE}={engine}") == []
