"""An API server with our CRDs and the operator's rights, and a namespace for each test."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster.kubectl import Kubectl
from tests.e2e.cluster.programs import KUBE
from tests.e2e.cluster.requirements import BUILD
from tests.e2e.diffusion_operator.control_plane import OPERATOR, ControlPlane
from tests.e2e.diffusion_operator.rights import role_and_binding

CRDS = Path(__file__).parents[3] / "crds"


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    if not KUBE.is_built():
        pytest.skip(f"needs an API server: `{BUILD}` builds one, once; needs Go 1.24 and no root")
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"))
    try:
        plane.start()
        plane.kubectl("apply", "--server-side", *(f"--filename={path}" for path in sorted(CRDS.glob("*.yaml"))))
        plane.kubectl.apply(*role_and_binding(OPERATOR))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all")
        yield plane
    finally:
        plane.stop()


@pytest.fixture
def kubectl(control_plane: ControlPlane) -> Kubectl:
    return control_plane.kubectl


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    name = f"e2e-{secrets.token_hex(4)}"
    control_plane.kubectl("create", "namespace", name)
    yield name
    # Nobody here empties a namespace that is deleted, so the deployments go one by one.
    control_plane.kubectl("delete", "dd,de", "--all", "--namespace", name)
