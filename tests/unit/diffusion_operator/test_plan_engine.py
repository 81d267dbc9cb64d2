from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from diffusion_api.conditions import ConditionStatus, ConditionType, Reason
from diffusion_api.engine import BuildProgress
from diffusion_api.engine_key import engine_name
from diffusion_operator.manifests.base import Ref
from diffusion_operator.observing.deployments import observed_engine
from diffusion_operator.planning.engine import job_name, plan_engine
from diffusion_operator.planning.engine_identity import engine_identity
from diffusion_operator.planning.observed import (
    ArtifactUse,
    Cluster,
    EngineState,
    JobEnd,
    JobPhase,
    ObservedBuild,
    ObservedJob,
    Trouble,
    TroubleKind,
)
from diffusion_operator.planning.plan import EventType
from diffusion_operator.planning.troubles import unmatched
from tests.unit.diffusion_operator.scenes import B200_LABELS, NOW, RESULT, SETTINGS, deployment, engine, settings

READY, BUILT, GATE = ConditionType.READY, ConditionType.ENGINE_BUILT, ConditionType.QUALITY_GATE_PASSED
USED = ObservedBuild(users=1)
LATER = NOW + timedelta(hours=1)


def seen(job: ObservedJob, **changes) -> ObservedBuild:
    return replace(USED, job=job, **changes)


def plan(job: ObservedJob | None = None, status=None, now=NOW, options=SETTINGS, **changes):
    observed = seen(job or ObservedJob(), **changes)
    return plan_engine(engine(status.to_wire() if status else None), observed, options, now)


def condition(made, type=READY):
    (found,) = [each for each in made.status.conditions if each.type is type]
    return found


FINISHED = ObservedJob(JobPhase.SUCCEEDED, attempts=1, started_at=NOW, finished_at=LATER, result=RESULT)


def failed(**changes) -> ObservedJob:
    return replace(ObservedJob(JobPhase.FAILED, attempts=1, started_at=NOW, finished_at=LATER, end=JobEnd.EXIT_CODE), **changes)


def test_a_new_engine_gets_store_job_file_and_job():
    made = plan()
    assert [each["kind"] for each in made.apply] == ["PersistentVolumeClaim", "NetworkPolicy", "ConfigMap", "Job"]
    assert condition(made).reason is Reason.ENGINE_PENDING
    assert made.status.job_name == made.apply[-1]["metadata"]["name"]


def test_a_store_that_is_there_or_is_brought_is_not_made():
    assert "PersistentVolumeClaim" not in {each["kind"] for each in plan(store_exists=True).apply}
    brought = settings(engineStore={"kind": "PersistentVolumeClaim", "create": False})
    assert "PersistentVolumeClaim" not in {each["kind"] for each in plan(options=brought).apply}


def test_under_dra_the_job_s_claim_template_comes_with_it():
    made = plan(options=settings(dynamicResources={"enabled": True}))
    names = {each["kind"]: each["metadata"]["name"] for each in made.apply}
    assert names["ResourceClaimTemplate"] == names["Job"]
    # The API server refuses changes of a claim template: one that is left from before the settings changed makes room.
    assert made.delete == (Ref("resource.k8s.io/v1", "ResourceClaimTemplate", "pictures", names["Job"]),)
    assert plan().delete == ()


def test_the_job_mounts_the_job_file_that_is_made_with_it():
    config_map, job = plan().apply[-2:]
    volumes = job["spec"]["template"]["spec"]["volumes"]
    assert [each["configMap"]["name"] for each in volumes if "configMap" in each] == [config_map["metadata"]["name"]]


@pytest.mark.parametrize("phase", [phase for phase in JobPhase if phase is not JobPhase.ABSENT])
def test_a_job_is_applied_once_only(phase):
    assert plan(ObservedJob(phase, finished_at=LATER, result=RESULT)).apply == ()


def test_the_engine_s_key_is_the_deployment_s():
    identity = engine_identity(deployment().spec, None, SETTINGS)
    assert plan().status.key == identity.key
    assert engine_name(identity.key) == identity.name
    assert plan(status=plan().status, options=settings(versions={"tensorrt": "12.0"})).status.key == identity.key


@pytest.mark.parametrize(
    ("job", "reason", "phase"),
    [
        (ObservedJob(JobPhase.SUSPENDED), Reason.ENGINE_QUEUED, "Queued"),
        (ObservedJob(JobPhase.PENDING), Reason.ENGINE_PENDING, "Pending"),
        (ObservedJob(JobPhase.RUNNING), Reason.ENGINE_BUILDING, "Building"),
        (
            ObservedJob(JobPhase.RUNNING, progress=BuildProgress(stage="export", percent=60)),
            Reason.ENGINE_BUILDING,
            "Building: export, 60 %",
        ),
        (
            ObservedJob(JobPhase.PENDING, trouble=Trouble(TroubleKind.VOLUME, "unbound")),
            Reason.VOLUME_UNAVAILABLE,
            "Building: Volume",
        ),
        (ObservedJob(JobPhase.PENDING, trouble=Trouble(TroubleKind.IMAGE, "not found")), Reason.IMAGE_UNAVAILABLE, "Building: Image"),
        (
            ObservedJob(JobPhase.RUNNING, trouble=Trouble(TroubleKind.OUT_OF_MEMORY, "137")),
            Reason.OUT_OF_MEMORY,
            "Building: OutOfMemory",
        ),
        (ObservedJob(JobPhase.RUNNING, trouble=Trouble(TroubleKind.CRASHED, "exit 75")), Reason.ENGINE_BUILDING, "Building: Crashed"),
    ],
)
def test_a_build_under_way_says_how_far_it_is_or_what_it_lacks(job, reason, phase):
    made = plan(job)
    assert (condition(made).status, condition(made).reason) == (ConditionStatus.FALSE, reason)
    assert condition(made, ConditionType.PROGRESSING).status is ConditionStatus.TRUE
    assert made.status.phase == phase


def test_progress_alone_is_no_event_and_no_change_of_a_condition():
    first = plan(ObservedJob(JobPhase.RUNNING, progress=BuildProgress(stage="export", percent=60)))
    second = plan(ObservedJob(JobPhase.RUNNING, progress=BuildProgress(stage="export", percent=70)), status=first.status, now=LATER)
    assert second.status.conditions == first.status.conditions
    assert second.events == ()
    assert second.status.progress.percent == 70


def test_a_gpu_that_no_node_has_is_named():
    job = ObservedJob(JobPhase.PENDING, trouble=Trouble(TroubleKind.UNSCHEDULABLE, "0/3 nodes"))
    made = plan(job, cluster=Cluster(node_labels=({"kubernetes.io/hostname": "a"},)))
    assert condition(made).reason is Reason.NO_MATCHING_NODE
    assert "nvidia.com/gpu.product=NVIDIA-B200 (no node has that label at all)" in condition(made).message
    waiting = plan(job, cluster=Cluster(node_labels=(B200_LABELS,)))
    assert condition(waiting).reason is Reason.ENGINE_PENDING


def test_a_built_engine_is_ready_and_stays_so_when_its_job_is_gone():
    made = plan(FINISHED)
    assert {each.status for each in made.status.conditions if each.type in (READY, BUILT, GATE)} == {ConditionStatus.TRUE}
    assert made.status.result == RESULT
    later = plan(status=made.status, now=LATER + timedelta(days=2))
    assert later.status == made.status
    assert (later.apply, later.events) == ((), ())


def test_a_simulated_quality_is_called_so():
    result = RESULT.model_copy(update={"verified_on_engine": False})
    assert "in torch" in condition(plan(replace(FINISHED, result=result)), GATE).message


def test_a_lost_engine_is_built_again_once():
    done = plan(FINISHED).status
    lost = plan(FINISHED, status=done, files_missing_at=LATER + timedelta(minutes=5))
    assert condition(lost).reason is Reason.ENGINE_FILES_MISSING
    assert lost.delete == (Ref("batch/v1", "Job", "pictures", done.job_name),)
    again = plan(status=lost.status, files_missing_at=LATER + timedelta(minutes=5))
    assert again.apply[-1]["kind"] == "Job"
    rebuilt = replace(FINISHED, finished_at=LATER + timedelta(minutes=20))
    healed = plan(rebuilt, status=again.status, files_missing_at=LATER + timedelta(minutes=5))
    assert condition(healed).status is ConditionStatus.TRUE
    assert healed.delete == ()


def test_a_lost_engine_whose_job_is_gone_is_built_again():
    done = plan(FINISHED).status
    assert plan(status=done, files_missing_at=LATER + timedelta(days=3)).apply[-1]["kind"] == "Job"
    assert plan(status=done, files_missing_at=NOW).apply == ()


def lost(status, minutes: int = 5):
    """The plan when pods miss the files of a build, and the status once it was built again."""
    finished = status.finished_at
    found = plan(replace(FINISHED, finished_at=finished), status=status, files_missing_at=finished + timedelta(minutes=minutes))
    again = replace(FINISHED, finished_at=finished + timedelta(minutes=minutes + 30))
    return found, plan(again, status=found.status, files_missing_at=finished + timedelta(minutes=minutes)).status


def test_files_that_are_lost_again_and_again_are_not_built_for_ever():
    status = plan(FINISHED).status
    for _ in range(2):
        found, status = lost(status)
        assert [ref.kind for ref in found.delete] == ["Job"]
    stopped, _ = lost(status)
    assert (stopped.apply, stopped.delete) == ((), ())
    assert (condition(stopped).reason, condition(stopped, ConditionType.PROGRESSING).status) == (
        Reason.ENGINE_FILES_MISSING,
        ConditionStatus.FALSE,
    )
    assert "3 times in a row" in condition(stopped).message
    assert "kubectl annotate de" in condition(stopped).message
    assert observed_engine(engine(stopped.status.to_wire())).state is EngineState.FAILED
    for job in (replace(FINISHED, finished_at=stopped.status.finished_at), ObservedJob()):
        quiet = plan(job, status=stopped.status, files_missing_at=LATER + timedelta(days=1), now=LATER)
        assert (quiet.status, quiet.apply, quiet.delete, quiet.events) == (stopped.status, (), (), ())
    again = plan(status=stopped.status, files_missing_at=LATER + timedelta(days=1), retry="2026-08-02")
    assert again.apply[-1]["kind"] == "Job"
    assert again.status.losses == 0


def test_files_that_are_lost_once_in_a_while_are_always_built_again():
    status = plan(FINISHED).status
    for _ in range(5):
        found, status = lost(status, minutes=60 * 24 * 30)
        assert [ref.kind for ref in found.delete] == ["Job"]
    assert status.losses == 1


def test_a_loss_counts_once_however_often_it_is_looked_at():
    status = plan(FINISHED).status
    missing = LATER + timedelta(minutes=5)
    begun = plan(status=status, files_missing_at=missing).status
    assert begun.losses == plan(ObservedJob(JobPhase.RUNNING), status=begun, files_missing_at=missing).status.losses == 1
    assert plan(ObservedJob(JobPhase.RUNNING), status=status, files_missing_at=missing).status.losses == 1


def test_a_build_whose_pod_went_before_it_was_read_runs_again():
    untold = plan(replace(FINISHED, result=None, is_untold=True))
    assert untold.delete == (Ref("batch/v1", "Job", "pictures", untold.status.job_name),)
    assert condition(untold).reason is Reason.ENGINE_PENDING
    assert untold.status.failure is None
    assert plan(status=untold.status).apply[-1]["metadata"]["name"] == untold.status.job_name


def test_a_build_whose_pod_went_after_it_was_read_stays():
    done = plan(FINISHED)
    later = plan(replace(FINISHED, result=None, is_untold=True), status=done.status)
    assert (later.status, later.delete) == (done.status, ())


def test_a_builder_that_ends_well_and_tells_nothing_has_failed():
    silent = plan(replace(FINISHED, result=None))
    assert condition(silent).reason is Reason.ENGINE_BUILD_FAILED
    assert "is the builder image of this operator's release?" in condition(silent).message
    assert silent.delete == ()


@pytest.mark.parametrize(
    ("job", "reason", "said"),
    [
        (failed(exit_code=65, message="it misses vae/"), Reason.ENGINE_BUILD_FAILED, "it misses vae/; change the spec"),
        (
            failed(exit_code=75, end=JobEnd.BACKOFF, message="the hub is down."),
            Reason.ENGINE_BUILD_FAILED,
            "the hub is down; run `kubectl annotate de",
        ),
        (failed(end=JobEnd.DEADLINE), Reason.BUILD_DEADLINE_EXCEEDED, "21600 s; raise build.deadlineSeconds"),
        (
            failed(exit_code=137, end=JobEnd.BACKOFF, trouble=Trouble(TroubleKind.OUT_OF_MEMORY, "OOMKilled")),
            Reason.OUT_OF_MEMORY,
            "resources.memory",
        ),
        (failed(exit_code=1, end=JobEnd.BACKOFF), Reason.ENGINE_BUILD_FAILED, "kubectl logs job/"),
        (replace(FINISHED, result=None), Reason.ENGINE_BUILD_FAILED, "this operator's release"),
    ],
)
def test_a_failed_build_says_why_in_a_sentence_and_what_to_do(job, reason, said):
    made = plan(job)
    assert (condition(made).status, condition(made).reason) == (ConditionStatus.FALSE, reason)
    assert said in condition(made).message
    assert made.status.failure.message == condition(made).message
    assert made.status.phase == "Failed"
    assert {event.type for event in made.events if event.reason == reason} == {EventType.WARNING}


@pytest.mark.parametrize(
    ("trouble", "reason", "said"),
    [
        (Trouble(TroubleKind.UNSCHEDULABLE, "0/3 nodes"), Reason.NO_MATCHING_NODE, "nvidia.com/gpu.product=NVIDIA-B200"),
        (Trouble(TroubleKind.IMAGE, "builder:9 not found"), Reason.IMAGE_UNAVAILABLE, "builder:9"),
        (Trouble(TroubleKind.VOLUME, "unbound"), Reason.VOLUME_UNAVAILABLE, "unbound"),
        (None, Reason.BUILD_DEADLINE_EXCEEDED, "waits for its pod to start"),
    ],
)
def test_a_build_that_never_got_a_pod_says_what_it_waited_for(trouble, reason, said):
    nodes = Cluster(node_labels=({"kubernetes.io/hostname": "a"},))
    waiting = plan(ObservedJob(JobPhase.PENDING, attempts=1, trouble=trouble), cluster=nodes).status
    ended = plan(failed(end=JobEnd.DEADLINE), status=waiting)
    assert condition(ended).reason is reason
    assert condition(ended).message.startswith("it never started: ")
    assert said in condition(ended).message
    assert "deadlineSeconds" not in condition(ended).message
    assert ended.status.failure.message == condition(ended).message
    assert observed_engine(engine(ended.status.to_wire())).state is EngineState.FAILED
    assert {event.type for event in ended.events} == {EventType.WARNING}
    for job in (failed(end=JobEnd.DEADLINE), ObservedJob()):
        quiet = plan(job, status=ended.status, now=LATER)
        assert (quiet.status, quiet.apply, quiet.events) == (ended.status, (), ())


def test_a_build_of_which_an_earlier_attempt_ran_does_not_say_that_it_never_started():
    waiting = plan(ObservedJob(JobPhase.PENDING, attempts=2, trouble=Trouble(TroubleKind.IMAGE, "builder:9 not found"))).status
    ended = plan(failed(attempts=2, end=JobEnd.DEADLINE), status=waiting)
    assert condition(ended).message.startswith("its last attempt never started: ")


def test_a_build_that_ran_until_its_deadline_says_so():
    runs = plan(ObservedJob(JobPhase.RUNNING, attempts=1)).status
    assert condition(plan(failed(end=JobEnd.DEADLINE), status=runs)).reason is Reason.BUILD_DEADLINE_EXCEEDED


def test_a_build_that_ran_until_its_deadline_is_not_said_to_have_waited_while_its_pod_is_taken_away():
    runs = plan(ObservedJob(JobPhase.RUNNING, attempts=1)).status
    ending = plan(ObservedJob(JobPhase.PENDING, attempts=1, is_ending=True), status=runs)
    assert condition(ending).reason is Reason.ENGINE_BUILDING
    assert ending.events == ()
    ended = plan(failed(end=JobEnd.DEADLINE), status=ending.status)
    assert "took longer than 21600 s; raise build.deadlineSeconds" in condition(ended).message


def test_out_of_budget_is_told_apart_from_a_broken_build():
    made = plan(failed(exit_code=66, message="best was 31.2 dB"))
    assert (condition(made, GATE).status, condition(made, GATE).reason) == (ConditionStatus.FALSE, Reason.QUALITY_OUTSIDE_BUDGET)
    assert condition(plan(failed(exit_code=65)), GATE).status is ConditionStatus.UNKNOWN
    assert len({each.type for each in made.status.conditions}) == len(made.status.conditions) == 4


def test_a_failure_is_not_built_again_when_its_job_is_gone_but_on_retry():
    down = plan(failed(exit_code=65, message="it misses vae/")).status
    kept = plan(status=down, now=LATER)
    assert (kept.apply, kept.status) == ((), down)
    again = plan(status=down, retry="2026-08-02")
    assert again.apply[-1]["metadata"]["name"] == job_name("engine-0123456789abcdef", "2026-08-02") != down.job_name
    assert again.status.failure is None


def test_an_engine_that_cannot_work_is_not_built():
    wrong = engine(accelerator={"product": "NVIDIA-L4"}, optimization={"quantization": {"format": "NVFP4"}})
    made = plan_engine(wrong, USED, SETTINGS, NOW)
    assert (condition(made).reason, made.apply) == (Reason.UNSUPPORTED_FORMAT, ())


def test_an_unused_engine_goes_with_its_files_after_the_retention():
    done = plan(FINISHED).status
    unused = plan(status=done, users=0)
    assert unused.status.unused_since == NOW
    waiting = plan(status=unused.status, users=0, now=LATER)
    assert waiting.requeue_seconds == SETTINGS.engine_retention_seconds - 3600
    end = NOW + timedelta(seconds=SETTINGS.engine_retention_seconds)
    (cleaner,) = plan(status=unused.status, users=0, now=end).apply
    assert cleaner["spec"]["template"]["spec"]["containers"][0]["command"][4] == RESULT.artifact
    assert plan(status=unused.status, users=0, now=end, cleanup=JobPhase.RUNNING).delete == ()
    (ref,) = plan(status=unused.status, users=0, now=end, cleanup=JobPhase.SUCCEEDED).delete
    assert (ref.kind, ref.name) == ("DiffusionEngine", "engine-0123456789abcdef")


def test_files_that_another_engine_has_too_stay_when_one_of_them_goes():
    unused = plan(status=plan(FINISHED).status, users=0).status
    end = NOW + timedelta(seconds=SETTINGS.engine_retention_seconds)
    retired = plan(status=unused, users=0, now=end, artifact_use=ArtifactUse.SHARED)
    assert retired.apply == ()
    assert [ref.kind for ref in retired.delete] == ["DiffusionEngine"]
    removing = plan(status=unused, users=0, now=end, artifact_use=ArtifactUse.SHARED, cleanup=JobPhase.RUNNING)
    assert (removing.apply, removing.delete) == ((), ())


def test_files_that_pods_serve_from_outlive_the_retention():
    unused = plan(status=plan(FINISHED).status, users=0).status
    end = NOW + timedelta(seconds=SETTINGS.engine_retention_seconds)
    served = plan(status=unused, users=0, now=end, artifact_use=ArtifactUse.SERVED)
    assert (served.apply, served.delete, served.status) == ((), (), unused)
    assert served.requeue_seconds == 60


def test_a_user_s_own_engine_is_never_deleted():
    unused = plan(status=plan(FINISHED).status, users=0, managed=False).status
    assert plan(status=unused, users=0, managed=False, now=NOW + timedelta(days=900)).delete == ()


def test_an_engine_that_is_used_again_begins_its_retention_anew():
    unused = plan(status=plan(FINISHED).status, users=0).status
    assert plan(status=unused).status.unused_since is None


def test_a_new_builder_image_keeps_the_engine_and_a_new_tensorrt_does_not():
    spec = deployment().spec
    name = engine_identity(spec, None, SETTINGS).name
    assert engine_identity(spec, None, settings(images={"builder": "builder:2"})).name == name
    assert engine_identity(spec, None, settings(versions={"openvino": "2027.1"})).name == name
    assert engine_identity(spec, None, settings(versions={"tensorrt": "12.0"})).name != name
    assert engine_identity(spec, None, settings(versions={"builder": "2"})).name != name


@pytest.mark.parametrize(
    ("accelerator", "compiler"),
    [
        ({"product": "CPU"}, "openvino"),
        ({"product": "NVIDIA-L4", "compiler": "TensorRTRTX"}, "tensorrtRtx"),
        ({"product": "NVIDIA-B200"}, "tensorrt"),
    ],
)
def test_the_version_of_its_own_compiler_alone_decides_an_engine(accelerator, compiler):
    spec = deployment(accelerator=accelerator).spec
    keys = {name: engine_identity(spec, None, settings(versions={name: "9"})).key for name in ("openvino", "tensorrt", "tensorrtRtx")}
    plain = engine_identity(spec, None, SETTINGS).key
    assert {name for name, key in keys.items() if key != plain} == {compiler}


def test_labels_that_no_single_node_has_together_are_told():
    sharded = ({**B200_LABELS, "nvidia.com/gpu.compute.major": "9"}, {**B200_LABELS, "nvidia.com/gpu.product": "NVIDIA-H200"})
    assert "no node has all of" in unmatched(B200_LABELS, sharded)
    assert unmatched(B200_LABELS, (B200_LABELS,)) == unmatched({}, ()) == ""


def test_an_engine_s_spec_is_what_the_deployment_says_of_it():
    identity = engine_identity(deployment(replicas=3).spec, None, SETTINGS)
    assert identity.spec.model == deployment().spec.model
