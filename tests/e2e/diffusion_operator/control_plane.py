"""etcd and an API server, and nothing else: objects are kept and checked, and nobody acts on them but the operator and the test."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.e2e.cluster.kubectl import Kubectl
from tests.e2e.cluster.programs import KUBE
from tests.support.waiting import wait_until

START_SECONDS = 60
ADMIN, OPERATOR, NAMESPACED = "admin", "diffusion-operator", "namespaced-operator"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@dataclass
class ControlPlane:
    """Start with `start`; `stop` and `start` again keep what is stored."""

    folder: Path
    ports: list[int] = field(default_factory=lambda: free_ports(3))
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.ports[0]}"

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.kubeconfig(ADMIN))

    def kubeconfig(self, user: str) -> Path:
        """A kubeconfig of the administrator, or of the operator, who may what its documentation says."""
        path = self.folder / f"{user}.kubeconfig"
        cluster = {"server": self.url, "insecure-skip-tls-verify": True}
        context = {"cluster": "test", "user": user, "namespace": "default"}
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": user, "user": {"token": f"{user}-token"}}],
                    "contexts": [{"name": "test", "context": context}],
                    "current-context": "test",
                }
            )
        )
        return path

    def start(self) -> None:
        self._write_secrets()
        _, client, peer = self.ports
        etcd = f"http://127.0.0.1:{client}"
        self._spawn(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            "--log-level=warn",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        )
        self.start_api_server()

    def start_api_server(self) -> None:
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self.ports[1]}",
            f"--secure-port={self.ports[0]}",
            "--bind-address=127.0.0.1",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--cert-dir={self.folder / 'certificates'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            # Nobody makes ServiceAccounts here.
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder / 'sa.key'}",
            f"--service-account-signing-key-file={self.folder / 'sa.key'}",
        )
        log = self.folder / "kube-apiserver.log"

        def answers() -> bool:
            assert self.processes["kube-apiserver"].poll() is None, log.read_text()[-2000:]
            return self._answers()

        wait_until(f"the API server (see {log})", answers, START_SECONDS)

    def stop_api_server(self) -> None:
        self._stop("kube-apiserver")

    def delete_stored(self, *paths: str) -> None:
        """Delete objects from etcd itself, as if it happened while nobody watched; `pods/NAMESPACE/NAME` is the path of a pod."""
        for path in paths:
            key = base64.b64encode(f"/registry/{path}".encode()).decode()
            url = f"http://127.0.0.1:{self.ports[1]}/v3/kv/deleterange"
            request = urllib.request.Request(url, json.dumps({"key": key}).encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=5) as answer:
                deleted = int(json.loads(answer.read()).get("deleted", 0))
            assert deleted == 1, f"etcd has no {path}"

    def stop(self) -> None:
        for name in reversed(list(self.processes)):
            self._stop(name)

    def _spawn(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [str(KUBE.folder / name), *arguments]
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _stop(self, name: str) -> None:
        process = self.processes.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        context = ssl._create_unverified_context()
        request = urllib.request.Request(f"{self.url}/readyz", headers={"Authorization": f"Bearer {ADMIN}-token"})
        try:
            with urllib.request.urlopen(request, context=context, timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _write_secrets(self) -> None:
        tokens = f'{ADMIN}-token,{ADMIN},1,"system:masters"\n{OPERATOR}-token,{OPERATOR},2\n{NAMESPACED}-token,{NAMESPACED},3\n'
        (self.folder / "tokens.csv").write_text(tokens)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
        (self.folder / "sa.key").write_bytes(pem)
