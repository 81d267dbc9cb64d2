"""From `kubectl apply` to Ready against a real API server, with the rights that the documentation lists and no others."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from diffusion_api.parsing import parse_build_job
from tests.e2e.diffusion_operator.control_plane import NAMESPACED
from tests.e2e.diffusion_operator.operator_process import OperatorProcess
from tests.e2e.diffusion_operator.play import TIME, Play
from tests.e2e.diffusion_operator.rights import namespaced_role_and_binding

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def operator(control_plane):
    with OperatorProcess(control_plane, "first") as process:
        yield process


@pytest.fixture
def play(kubectl, namespace):
    return Play(kubectl, namespace)


def apply(play, example):
    play.kubectl("apply", "--namespace", play.namespace, "--filename", EXAMPLES / example)


def bring_up(play, example):
    apply(play, example)
    (job,) = play.wait_for("jobs")
    play.end_job(job)
    (deployment,) = play.wait_for("deployments.apps")
    play.serve(deployment)
    play.wait("the deployment to be ready", lambda: play.said("dd") == ("True", "Serving"))


def test_digits_become_a_build_and_then_a_service(operator, play):
    apply(play, "digits.yaml")
    (job,) = play.wait_for("jobs")
    (config_map,) = play.wait_for("configmaps")
    assert parse_build_job(json.loads(config_map["data"]["job.json"])).accelerator.is_cpu
    play.wait("EnginePending", lambda: play.said("dd", "EngineBuilt") == ("False", "EnginePending"))
    play.end_job(job)
    play.wait("the engine", lambda: play.said("de") == ("True", "EngineReady"))
    (deployment,) = play.wait_for("deployments.apps")
    assert deployment["spec"]["replicas"] == 1
    play.wait("PodsNotReady", lambda: play.said("dd") == ("False", "PodsNotReady"))
    play.serve(deployment)
    play.wait("Ready", lambda: play.said("dd") == ("True", "Serving"))
    digits = play.one("dd")
    assert digits["status"]["observedGeneration"] == digits["metadata"]["generation"]
    assert digits["status"]["recipe"] == "NVFP4 + BF16, no step cache"
    assert {"Service", "PodDisruptionBudget", "NetworkPolicy", "ControllerRevision"} == {
        play.one(kind)["kind"] for kind in ("services", "pdb", "controllerrevisions")
    } | {each["kind"] for each in play.items("networkpolicies")}


def test_users_objects_get_neither_annotations_nor_finalizers(operator, play):
    apply(play, "digits.yaml")
    play.wait_for("jobs")
    digits = play.kubectl.json("get", "dd", "digits", "--namespace", play.namespace, "--show-managed-fields")
    assert set(digits["metadata"].get("annotations", {})) <= {"kubectl.kubernetes.io/last-applied-configuration"}
    assert "finalizers" not in digits["metadata"]
    ours = [each for each in digits["metadata"]["managedFields"] if each["manager"] == "diffusion-operator"]
    assert [(each.get("subresource"), set(each["fieldsV1"])) for each in ours] == [("status", {"f:status"})]


def test_events_tell_what_happened(operator, play):
    bring_up(play, "digits.yaml")
    play.wait("the events", lambda: {each["reason"] for each in play.items("events")} >= {"EnginePending", "EngineReady", "Serving"})


def test_a_rollout_moves_the_pods_and_removes_the_old_deployment(operator, play):
    bring_up(play, "digits.yaml")
    (first,) = play.items("deployments.apps")
    patch = json.dumps({"spec": {"serving": {"maxQueueDelayMicroseconds": 5000}}})
    play.kubectl("patch", "dd", "digits", "--namespace", play.namespace, "--type=merge", f"--patch={patch}")
    play.wait_for("deployments.apps", 2)
    play.wait("room for the new pod", lambda: _replicas(play, first) == 0)
    play.drain()
    second = next(each for each in play.items("deployments.apps") if each["metadata"]["name"] != first["metadata"]["name"])
    play.wait("the new pod", lambda: _replicas(play, second) == 1)
    play.serve(next(each for each in play.items("deployments.apps") if each["metadata"]["name"] == second["metadata"]["name"]))
    play.wait("the end", lambda: play.said("dd", "Progressing") == ("False", "RolloutComplete"))
    assert [each["metadata"]["name"] for each in play.wait_for("deployments.apps")] == [second["metadata"]["name"]]
    assert len(play.items("controllerrevisions")) == 2
    assert len(play.items("jobs")) == 1


def _replicas(play, deployment):
    named = [each for each in play.items("deployments.apps") if each["metadata"]["name"] == deployment["metadata"]["name"]]
    return named[0]["spec"]["replicas"] if named else 0


def test_a_failed_build_says_why(operator, play):
    apply(play, "digits.yaml")
    (job,) = play.wait_for("jobs")
    play.end_job(job, {"event": "result", "succeeded": False, "exitCode": 65, "message": "the checkpoint misses vae/"}, exit_code=65)
    play.wait("the failure", lambda: play.said("dd") == ("False", "EngineBuildFailed"))
    assert play.one("de")["status"]["failure"]["exitCode"] == 65
    assert "misses vae/" in play.one("dd")["status"]["conditions"][0]["message"]
    play.kubectl("annotate", "de", "--all", "diffusionoperator.io/retry=1", "--namespace", play.namespace)
    play.wait_for("jobs", 2)


def test_a_wrong_resource_is_refused_by_the_api_server(play):
    text = (EXAMPLES / "digits.yaml").read_text().replace("product: CPU", "product: NVIDIA-B201")
    refused = play.kubectl.run("apply", "--namespace", play.namespace, "--filename", "-", input=text)
    assert refused.returncode != 0
    assert "set computeCapability" in refused.stderr


def test_sigterm_ends_it_well_and_gives_the_lease_back(control_plane, play):
    with OperatorProcess(control_plane, "ending") as process:
        play.wait("the lease", process.leads)
        assert process.stop(signal.SIGTERM) == 0
    lease = play.kubectl.json("get", "lease", "diffusion-operator", "--namespace", "default")
    assert not lease["spec"].get("holderIdentity")


NO_NODE = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."


def wait_for_a_node_in_vain(play):
    apply(play, "flux2-klein-b200.yaml")
    (job,) = play.wait_for("jobs")
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NO_NODE, "lastTransitionTime": TIME}
    play.pod(job, "waiting", phase="Pending", conditions=[condition])


def test_a_build_that_finds_no_node_says_which_label_is_missing(operator, play):
    wait_for_a_node_in_vain(play)
    play.wait("the reason", lambda: play.said("de") == ("False", "NoMatchingNode"))
    assert "nvidia.com/gpu.product=NVIDIA-B200" in play.one("de")["status"]["conditions"][0]["message"]
    play.wait("the deployment's reason", lambda: play.said("dd") == ("False", "NoMatchingNode"))


def test_an_operator_with_rights_in_one_namespace_serves_that_namespace(control_plane, play):
    play.kubectl.apply(*namespaced_role_and_binding(NAMESPACED, play.namespace))
    arguments = (f"--namespace={play.namespace}", f"--lease-namespace={play.namespace}")
    with OperatorProcess(control_plane, "namespaced", *arguments, user=NAMESPACED) as process:
        wait_for_a_node_in_vain(play)
        play.wait("the reason", lambda: play.said("de") == ("False", "EnginePending") and NO_NODE in str(play.one("de")["status"]))
        assert process.metric("controller_runtime_reconcile_errors_total") == 0
