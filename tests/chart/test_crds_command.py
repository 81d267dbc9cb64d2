"""`python -m diffusion_operator.crds`: what the chart's hook runs, against an API server that fails in each way."""

from __future__ import annotations

import itertools
import json

import pytest
from kubernetes.client.exceptions import ApiException

from diffusion_api.crd import all_crds
from diffusion_operator import crds

NAMES = [crd["metadata"]["name"] for crd in all_crds().values()]
ESTABLISHED = [{"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "True"}]


def refusal(status: int, message: str) -> ApiException:
    error = ApiException(status=status, reason="Refused")
    error.body = json.dumps({"message": message})
    return error


class Server:
    """Holds definitions; `established_after` reads of one until its conditions are true."""

    def __init__(self, *, established_after: int = 0, refused: ApiException | None = None, present: bool = True) -> None:
        self.crds = {crd["metadata"]["name"]: dict(crd) for crd in all_crds().values()} if present else {}
        self.established_after, self.refused = established_after, refused
        self.reads = 0

    def apply(self, name, manifest):
        if self.refused:
            raise self.refused
        self.crds[name] = dict(manifest)

    def read(self, name):
        if name not in self.crds:
            raise refusal(404, f"{name} not found")
        self.reads += 1
        conditions = ESTABLISHED if self.reads > self.established_after else None
        return {**self.crds[name], "status": {"conditions": conditions}}

    def delete(self, name):
        if self.refused:
            raise self.refused
        if self.crds.pop(name, None) is None:
            raise refusal(404, f"{name} not found")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(crds, "POLL_SECONDS", 0)


def ticks():
    counter = itertools.count()
    return lambda: float(next(counter))


def test_apply_waits_until_every_definition_is_established():
    server = Server(established_after=3, present=False)
    assert crds.apply_crds(server, timeout_seconds=60) == NAMES
    assert set(server.crds) == set(NAMES)
    assert server.reads == 3 + len(NAMES)


def test_apply_names_the_definition_that_is_never_established():
    with pytest.raises(
        crds.CrdError, match=rf"{NAMES[0]} is not established: it has no condition NamesAccepted yet; see `kubectl describe crd"
    ):
        crds.apply_crds(Server(established_after=1000), timeout_seconds=5, clock=ticks())


def test_a_clash_of_names_is_told_in_the_servers_words():
    server = Server()
    clash = [{"type": "NamesAccepted", "status": "False", "message": '"dd" is already in use'}]
    server.read = lambda name: {**server.crds[name], "status": {"conditions": clash}}
    with pytest.raises(crds.CrdError, match='"dd" is already in use'):
        crds.apply_crds(server, timeout_seconds=1, clock=ticks())


def test_a_refusal_says_what_to_do(capsys):
    server = Server(refused=refusal(403, "customresourcedefinitions is forbidden"))
    assert crds.main(["apply"], api=lambda: server) == 1
    said = capsys.readouterr().err
    assert "is forbidden" in said
    assert "crds.install=false" in said


def test_a_refusal_that_is_no_json_is_still_told(capsys):
    error = ApiException(status=502, reason="Bad Gateway")
    assert crds.main(["apply"], api=lambda: Server(refused=error)) == 1
    assert "Bad Gateway" in capsys.readouterr().err


def test_delete_is_done_when_all_are_gone_and_again_when_none_is_there(capsys):
    server = Server()
    assert crds.main(["delete"], api=lambda: server) == 0
    assert not server.crds
    assert crds.main(["delete"], api=lambda: server) == 0
    assert capsys.readouterr().out.count("deleted") == 2 * len(NAMES)


def test_delete_says_which_definition_waits_for_its_objects():
    server = Server()
    server.crds[NAMES[0]] = {"metadata": {"name": NAMES[0], "finalizers": ["customresourcecleanup.apiextensions.k8s.io"]}}
    server.delete = lambda name: None
    with pytest.raises(crds.CrdError, match="its objects are being deleted"):
        crds.delete_crds(server, timeout_seconds=1, clock=ticks())


def test_a_pod_asks_its_api_server_without_the_proxy_that_leads_outside(monkeypatch):
    def load(client_configuration):
        client_configuration.host = "https://10.96.0.1:443"

    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setattr(crds.config, "load_incluster_config", load)
    found = crds.connection()
    assert found.host == "https://10.96.0.1:443"
    assert found.proxy is None


def test_an_unreachable_cluster_is_one_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "absent"))
    assert crds.main(["apply"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
