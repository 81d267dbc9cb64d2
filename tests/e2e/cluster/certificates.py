"""A certificate authority, and a certificate and kubeconfig for each of the cluster's components."""

from __future__ import annotations

import datetime
import ipaddress
import json
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.e2e.cluster import layout

CLIENTS = {
    "admin": ("system:masters", "admin"),
    "kube-controller-manager": ("", "system:kube-controller-manager"),
    "kube-scheduler": ("", "system:kube-scheduler"),
    "kube-proxy": ("", "system:kube-proxy"),
    "kubelet": ("system:nodes", f"system:node:{layout.NODE}"),
}
"""Group and user of each; Source: https://kubernetes.io/docs/setup/best-practices/certificates/."""
SERVERS = {
    "kube-apiserver": (
        "kube-apiserver",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{layout.DNS_DOMAIN}",
        "127.0.0.1",
        layout.NODE_ADDRESS,
        layout.API_SERVICE_ADDRESS,
    ),
    "kubelet-server": (layout.NODE, layout.NODE, layout.NODE_ADDRESS, "127.0.0.1"),
}
"""Common name, then every name and address by which each is called."""


def write_certificates(folder: Path) -> None:
    """Write `ca`, every component's pair and kubeconfig, and the key that signs ServiceAccount tokens."""
    folder.mkdir(parents=True, mode=0o700)
    authority = _Authority(folder)
    for name, (group, user) in CLIENTS.items():
        authority.issue(name, group, user)
        _write_kubeconfig(folder, name)
    for name, (common_name, *names) in SERVERS.items():
        authority.issue(name, "", common_name, names)
    authority.issue("kubelet-client", "system:masters", "kube-apiserver-kubelet-client")
    authority.issue("front-proxy", "", "front-proxy-client")
    key = _write_key(folder / "service-account.key")
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "service-account.pub").write_bytes(public)


class _Authority:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = _write_key(folder / "ca.key")
        self._name = _distinguished_name("", layout.NAME)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        certificate = (
            _certificate(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(identifier, critical=False)
        )
        _write_certificate(certificate.sign(self._key, hashes.SHA256()), folder / "ca.crt")

    def issue(self, name: str, group: str, user: str, names: Sequence[str] = ()) -> None:
        """Write `<name>.key` and `<name>.crt`, good for clients and servers alike."""
        key = _write_key(self._folder / f"{name}.key")
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        certificate = (
            _certificate(_distinguished_name(group, user), self._name, key.public_key())
            .add_extension(usages, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names:
            certificate = certificate.add_extension(x509.SubjectAlternativeName([_general_name(each) for each in names]), critical=False)
        _write_certificate(certificate.sign(self._key, hashes.SHA256()), self._folder / f"{name}.crt")


def _distinguished_name(group: str, user: str) -> x509.Name:
    organization = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name([*organization, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=365))
    )


def _write_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    path.touch(mode=0o600)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    path.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    return key


def _write_certificate(certificate: x509.Certificate, path: Path) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _write_kubeconfig(folder: Path, name: str) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": layout.NAME, "cluster": {"server": layout.API_URL, "certificate-authority": str(folder / "ca.crt")}}],
        "users": [{"name": name, "user": {"client-certificate": str(folder / f"{name}.crt"), "client-key": str(folder / f"{name}.key")}}],
        "contexts": [{"name": layout.NAME, "context": {"cluster": layout.NAME, "user": name}}],
        "current-context": layout.NAME,
    }
    (folder / f"{name}.kubeconfig").write_text(json.dumps(config, indent=2))
