"""The cluster that the other tests stand on behaves like one."""

from __future__ import annotations

import http.server
import re
import threading
import urllib.error
import urllib.request

import pytest
from kubernetes import client

from diffusion_api.crd import all_crds
from tests.e2e.cluster import layout
from tests.e2e.cluster.processes import wait_until
from tests.e2e.cluster.runtime_spec import mounted_folders
from tests.e2e.cluster.simulated_nodes import start_kwok, stop_kwok
from tests.e2e.definitions import fields_of

PAGE = "served by a pod"


def container(script, **fields):
    return {"name": "main", "image": layout.BUSYBOX_IMAGE, "command": ["sh", "-c", script], **fields}


def pod(name, script, **spec):
    template = {"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [container(script)], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": template}


def page(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode().strip()
    except urllib.error.URLError:
        return None


def output(kubectl, namespace, name):
    kubectl.wait("jsonpath={.status.phase}=Succeeded", f"pod/{name}", namespace=namespace)
    return kubectl("logs", name, "--namespace", namespace)


@pytest.fixture
def web(kubectl, own_cluster, namespace):
    """A pod that serves a page, behind a Service."""
    serve = f"mkdir /tmp/www; echo '{PAGE}' > /tmp/www/index.html; exec httpd -f -p 8000 -h /tmp/www"
    served = container(serve, ports=[{"containerPort": 8000}], readinessProbe={"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1})
    service = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}]}
    kubectl.apply(
        pod("web", "", containers=[served]),
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service},
        namespace=namespace,
    )
    kubectl.wait("condition=Ready", "pod/web", namespace=namespace)
    kubectl.wait(
        "jsonpath={.endpoints[0].conditions.ready}=true", "endpointslice", "--selector=kubernetes.io/service-name=web", namespace=namespace
    )
    return kubectl.json("get", "service", "web", "--namespace", namespace)["spec"]["clusterIP"]


def test_the_node_is_ready(api):
    nodes = client.CoreV1Api(api).list_node().items
    ready = [node.metadata.name for node in nodes if any(each.type == "Ready" and each.status == "True" for each in node.status.conditions)]
    assert ready


def test_a_pod_finds_the_api_server_by_its_short_name(kubectl, own_cluster, namespace):
    kubectl.apply(pod("lookup", "ping -c1 -W1 kubernetes.default.svc || true"), namespace=namespace)
    assert f"kubernetes.default.svc ({layout.API_SERVICE_ADDRESS})" in output(kubectl, namespace, "lookup")


def test_a_pod_reaches_a_service_by_name(kubectl, namespace, web):
    kubectl.apply(pod("caller", "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 web 80"), namespace=namespace)
    assert PAGE in output(kubectl, namespace, "caller")


def test_this_machine_reaches_services_and_pods_by_address(kubectl, namespace, web):
    address = kubectl.json("get", "pod", "web", "--namespace", namespace)["status"]["podIP"]
    # The rules of a new Service reach the node a moment after its endpoints are told.
    wait_until("the Service", lambda: page(f"http://{web}/") is not None, seconds=30)
    assert page(f"http://{web}/") == page(f"http://{address}:8000/") == PAGE


def test_a_pod_reaches_a_server_on_this_machine_and_nothing_beyond(kubectl, own_cluster, namespace):
    with http.server.HTTPServer((layout.MACHINE_ADDRESS, 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # 192.0.2.0/24 is set aside for documentation (RFC 5737); the default route leads as far for every other address.
        ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {} {} 2>&1 | head -1"
        script = f"{ask.format(layout.MACHINE_ADDRESS, server.server_port)}; ping -c1 -W1 192.0.2.1 > /dev/null || echo unreachable"
        kubectl.apply(pod("caller", script), namespace=namespace)
        printed = output(kubectl, namespace, "caller")
        server.shutdown()
    assert "501" in printed  # The handler knows no method, and says so.
    assert "unreachable" in printed


def test_commands_run_in_a_pod(kubectl, namespace, web):
    assert kubectl("exec", "web", "--namespace", namespace, "--", "cat", "/tmp/www/index.html").strip() == PAGE


def test_a_job_completes(kubectl, own_cluster, namespace):
    template = {"restartPolicy": "Never", "containers": [container("echo done")]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {"template": {"spec": template}}}
    kubectl.apply(job, namespace=namespace)
    kubectl.wait("condition=Complete", "job/once", namespace=namespace)
    assert kubectl("logs", "job/once", "--namespace", namespace) == "done\n"


def test_two_pods_of_any_user_share_a_volume_of_the_default_class(kubectl, own_cluster, namespace):
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "10Gi"}}}
    kubectl.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "store"}, "spec": claim}, namespace=namespace)
    kubectl.wait("jsonpath={.status.phase}=Bound", "pvc/store", namespace=namespace)
    for name, user, script in (("writer", 1000, "echo engine > /store/engine"), ("reader", 2000, "cat /store/engine; ls /store | wc -l")):
        mounted = container(script, volumeMounts=[{"name": "store", "mountPath": "/store"}], securityContext={"runAsUser": user})
        volumes = [{"name": "store", "persistentVolumeClaim": {"claimName": "store"}}]
        kubectl.apply(pod(name, "", containers=[mounted], volumes=volumes), namespace=namespace)
        printed = output(kubectl, namespace, name)
    assert printed.split() == ["engine", "1"]


def test_containers_see_the_environments_whatever_their_user_and_cannot_change_them(kubectl, own_cluster, namespace):
    restricted = {
        "runAsUser": 1000,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    looks = "; ".join(f"ls {folder}/bin > /dev/null && echo read; touch {folder}/x 2>&1" for folder in mounted_folders())
    kubectl.apply(pod("looking", "", containers=[container(f"{looks}; true", securityContext=restricted)]), namespace=namespace)
    printed = output(kubectl, namespace, "looking")
    assert printed.count("read\n") == printed.count("Read-only file system") == len(mounted_folders())


def test_pod_security_refuses_a_privileged_pod_where_a_namespace_is_restricted(kubectl, namespace):
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    refused = kubectl.run("run", "root", "--image=any", "--privileged", "--namespace", namespace)
    assert refused.returncode != 0
    assert "violates PodSecurity" in refused.stderr


@pytest.fixture
def our_resources(kubectl):
    """The API server knows them; where it did not before, not afterwards either."""
    names = [f"crd/{crd['metadata']['name']}" for crd in all_crds().values()]
    were_there = kubectl.run("get", *names).returncode == 0
    kubectl("apply", "--server-side", "--force-conflicts", "--filename", layout.REPOSITORY / "crds")
    kubectl.wait("condition=Established", *names)
    wait_until("discovery of the short names", lambda: all(kubectl.run("explain", name).returncode == 0 for name in ("dd", "de")), 30)
    yield
    if not were_there:
        kubectl("delete", *names, "--timeout=60s")


@pytest.mark.parametrize("name", ["dd", "de"])
def test_explain_lists_every_field_of_a_spec(kubectl, our_resources, name):
    kind = {"dd": "DiffusionDeployment", "de": "DiffusionEngine"}[name]
    (crd,) = [crd for crd in all_crds().values() if crd["spec"]["names"]["kind"] == kind]
    wanted = {field.removeprefix(".spec") for field in fields_of(crd) if field.startswith(".spec.")}
    assert explained_fields(kubectl("explain", f"{name}.spec", "--recursive")) == wanted


def test_explain_describes_every_field_of_the_optimization(kubectl, our_resources):
    (crd,) = [crd for crd in all_crds().values() if crd["spec"]["names"]["kind"] == "DiffusionDeployment"]
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["optimization"]
    # kubectl breaks lines.
    said = " ".join(kubectl("explain", "dd.spec.optimization").split())
    assert schema["properties"]
    for name, field in schema["properties"].items():
        assert " ".join(field["description"].split()) in said, name
    assert "<no description>" not in said


def explained_fields(text):
    """Paths of the fields that `kubectl explain --recursive` lists, by their indentation."""
    found, path = set(), []
    for indentation, name in re.findall(r"^( +)([\w-]+)\t<", text.partition("FIELDS:")[2], re.MULTILINE):
        path = [(depth, part) for depth, part in path if depth < len(indentation)] + [(len(indentation), name)]
        found.add("".join(f".{part}" for _, part in path))
    return found


@pytest.fixture
def simulated(kubectl, own_cluster):
    yield start_kwok(kubectl, nodes=2, gpus=8)
    stop_kwok(kubectl)


def test_gpus_of_simulated_nodes_run_out(kubectl, namespace, simulated):
    limits = {"resources": {"limits": {"nvidia.com/gpu": "8"}}}
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    names = ["first", "second", "third"]
    kubectl.apply(*(pod(name, "", containers=[container("", **limits)], tolerations=tolerations) for name in names), namespace=namespace)

    def verdicts():
        pods = kubectl.json("get", "pods", "--namespace", namespace)["items"]
        judged = [
            (each, condition) for each in pods for condition in each["status"].get("conditions", ()) if condition["type"] == "PodScheduled"
        ]
        return sorted((each["spec"].get("nodeName", ""), condition.get("reason")) for each, condition in judged)

    wait_until("the scheduler's verdict on three pods", lambda: len(verdicts()) == 3, 30)
    assert verdicts() == [("", "Unschedulable"), *((node, None) for node in simulated)]
