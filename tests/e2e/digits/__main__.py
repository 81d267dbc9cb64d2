"""`make cluster-demo`: from `helm install` to pictures on this machine's own cluster, which stays up."""

from __future__ import annotations

import sys
from pathlib import Path

from examples.demo import draw_digits
from tests.e2e.cluster import layout, lifecycle
from tests.e2e.cluster.addons import renew_volumes
from tests.e2e.cluster.processes import ClusterError
from tests.e2e.cluster.programs import kubectl as kubectl_path
from tests.e2e.digits.installation import install, provide_images, provide_namespace, remove_namespace, uninstall
from tests.e2e.digits.team import Team

NAMESPACE = "demo"
OUT = Path("build/cluster-demo")


def main() -> int:
    """Run the demo; return 1 with a sentence where the machine cannot."""
    try:
        _run()
    except (ClusterError, AssertionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run() -> None:
    kubectl = lifecycle.up()
    _say("the cluster is up; images are built from their Dockerfiles")
    provide_images()
    remove_namespace(kubectl, NAMESPACE)
    uninstall(kubectl)
    renew_volumes(kubectl)
    _say("helm install")
    install(kubectl)
    provide_namespace(kubectl, NAMESPACE)
    team = Team(kubectl, NAMESPACE)
    _say("kubectl apply --filename examples/digits.yaml: a builder Job quantizes, compiles and measures; then Triton serves")
    team.apply_example()
    team.wait_ready()
    print(kubectl("get", "dd,de", "--namespace", NAMESPACE))
    OUT.mkdir(parents=True, exist_ok=True)
    seconds = draw_digits(team.address(), OUT)
    print(f"ten digits drawn through the Service in {seconds:.2f} s: {OUT.resolve() / 'digits.png'}")
    print(f"next: export KUBECONFIG={layout.KUBECONFIG} PATH={kubectl_path().parent}:$PATH")
    print(f"      kubectl describe dd digits --namespace {NAMESPACE}")
    print(f'      .venv/bin/diffusionctl generate "a blue digit three" --out three.png --url {team.address()}')
    print("      make cluster-down removes it all")


def _say(what: str) -> None:
    print(f"· {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
