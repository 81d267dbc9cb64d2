"""The API server goes away, the leader dies, the operator is killed in the middle."""

from __future__ import annotations

import json
import signal
import time

from tests.e2e.diffusion_operator.operator_process import OperatorProcess
from tests.e2e.diffusion_operator.play import Play
from tests.e2e.diffusion_operator.test_first_deployment import apply, bring_up

TAKEOVER_SECONDS = 15
AWAY_SECONDS = 60
"""Long enough that watches end, waits between attempts grow to their longest, and clients give up connections."""


def test_a_dead_leader_is_succeeded_and_nothing_is_built_twice(control_plane, kubectl, namespace):
    play = Play(kubectl, namespace)
    with OperatorProcess(control_plane, "leader") as leader:
        play.wait("the lease", leader.leads)
        with OperatorProcess(control_plane, "follower") as follower:
            apply(play, "digits.yaml")
            (job,) = play.wait_for("jobs")
            assert not follower.leads()
            leader.stop(signal.SIGKILL)
            died = time.monotonic()
            play.wait("the takeover", follower.leads)
            assert time.monotonic() - died < TAKEOVER_SECONDS
            play.end_job(job)
            play.wait_for("deployments.apps")
            assert len(play.items("jobs")) == 1
            assert not any(line["message"].startswith("made ") for line in leader.lines() if line["time"] > _iso(follower))


def _iso(process):
    return next(line["time"] for line in process.lines() if line["message"].startswith("this replica leads"))


def test_a_follower_takes_over_at_once_from_a_leader_that_ends_well(control_plane, kubectl, namespace):
    play = Play(kubectl, namespace)
    with OperatorProcess(control_plane, "resigning") as leader:
        play.wait("the lease", leader.leads)
        with OperatorProcess(control_plane, "waiting") as follower:
            assert leader.stop() == 0
            ended = time.monotonic()
            play.wait("the takeover", follower.leads)
            assert time.monotonic() - ended < TAKEOVER_SECONDS / 2


def test_an_api_server_that_was_away_for_a_minute_is_caught_up_with(control_plane, kubectl, namespace):
    play = Play(kubectl, namespace)
    with OperatorProcess(control_plane, "patient", "--no-leader-election") as process:
        apply(play, "digits.yaml")
        (job,) = play.wait_for("jobs")
        control_plane.stop_api_server()
        time.sleep(AWAY_SECONDS)
        control_plane.start_api_server()
        play.end_job(job)
        play.wait("the engine", lambda: play.said("de") == ("True", "EngineReady"))
        (deployment,) = play.wait_for("deployments.apps")
        play.serve(deployment)
        play.wait("Ready", lambda: play.said("dd") == ("True", "Serving"))
        assert process.process.poll() is None


def test_what_was_deleted_while_the_api_server_was_away_is_missed_once_it_is_back(control_plane, kubectl, namespace):
    play = Play(kubectl, namespace)
    with OperatorProcess(control_plane, "forsaken", "--no-leader-election") as process:
        bring_up(play, "digits.yaml")
        play.wait("Ready", lambda: play.said("dd") == ("True", "Serving"))
        (pod,) = [each for each in play.items("pods") if each["metadata"]["ownerReferences"][0]["kind"] == "Deployment"]
        control_plane.stop_api_server()
        # The API server would tell of these; without it nobody does, and a new list only lacks them.
        control_plane.delete_stored(f"pods/{namespace}/{pod['metadata']['name']}", f"poddisruptionbudgets/{namespace}/digits")
        control_plane.start_api_server()
        play.wait("the lost pod to be missed", lambda: play.said("dd") == ("False", "PodsNotReady"))
        play.wait("another PodDisruptionBudget", lambda: play.items("poddisruptionbudgets"))
        assert process.process.poll() is None


def test_a_leader_that_cannot_renew_ends_before_its_lease_does(control_plane, kubectl, namespace):
    play = Play(kubectl, namespace)
    with OperatorProcess(control_plane, "cut-off") as process:
        play.wait("the lease", process.leads)
        control_plane.stop_api_server()
        assert process.process.wait(timeout=30) == 1
        control_plane.start_api_server()


def test_an_operator_that_is_killed_goes_on_where_it_was(control_plane, kubectl, namespace):
    play = Play(kubectl, namespace)
    with OperatorProcess(control_plane, "killed") as process:
        play.wait("the lease", process.leads)
        apply(play, "digits.yaml")
        play.wait_for("diffusionengines")
        process.stop(signal.SIGKILL)
    with OperatorProcess(control_plane, "next") as process:
        (job,) = play.wait_for("jobs")
        patch = json.dumps({"spec": {"serving": {"maxQueueDelayMicroseconds": 7}}})
        kubectl("patch", "dd", "digits", "--namespace", namespace, "--type=merge", f"--patch={patch}")
        play.end_job(job)
        (deployment,) = play.wait_for("deployments.apps")
        play.serve(deployment)
        play.wait("Ready", lambda: play.said("dd") == ("True", "Serving"))
        assert len(play.items("jobs")) == 1
