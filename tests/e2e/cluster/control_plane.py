"""Command lines of etcd, the API server, the controller manager and the scheduler."""

from __future__ import annotations

from tests.e2e.cluster import layout
from tests.e2e.cluster.programs import KUBE

_CERTIFICATES = layout.CERTIFICATES
# By default they hold themselves to 20 and 50 requests a second, for the sake of a server that others share.
_UNTHROTTLED = ("--kube-api-qps=1000", "--kube-api-burst=2000")


def etcd_command() -> list[str]:
    """Return etcd's command line: one member, which need not survive a power cut."""
    return [
        str(KUBE.folder / "etcd"),
        f"--data-dir={layout.RUN / 'etcd'}",
        "--unsafe-no-fsync",
        "--log-level=warn",
        f"--listen-client-urls={layout.ETCD_URL}",
        f"--advertise-client-urls={layout.ETCD_URL}",
        f"--listen-peer-urls={layout.ETCD_PEER_URL}",
        f"--initial-advertise-peer-urls={layout.ETCD_PEER_URL}",
        f"--initial-cluster=default={layout.ETCD_PEER_URL}",
    ]


def api_server_command() -> list[str]:
    """Return the API server's command line: RBAC, the default admission plugins, and the aggregation layer for metrics APIs."""
    return [
        str(KUBE.folder / "kube-apiserver"),
        f"--etcd-servers={layout.ETCD_URL}",
        f"--secure-port={layout.API_PORT}",
        f"--advertise-address={layout.NODE_ADDRESS}",
        f"--service-cluster-ip-range={layout.SERVICE_NETWORK}",
        f"--tls-cert-file={_CERTIFICATES / 'kube-apiserver.crt'}",
        f"--tls-private-key-file={_CERTIFICATES / 'kube-apiserver.key'}",
        f"--client-ca-file={_CERTIFICATES / 'ca.crt'}",
        f"--service-account-issuer=https://kubernetes.default.svc.{layout.DNS_DOMAIN}",
        f"--service-account-key-file={_CERTIFICATES / 'service-account.pub'}",
        f"--service-account-signing-key-file={_CERTIFICATES / 'service-account.key'}",
        f"--kubelet-client-certificate={_CERTIFICATES / 'kubelet-client.crt'}",
        f"--kubelet-client-key={_CERTIFICATES / 'kubelet-client.key'}",
        f"--kubelet-certificate-authority={_CERTIFICATES / 'ca.crt'}",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
        f"--requestheader-client-ca-file={_CERTIFICATES / 'ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={_CERTIFICATES / 'front-proxy.crt'}",
        f"--proxy-client-key-file={_CERTIFICATES / 'front-proxy.key'}",
        "--enable-aggregator-routing=true",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
    ]


def controller_manager_command() -> list[str]:
    """Return the controller manager's command line."""
    return [
        *_client_of_the_api("kube-controller-manager"),
        *_UNTHROTTLED,
        "--use-service-account-credentials",
        f"--service-account-private-key-file={_CERTIFICATES / 'service-account.key'}",
        f"--root-ca-file={_CERTIFICATES / 'ca.crt'}",
        f"--cluster-signing-cert-file={_CERTIFICATES / 'ca.crt'}",
        f"--cluster-signing-key-file={_CERTIFICATES / 'ca.key'}",
    ]


def scheduler_command() -> list[str]:
    """Return the scheduler's command line."""
    return [*_client_of_the_api("kube-scheduler"), *_UNTHROTTLED]


def _client_of_the_api(name: str) -> list[str]:
    kubeconfig = _CERTIFICATES / f"{name}.kubeconfig"
    return [
        str(KUBE.folder / name),
        *(f"--{use}kubeconfig={kubeconfig}" for use in ("", "authentication-", "authorization-")),
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    ]
