"""Whatever is made of a resource, the operator lives, rests, and finds back when the resource does."""

from __future__ import annotations

import json
import time
from http import HTTPStatus

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from kubernetes import client, config

from tests.e2e.diffusion_operator.control_plane import ADMIN
from tests.e2e.diffusion_operator.mutations import mutated_specs
from tests.e2e.diffusion_operator.operator_process import OperatorProcess
from tests.e2e.diffusion_operator.play import Play
from tests.e2e.diffusion_operator.test_first_deployment import bring_up
from tests.e2e.diffusion_operator.test_quiet import example
from tests.support.waiting import wait_until

EXAMPLES = 300
SECONDS = 15
RECONCILES_A_CHANGE = 40
"""Far more than a change needs, and far fewer than a loop that feeds itself makes in the seconds that it gets."""
CHILDREN = ("services", "poddisruptionbudgets", "networkpolicies", "horizontalpodautoscalers")

pytestmark = [
    pytest.mark.timeout(1800),
    # The control plane of these tests signs its certificate itself.
    pytest.mark.filterwarnings("ignore:Unverified HTTPS request:urllib3.exceptions.InsecureRequestWarning"),
]


class Resource:
    """The DiffusionDeployment `digits` of a namespace."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._objects = client.CustomObjectsApi(api)
        self._where = ("diffusionoperator.io", "v1alpha1", namespace, "diffusiondeployments", "digits")

    def get(self):
        return self._objects.get_namespaced_custom_object(*self._where)

    def replace(self, spec):
        """Whether the API server takes the spec."""
        while True:
            try:
                self._objects.replace_namespaced_custom_object(*self._where, {**self.get(), "spec": spec})
            except client.ApiException as refused:
                # The operator wrote the status in between.
                if refused.status == HTTPStatus.CONFLICT:
                    continue
                if refused.status not in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
                    raise
                return False
            return True

    def settled(self):
        """Wait until the operator has judged the newest spec."""
        wait_until(f"a judgement of {json.dumps(self.get()['spec'])}", self._is_judged, SECONDS)
        return self.get()["status"]

    def _is_judged(self):
        body = self.get()
        return body["status"].get("observedGeneration") == body["metadata"]["generation"]

    def returned(self, story, play):
        """Wait until the status tells the same story as before; Deployments get the pods they ask for, and no others keep theirs."""
        until = time.monotonic() + SECONDS
        while (now := told(self.settled())) != story:
            assert time.monotonic() < until, f"{now}\nwas {story}"
            if "RollingOut" in now["phase"]:
                play.drain()
                for deployment in play.items("deployments.apps"):
                    play.serve(deployment)


def told(status):
    """A status without its times and counters."""
    conditions = {(each["type"], each["status"], each["reason"], each.get("message")) for each in status["conditions"]}
    return {**{name: value for name, value in status.items() if name not in ("conditions", "observedGeneration")}, "conditions": conditions}


def specs(play):
    """What the deployment owns beside revisions and engines, of which a change rightly leaves a history."""
    found = [(kind, each) for kind in CHILDREN for each in play.items(kind)]
    return {
        (kind, each["metadata"]["name"]): each["spec"]
        for kind, each in found
        if each["metadata"]["ownerReferences"][0]["kind"] == "DiffusionDeployment"
    }


def test_300_mutations_leave_no_trace_once_the_resource_is_as_before(control_plane, kubectl, namespace):
    play = Play(kubectl, namespace)
    taken = []
    with (
        OperatorProcess(control_plane, "mutated") as process,
        config.new_client_from_config(str(control_plane.kubeconfig(ADMIN))) as api,
    ):
        kubectl.apply({**example("digits.yaml"), "metadata": {"name": "digits"}}, namespace=namespace)
        bring_up(play, "digits.yaml")
        resource = Resource(api, namespace)
        play.wait("the end of the rollout", lambda: play.said("dd", "Progressing") == ("False", "RolloutComplete"))
        valid, story, children = resource.get()["spec"], told(resource.settled()), specs(play)
        reconciled = process.metric("controller_runtime_reconcile_total")

        # No shrinking: what an example leaves in the cluster is there for the next.
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(mutated_specs(valid))
        def mutate(spec):
            if resource.replace(spec):
                taken.append(spec)
                resource.settled()
                assert process.process.poll() is None
                assert resource.replace(valid)
                resource.returned(story, play)

        mutate()
        assert specs(play) == children
        assert process.metric("controller_runtime_reconcile_errors_total") == 0, [
            line for line in process.lines() if line["level"] in ("error", "critical")
        ]
        assert process.metric("controller_runtime_reconcile_total") - reconciled < RECONCILES_A_CHANGE * len(taken)
        written = process.writes()
        time.sleep(3)  # That nothing is written shows only in time that passes.
        assert process.writes() == written
    assert len(taken) > EXAMPLES / 2, f"{len(taken)} of {EXAMPLES} mutations were taken: too few of them reach the operator"
    print(f"{len(taken)} of {EXAMPLES} mutations were taken by the API server")
