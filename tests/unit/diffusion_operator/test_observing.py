"""What pods, Jobs and engines look like when something is wrong; the texts are Kubernetes' own."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from diffusion_api.conditions import Reason
from diffusion_api.prepare_exit import PrepareExit
from diffusion_operator.manifests.controller_revision import RevisionRecord, controller_revision
from diffusion_operator.manifests.labels import REVISION
from diffusion_operator.manifests.serving_deployment import serving_deployment
from diffusion_operator.observing.builds import observed_job, pods_of
from diffusion_operator.observing.deployments import observed_engine, orphaned_records, revision_pods, revision_records
from diffusion_operator.observing.pods import files_missing_at, mount_trouble, trouble, waits_for_volumes_since
from diffusion_operator.planning.observed import EngineState, JobEnd, JobPhase, Trouble, TroubleKind
from tests.unit.diffusion_operator.scenes import NOW, OWNER, RESULT, engine

TIME = "2026-08-01T12:00:00Z"


def pod(phase="Pending", name="pod", **status):
    return {"metadata": {"name": name, "labels": {REVISION: "klein-1"}}, "status": {"phase": phase, **status}}


def unschedulable(message):
    return pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}])


def container(name="triton", *, field="containerStatuses", **status):
    return pod("Running", **{field: [{"name": name, **status}]})


def ended(code, name="triton", *, message="", reason="Error", last=False, **where):
    end = {"exitCode": code, "reason": reason, "message": message, "finishedAt": TIME}
    state = (
        {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": end}} if last else {"state": {"terminated": end}}
    )
    return container(name, ready=False, **state, **where)


INIT = {"field": "initContainerStatuses"}


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (
            unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
            TroubleKind.UNSCHEDULABLE,
            "Insufficient nvidia.com/gpu",
        ),
        (unschedulable("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."), TroubleKind.VOLUME, "unbound"),
        (unschedulable('0/1 nodes are available: persistentvolumeclaim "store" not found.'), TroubleKind.VOLUME, "not found"),
        (
            container(state={"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}}),
            TroubleKind.IMAGE,
            "Back-off",
        ),
        (
            container("prepare-engine", state={"waiting": {"reason": "ErrImageNeverPull"}}, image="x:1", **INIT),
            TroubleKind.IMAGE,
            "x:1: ErrImageNeverPull",
        ),
        (
            container(state={"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}}),
            TroubleKind.CRASHED,
            'triton cannot start: secret "s3" not found',
        ),
        (ended(137, reason="OOMKilled"), TroubleKind.OUT_OF_MEMORY, "triton used more"),
        (ended(137, reason="OOMKilled", last=True), TroubleKind.OUT_OF_MEMORY, "triton used more"),
        (ended(1, message="line\n  error: no such layer\n"), TroubleKind.CRASHED, "line error: no such layer"),
        (ended(1, last=True), TroubleKind.CRASHED, "exit code 1"),
        (ended(PrepareExit.FILES_MISSING, "prepare-engine", message="no manifest", **INIT), TroubleKind.FILES_MISSING, "no manifest"),
        (ended(PrepareExit.MISMATCH, "prepare-engine", last=True, **INIT), TroubleKind.MISMATCH, "exit code"),
        (ended(PrepareExit.MISMATCH), TroubleKind.CRASHED, "exit code"),
        (
            pod("Failed", reason="Evicted", message="The node was low on resource: memory."),
            TroubleKind.CRASHED,
            "Evicted: The node was low",
        ),
    ],
)
def test_a_pod_in_trouble_is_understood(body, kind, said):
    found = trouble(body)
    assert found is not None
    assert found.kind is kind
    assert said in found.message
    assert "\n" not in found.message


@pytest.mark.parametrize(
    "body",
    [
        pod(),
        pod("Running"),
        container(ready=True, state={"running": {}}, lastState={"terminated": {"exitCode": 1}}),
        ended(0, "prepare-engine", **INIT),
        pod(conditions="nonsense", containerStatuses={"no": "list"}),
        {},
    ],
)
def test_a_pod_that_works_or_only_waits_is_in_no_trouble(body):
    assert trouble(body) is None


def scheduled(*conditions, phase="Pending", **status):
    return pod(phase, conditions=[{"type": "PodScheduled", "status": "True", "lastTransitionTime": TIME}, *conditions], **status)


PULLS = {"containerStatuses": [{"name": "triton", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}


@pytest.mark.parametrize(
    ("body", "waits"),
    [
        (scheduled(), True),
        (scheduled({"type": "PodReadyToStartContainers", "status": "False"}), True),
        (scheduled({"type": "PodReadyToStartContainers", "status": "True"}), False),
        (scheduled(phase="Running"), False),
        (scheduled(**PULLS), False),
        (unschedulable("no room"), False),
        (pod(), False),
    ],
)
def test_a_pod_with_a_node_that_does_not_start_and_says_no_reason_waits_for_its_volumes(body, waits):
    assert (waits_for_volumes_since(body) is not None) is waits


def test_the_newest_event_about_a_mount_is_told():
    events = [
        {"reason": "FailedMount", "message": 'secret "late"\n not found', "lastTimestamp": "2026-08-01T12:00:09Z"},
        {"reason": "FailedAttachVolume", "message": "Multi-Attach error", "eventTime": "2026-08-01T12:00:01.000000Z"},
        {"reason": "Pulled", "message": "pulled", "lastTimestamp": "2026-08-01T12:00:20Z"},
    ]
    assert mount_trouble(events) == Trouble(TroubleKind.VOLUME, 'secret "late" not found')
    assert mount_trouble(events[2:]) is None


def test_what_a_pod_cannot_mount_is_its_revisions_and_its_jobs_trouble():
    missing = {"pod": Trouble(TroubleKind.VOLUME, 'secret "hub-token" not found')}
    assert revision_pods([], [scheduled()], missing)["klein-1"].trouble == missing["pod"]
    assert observed_job(job(), [scheduled()], unmounted=missing).trouble == missing["pod"]


def test_pods_of_a_revision_are_summed_up():
    ready = pod("Running", conditions=[{"type": "Ready", "status": "True", "lastTransitionTime": TIME}])
    leaving = {**ready, "metadata": {**ready["metadata"], "deletionTimestamp": TIME}}
    deployment = {"metadata": {"name": "klein-1"}, "spec": {"replicas": 2}}
    pods = revision_pods([deployment], [ready, leaving, pod("Failed"), pod("Succeeded"), ended(1), unschedulable("no room")])
    state = pods["klein-1"]
    assert (state.desired, state.existing, state.ready) == (2, 4, 1)
    assert state.last_ready_at == datetime(2026, 8, 1, 12, tzinfo=UTC)
    assert state.trouble is not None


def test_pods_without_their_deployment_still_hold_their_accelerator():
    pods = revision_pods([{"metadata": {"name": "klein-2", "deletionTimestamp": TIME}, "spec": {"replicas": 3}}], [pod()])
    assert (pods["klein-1"].held, pods["klein-2"].desired) == (1, 0)


def test_pods_tell_how_many_a_deployment_wants_that_is_not_known():
    leaving = pod(name="leaving")
    leaving["metadata"]["deletionTimestamp"] = TIME
    state = revision_pods([], [pod(), pod(name="other"), leaving])["klein-1"]
    assert (state.desired, state.existing) == (2, 3)


def test_files_are_missing_since_the_last_pod_said_so():
    missing = ended(PrepareExit.FILES_MISSING, "prepare-engine", last=True, **INIT)
    assert files_missing_at([pod(), missing]) == datetime(2026, 8, 1, 12, tzinfo=UTC)
    assert files_missing_at([ended(PrepareExit.MISMATCH, "prepare-engine", **INIT)]) is None


def test_foreign_revisions_are_left_alone():
    ours = controller_revision(OWNER, RevisionRecord("klein-1", 1, "engine-1", "key", {}, {}, NOW))
    assert [each.name for each in revision_records([{"metadata": {}}, {**ours, "data": 3}, ours])] == ["klein-1"]


def test_a_deployment_whose_record_is_gone_tells_enough_to_scale_it():
    record = RevisionRecord("klein-1", 1, "engine-1", "key", {"spec": {"containers": []}}, {}, NOW)
    left = serving_deployment(OWNER, record, 2)
    going = {**left, "metadata": {**left["metadata"], "deletionTimestamp": TIME}}
    (orphan,) = orphaned_records([left, going], [])
    assert (orphan.name, orphan.engine, orphan.template) == ("klein-1", "engine-1", record.template)
    assert orphaned_records([left], [record]) == ()


def job(*conditions, **spec):
    return {
        "metadata": {"name": "job", "uid": "j"},
        "spec": spec,
        "status": {"startTime": TIME, "failed": 1, "active": 1, "conditions": [{"status": "True", **each} for each in conditions]},
    }


def builder(message, code=0):
    return {**ended(code, "builder", message=message), "metadata": {"name": "b", "ownerReferences": [{"uid": "j", "controller": True}]}}


@pytest.mark.parametrize(
    ("body", "pods", "phase"),
    [
        (None, [], JobPhase.ABSENT),
        (job(suspend=True), [], JobPhase.SUSPENDED),
        (job(), [], JobPhase.PENDING),
        (job(), [pod()], JobPhase.PENDING),
        (job(), [pod("Running")], JobPhase.RUNNING),
        (job({"type": "SuccessCriteriaMet"}), [pod("Succeeded")], JobPhase.PENDING),
        (job({"type": "Complete"}, suspend=True), [], JobPhase.SUCCEEDED),
        (job({"type": "Failed"}), [], JobPhase.FAILED),
    ],
)
def test_a_jobs_phase_is_read_from_its_conditions(body, pods, phase):
    assert observed_job(body, pods).phase is phase


def test_the_result_of_a_build_is_in_its_termination_message():
    line = json.dumps({"event": "result", "succeeded": True, "result": RESULT.to_wire()})
    found = observed_job(job({"type": "Complete"}), [builder(line)])
    assert found.result == RESULT
    assert found.attempts == 2


def test_the_result_of_a_build_may_be_in_its_log_alone():
    line = json.dumps({"event": "result", "succeeded": True, "result": RESULT.to_wire()})
    assert observed_job(job({"type": "Complete"}), [builder("")], f"words\n{line}").result == RESULT


@pytest.mark.parametrize(
    ("body", "pods", "is_untold"),
    [
        (job({"type": "Complete"}), [], True),
        (job({"type": "Failed"}), [], True),
        (job({"type": "Complete"}), [builder("")], False),
        (job(), [], False),
    ],
)
def test_an_ended_job_without_a_pod_is_untold(body, pods, is_untold):
    assert observed_job(body, pods).is_untold is is_untold


def test_a_job_that_waits_for_its_pods_to_go_before_it_has_failed_is_ending():
    assert observed_job(job({"type": "FailureTarget"}), [pod("Running")]).is_ending
    assert not observed_job(job(), [pod("Running")]).is_ending
    assert not observed_job(job({"type": "FailureTarget"}, {"type": "Failed"}), []).is_ending


def test_a_failed_build_says_why():
    line = json.dumps({"event": "result", "succeeded": False, "message": "the checkpoint misses vae/"})
    failed = {"type": "Failed", "reason": "DeadlineExceeded", "lastTransitionTime": TIME}
    found = observed_job(job(failed), [builder(line, 65)], "the log")
    assert (found.exit_code, found.message, found.log_tail, found.end) == (65, "the checkpoint misses vae/", "the log", JobEnd.DEADLINE)
    assert found.trouble is not None
    assert found.trouble.message == "the checkpoint misses vae/"
    assert found.finished_at == datetime(2026, 8, 1, 12, tzinfo=UTC)


def test_progress_is_read_from_the_log_of_a_running_build():
    line = json.dumps({"event": "progress", "stage": "export", "percent": 50})
    found = observed_job(job(), [pod("Running")], line)
    assert found.progress is not None
    assert found.progress.stage == "export"


def test_pods_of_another_job_of_the_same_engine_do_not_count():
    assert pods_of(job(), [builder(""), pod()]) == [builder("")]


def conditions(ready, progressing, reason, gate=None):
    times = {"observedGeneration": 1, "lastTransitionTime": TIME}
    found = [
        {"type": "Ready", "status": ready, "reason": reason, "message": "so it is", **times},
        {"type": "Progressing", "status": progressing, "reason": reason, **times},
    ]
    return {"conditions": found + ([{"type": "QualityGatePassed", "status": "False", "reason": gate, **times}] if gate else [])}


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (None, EngineState.PENDING),
        (conditions("False", "True", "EnginePending"), EngineState.PENDING),
        (conditions("False", "True", "NoMatchingNode"), EngineState.PENDING),
        (conditions("False", "True", "EngineQueued"), EngineState.QUEUED),
        (conditions("False", "True", "EngineBuilding"), EngineState.BUILDING),
        (conditions("False", "True", "OutOfMemory"), EngineState.BUILDING),
        (conditions("False", "False", "EngineBuildFailed"), EngineState.FAILED),
        (conditions("False", "False", "EngineFilesMissing"), EngineState.PENDING),
        (conditions("True", "False", "EngineReady"), EngineState.FAILED),
        (conditions("True", "False", "EngineReady") | {"result": RESULT.to_wire()}, EngineState.READY),
    ],
)
def test_an_engines_state_is_read_from_its_conditions(status, state):
    assert observed_engine(engine(status)).state is state


def test_an_engine_outside_its_budget_is_known_as_such():
    failed = observed_engine(engine(conditions("False", "False", "EngineBuildFailed", "QualityOutsideBudget")))
    assert (failed.outside_budget, failed.reason) == (True, Reason.ENGINE_BUILD_FAILED)
