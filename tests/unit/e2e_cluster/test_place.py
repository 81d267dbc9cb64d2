"""How tests reach a cluster of the user's: by variables, by a forwarded port, and by a pod that asks. No cluster is asked here."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

from tests.e2e.cluster import kubectl
from tests.e2e.cluster.kubectl import Kubectl
from tests.e2e.cluster.processes import ClusterError
from tests.e2e.digits import asking
from tests.e2e.digits.load import PodCounts
from tests.e2e.digits.place import place

MINE = {"E2E_KUBECONFIG": "/home/me/kubeconfig"}


def test_without_variables_the_images_are_this_checkouts_own():
    found = place({})
    assert found.is_own
    assert found.images.mounted
    assert found.images.name("builder") == "localhost/diffusion-operator/builder:dev"


def test_a_cluster_of_the_users_pulls_what_the_user_pushed():
    found = place({**MINE, "E2E_REGISTRY": "registry.example/me/", "E2E_TAG": "1", "E2E_STORAGE_CLASS": "shared"})
    assert not found.is_own
    assert not found.lack
    assert found.images.name("triton-cpu") == "registry.example/me/triton-cpu:1"
    assert found.claim("1Gi")["storageClassName"] == found.store("1Gi")["storageClass"] == "shared"


def test_a_cluster_without_a_registry_is_told_which_command_pushes_the_images():
    assert "needs E2E_REGISTRY" in place(MINE).lack
    assert "docker push $E2E_REGISTRY/$image:dev" in place(MINE).lack


def test_a_class_that_offers_no_sharing_can_be_used_too():
    found = place({**MINE, "E2E_REGISTRY": "registry.example/me", "E2E_ACCESS_MODE": "ReadWriteOnce"})
    assert found.claim("1Gi")["accessModes"] == ["ReadWriteOnce"]
    assert found.store("1Gi")["accessMode"] == "ReadWriteOnce"


@pytest.fixture
def fake_kubectl(monkeypatch: pytest.MonkeyPatch, tmp_path):
    def write(script: str) -> Kubectl:
        (tmp_path / "kubectl").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "kubectl").chmod(0o755)
        monkeypatch.setattr(kubectl, "_binary", lambda: str(tmp_path / "kubectl"))
        return Kubectl(tmp_path / "kubeconfig")

    return write


def test_a_forwarded_port_has_the_address_that_kubectl_tells(fake_kubectl):
    own = fake_kubectl('echo "Forwarding from 127.0.0.1:40001 -> 8001"; exec sleep 60')
    with own.forwarded("service/digits", 8001, "pictures") as address:
        assert address == "127.0.0.1:40001"


def test_a_port_that_cannot_be_forwarded_is_told_in_kubectls_words(fake_kubectl):
    own = fake_kubectl('echo "error: no pods found" >&2; exit 1')
    with pytest.raises(ClusterError, match="error: no pods found"), own.forwarded("service/digits", 8001, "pictures"):
        pass


class Triton(http.server.BaseHTTPRequestHandler):
    """Draws, but for a blue digit."""

    def do_POST(self):
        prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]
        said = {"error": "the queue is full"} if "blue" in prompt else {"image": "…", "metadata": json.dumps({"type": "result"})}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"data: {json.dumps(said)}\n\n".encode())

    def log_message(self, *_):
        pass


def test_the_pod_that_asks_tells_pictures_from_failures():
    with http.server.HTTPServer(("127.0.0.1", 0), Triton) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        lines = [asking.ask(url, prompt, 0) for prompt in ("a red digit", "a blue digit")]
        server.shutdown()
    lines.append(asking.ask("http://127.0.0.1:1", "a red digit", 0))
    assert lines[0] == "drawn"
    assert lines[1].startswith("failed")
    assert "the queue is full" in lines[1]
    assert lines[2].startswith("failed")
    counts = PodCounts(lambda *_: "\n".join(lines), "pictures")
    counts.end()
    assert counts.drawn == 1
    assert len(counts.failures) == 2
