"""An engine whose files are lost is built again, wherever it then lies and whatever was changed meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

from diffusion_api.prepare_exit import PrepareExit
from diffusion_operator.manifests.controller_revision import template_artifact
from diffusion_operator.manifests.labels import REVISION
from tests.unit.diffusion_operator.fake_cluster import FakeCluster
from tests.unit.diffusion_operator.running import deployment, reference, running, served, settled
from tests.unit.diffusion_operator.scenes import RESULT

KLEIN = reference("DiffusionDeployment", "klein")
ELSEWHERE = {"event": "result", "succeeded": True, "result": RESULT.model_copy(update={"artifact": "artifacts/engine-ffff"}).to_wire()}


def miss_files(cluster: FakeCluster, finished: str) -> None:
    """Every serving pod says at a time that its engine's files are gone."""
    end = {"exitCode": int(PrepareExit.FILES_MISSING), "message": "no manifest", "finishedAt": finished}
    status: dict[str, Any] = {
        "phase": "Pending",
        "initContainerStatuses": [{"name": "prepare-engine", "ready": False, "state": {"terminated": end}}],
    }
    for ref, pod in cluster.of_kind("Pod"):
        if REVISION in pod["metadata"]["labels"]:
            cluster.edit(ref, status=status)


def test_old_pods_do_not_have_an_engine_built_again_that_lies_elsewhere_now():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster) as operator:
            await served(operator, cluster)
            miss_files(cluster, "2026-08-01T13:00:00Z")
            await settled(operator)
            cluster.run_jobs(ELSEWHERE)
            # Until they end, the old pods go on to say it, after the end of the new build too.
            miss_files(cluster, "2026-08-01T14:00:00Z")
            await settled(operator)
            losses = cluster.one("DiffusionEngine")["status"]["losses"]
            await served(operator, cluster)
            return losses, cluster

    losses, cluster = asyncio.run(scenario())
    assert losses == 1
    assert template_artifact(cluster.one("Deployment")["spec"]["template"]) == "artifacts/engine-ffff"
    assert cluster.one("DiffusionEngine")["status"]["losses"] == 1
    assert len(list(cluster.of_kind("Job"))) == 1
    assert cluster.objects[KLEIN]["status"]["phase"] == "Serving"
