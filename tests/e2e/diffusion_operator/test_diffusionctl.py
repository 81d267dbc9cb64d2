"""The commands of `diffusionctl` that work on a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.e2e.cluster.programs import KUBE
from tests.e2e.diffusion_operator.control_plane import ADMIN
from tests.e2e.diffusion_operator.operator_process import OperatorProcess
from tests.e2e.diffusion_operator.play import Play
from tests.e2e.diffusion_operator.test_first_deployment import apply, bring_up


@pytest.fixture
def play(control_plane, kubectl, namespace):
    with OperatorProcess(control_plane, "commanded"):
        yield Play(kubectl, namespace)


@pytest.fixture
def diffusionctl(control_plane, namespace):
    environment = {**os.environ, "KUBECONFIG": str(control_plane.kubeconfig(ADMIN)), "PATH": f"{KUBE.folder}:{os.environ['PATH']}"}

    def run(command, *arguments):
        whole = [sys.executable, "-m", "diffusionctl", command, "digits", "--namespace", namespace, *arguments]
        return subprocess.run(whole, capture_output=True, text=True, check=False, env=environment, timeout=60)

    return run


def change(play, **parts):
    play.kubectl("patch", "dd", "digits", "--namespace", play.namespace, "--type=merge", f"--patch={json.dumps({'spec': parts})}")
    play.wait("a look at it", lambda: play.one("dd")["status"]["observedGeneration"] == play.one("dd")["metadata"]["generation"])


def test_undo_brings_back_what_the_revision_before_served(play, diffusionctl):
    bring_up(play, "digits.yaml")
    before = play.one("dd")
    change(play, serving={"maxQueueDelayMicroseconds": 5000, "maxBatchSize": 2}, shapes=[{"width": 32, "height": 32}])
    done = diffusionctl("undo")
    assert done.returncode == 0, done.stderr
    assert "asks for revision 1 again" in done.stdout
    assert play.one("dd")["spec"] == before["spec"]
    play.wait("the end", lambda: play.said("dd", "Progressing") == ("False", "RolloutComplete"))
    assert play.one("dd")["status"]["servingRevision"] == before["status"]["currentRevision"]


def test_history_and_undo_of_revisions_of_one_engine(play, diffusionctl):
    bring_up(play, "digits.yaml")
    before = play.one("dd")["spec"]
    assert "has no earlier revision" in diffusionctl("undo").stderr
    change(play, serving={"maxQueueDelayMicroseconds": 5000})
    play.wait_for("controllerrevisions", 2)
    listed = json.loads(diffusionctl("history", "--json").stdout)
    assert [(each["revision"], each["fate"]) for each in listed] == [(2, "never had all its pods"), (1, "serves")]
    assert "revision 2 is the one that digits asks for now" in diffusionctl("undo", "--to-revision", "2").stderr
    assert "has no revision 7; earlier ones are: 1" in diffusionctl("undo", "--to-revision", "7").stderr
    assert diffusionctl("undo", "--to-revision", "1").returncode == 0
    assert play.one("dd")["spec"] == before


def test_retry_starts_another_attempt_of_a_failed_build_and_of_no_other(play, diffusionctl):
    apply(play, "digits.yaml")
    (job,) = play.wait_for("jobs")
    play.wait("the engine", lambda: play.said("de")[1] == "EnginePending")
    refused = diffusionctl("retry")
    assert refused.returncode == 2
    assert "has not failed" in refused.stderr
    play.end_job(job, {"event": "result", "succeeded": False, "exitCode": 65, "message": "the checkpoint misses vae/"}, exit_code=65)
    play.wait("the failure", lambda: play.said("de") == ("False", "EngineBuildFailed"))
    done = diffusionctl("retry")
    assert done.returncode == 0, done.stderr
    play.wait_for("jobs", 2)


def test_a_name_that_is_not_there_is_said(play, diffusionctl, namespace):
    refused = diffusionctl("history")
    assert refused.returncode == 2
    assert f"there is no dd digits in namespace {namespace}" in refused.stderr
