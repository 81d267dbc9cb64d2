"""What can be said of the test cluster's configuration without starting it."""

import os
import tomllib

import pytest

from tests.e2e.cluster import layout, requirements
from tests.e2e.cluster.node import containerd_config, toml
from tests.e2e.cluster.programs import HELM, KUBE, KUBERNETES_VERSION
from tests.e2e.cluster.runtime_spec import mounted_folders


def test_containerds_configuration_reads_back_as_it_was_meant():
    assert tomllib.loads(toml(containerd_config())) == containerd_config()


def test_socket_paths_fit_into_a_socket_address():
    assert len(os.fsencode(layout.CONTAINERD_SOCKET)) < 108


def test_programs_of_another_version_lie_in_another_folder():
    assert HELM.folder != type(HELM)(HELM.name, "3.19.1", HELM.package, HELM.source, HELM.variables).folder


def test_the_pinned_modules_are_those_of_the_version_that_the_binary_names():
    assert f"k8s.io/kubernetes v{KUBERNETES_VERSION}\n" in (KUBE.source / "go.mod").read_text()


def test_this_interpreter_is_lent_with_its_environment():
    assert layout.REPOSITORY / ".venv" in mounted_folders() or not (layout.REPOSITORY / ".venv").is_dir()


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(requirements.os, "geteuid", lambda: 1000)
    missing = requirements.missing_requirements()
    assert "root" in missing[0]
    advice = requirements.advice(missing)
    assert "E2E_KUBECONFIG" in advice
    assert (
        f"tests/chart (with Helm) and tests/e2e/diffusion_operator (with an API server) run without root; `{requirements.BUILD}`" in advice
    )
